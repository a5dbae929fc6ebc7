"""What a machine must have for these tests: curl, Node with npm, Chromium, nginx, Caddy."""

import contextlib
import fcntl
import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import NoReturn

import pytest

NODE_DIR = Path(__file__).parent / "node"
OLDEST_NODE = 20
INSTALL_SECONDS = 120

CHROMIUM_NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "/usr/bin/chromium")


def find_curl() -> str:
    return shutil.which("curl") or missing("curl is not installed, so nothing was tried with it.")


def find_proxy(name: str) -> str:
    """nginx or Caddy; Debian keeps the first one where only root looks."""
    found = shutil.which(name, path=f"{os.environ.get('PATH', '')}:/usr/sbin:/usr/local/sbin")
    return found or missing(f"{name} is not installed, so its settings were not tried: run install_proxies.sh as root.")


def find_chromium() -> str:
    found = next(filter(None, map(shutil.which, CHROMIUM_NAMES)), None)
    return found or missing(
        "Chromium is not installed, so nothing was tried in a browser: run tests/e2e/install_browser.sh as root."
    )


def find_node() -> str:
    node = shutil.which("node") or missing("Node is not installed, so its clients were not tried.")
    version = subprocess.run([node, "--version"], capture_output=True, text=True, timeout=30, check=True).stdout.strip()
    if int(version.removeprefix("v").partition(".")[0]) < OLDEST_NODE:
        missing(f"Node is {version}, and its clients want {OLDEST_NODE} or newer, so they were not tried.")
    return node


def install_node_packages(folder: Path = NODE_DIR) -> Path:
    """The folder of the Node clients, or another one, with the packages that its lock names."""
    with alone(folder / "package-lock.json") as lock:
        install(folder, lock)
    return folder


@contextlib.contextmanager
def alone(path: Path) -> Iterator[Path]:
    """One process at a time: several run tests side by side."""
    with path.open() as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield path


def install(folder: Path, lock: Path) -> None:
    installed = folder / "node_modules" / ".package-lock.json"
    if installed.exists() and installed.stat().st_mtime >= lock.stat().st_mtime:
        return
    npm = shutil.which("npm") or missing("npm is not installed, so the Node clients were not tried.")
    command = [npm, "ci", "--no-audit", "--no-fund"]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=INSTALL_SECONDS, check=False)
    if done.returncode != 0:
        missing(f"npm could not install the Node clients, so they were not tried:\n{done.stderr}")
    # a later npm leaves its own record untouched when there is nothing to do
    installed.touch()


def missing(sentence: str) -> NoReturn:
    """Skip, and say what was not proved; where `CI` is set, fail: there it must be proved."""
    if os.environ.get("CI"):
        pytest.fail(sentence, pytrace=False)
    pytest.skip(sentence)
