"""`make audit`: known holes in what is installed, and secrets in what is committed. Exit code 1 when there are any.

What can't be reached is said loudly, and is no failure: the advisories come from PyPI's own service, which a mirror of
the registry need not have.
"""

import json
import subprocess
import sys
from collections.abc import Sequence
from typing import Any, Final

from tests.server import ROOT

AUDIT_SECONDS: Final = 120
LOCK: Final = "requirements.lock"
# the ids of questions in the documents' examples are 32 hexadecimal digits
EXAMPLES: Final = r"\"interrupts?\"|\"resume\""
# keys that tests make up have names like real ones, and no form of a real one
OF_TESTS: Final = ("KeywordDetector", "HexHighEntropyString", "Base64HighEntropyString", "BasicAuthDetector")
GENERATED: Final = (":!*.lock", ":!clients/js/package-lock.json")


def say(text: str) -> None:
    sys.stdout.write(f"{text}\n")


def output_of(command: Sequence[str]) -> tuple[int, str, str]:
    done = subprocess.run(
        [sys.executable, "-m", *command], cwd=ROOT, capture_output=True, text=True, timeout=AUDIT_SECONDS, check=False
    )
    return done.returncode, done.stdout, done.stderr


def advisories() -> bool:
    """Whether no package of the lock has a known hole."""
    command = ["pip_audit", "-s", "pypi", "--disable-pip", "--no-deps", "-r", LOCK]
    try:
        _, found, _ = output_of([*command, "-f", "json", "--progress-spinner", "off"])
        packages: list[dict[str, Any]] = json.loads(found)["dependencies"]
    except (subprocess.TimeoutExpired, ValueError, KeyError):
        say("AUDIT SKIPPED: the advisories of PyPI can't be reached.")
        return True
    known = [package for package in packages if "vulns" in package]
    holes = [(each["name"], each["version"], hole["id"]) for each in known for hole in each["vulns"]]
    if not known:
        say(f"AUDIT SKIPPED: PyPI tells nothing about any of {len(packages)} packages.")
    else:
        say(f"{len(known)} of {len(packages)} packages looked up, {len(holes)} known holes.")
    for name, version, hole in holes:
        say(f"{name} {version}: {hole}")
    return not holes


def secrets() -> bool:
    """Whether no file of the repository has what looks like a secret."""
    plugins = [word for name in OF_TESTS for word in ("--disable-plugin", name)]
    sound = [scan(files(":!tests", *GENERATED)), scan(files("tests"), *plugins)]
    return all(sound)


def files(*patterns: str) -> list[str]:
    done = subprocess.run(
        ["git", "ls-files", "--", *patterns], cwd=ROOT, capture_output=True, text=True, timeout=30, check=False
    )
    return done.stdout.split("\n")[:-1]


def scan(names: Sequence[str], *options: str) -> bool:
    if not names:
        say("SECRET SCAN SKIPPED: this is no checkout of git.")
        return True
    code, found, error = output_of(["detect_secrets.pre_commit_hook", "--exclude-lines", EXAMPLES, *options, *names])
    say(f"{len(names)} files scanned for secrets, {'none' if code == 0 else 'some'} found.")
    if code:
        say(found + error)
    return code == 0


if __name__ == "__main__":
    sys.exit(0 if all([advisories(), secrets()]) else 1)
