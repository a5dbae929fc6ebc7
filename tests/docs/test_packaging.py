"""The Dockerfile and the compose file, as far as that goes without an engine: what they name is there and works."""

import fnmatch
import json
import os
import re
import subprocess
import sys
from typing import Any

import yaml  # type: ignore[import-untyped]  # it has no annotations

from app.cli import parser
from app.settings import Settings
from tests.server import ROOT, RunningServer

DOCKERFILE = (ROOT / "Dockerfile").read_text()
SETTINGS = Settings(_env_file=None)


def instructions(name: str) -> list[str]:
    joined = DOCKERFILE.replace("\\\n", " ")
    return [line.partition(" ")[2].strip() for line in joined.splitlines() if line.startswith(f"{name} ")]


def command_of(instruction: str) -> list[str]:
    words: list[str] = json.loads(instruction[instruction.index("[") :])
    return words


def copied() -> set[str]:
    lines = [line.split() for line in instructions("COPY") if not line.startswith("--from")]
    return {source for words in lines for source in words[:-1]}


def test_every_file_that_the_image_copies_is_there_and_is_sent_to_the_builder() -> None:
    ignored = (ROOT / ".dockerignore").read_text().splitlines()
    sent = [line.removeprefix("!") for line in ignored if line.startswith("!")]

    assert copied() == set(sent)
    assert [name for name in sent if not (ROOT / name).exists()] == []
    assert "*" in ignored


def test_nothing_that_is_private_is_sent_to_the_builder() -> None:
    sent = [line[1:] for line in (ROOT / ".dockerignore").read_text().splitlines() if line.startswith("!")]

    assert [
        name for name in (".env", "data", ".git", ".venv") if any(fnmatch.fnmatch(name, rule) for rule in sent)
    ] == []


def test_the_image_serves_on_all_addresses_as_nobody_special() -> None:
    (command,) = instructions("CMD")
    options = parser().parse_args(command_of(command)[1:])

    assert (options.command, options.host, str(options.data_dir)) == ("serve", "0.0.0.0", "/data")
    assert instructions("VOLUME") == ["/data"]
    assert instructions("EXPOSE") == [str(SETTINGS.port)]
    assert instructions("USER") == ["runstream"]


def test_the_health_check_of_the_image_tells_a_server_from_none(examples: RunningServer) -> None:
    (check,) = instructions("HEALTHCHECK")
    command = [sys.executable, *command_of(check)[1:]]

    def code_on(port: int) -> int:
        env = {**os.environ, "RUNSTREAM_PORT": str(port)}
        return subprocess.run(command, env=env, capture_output=True, timeout=30, check=False).returncode

    assert code_on(examples.port) == 0
    assert code_on(1) != 0


def compose() -> Any:
    return yaml.safe_load((ROOT / "docker-compose.yml").read_text())


def test_the_compose_file_has_one_service_with_a_volume_and_time_to_stop() -> None:
    ((name, service),) = compose()["services"].items()

    assert name == "runstream"
    assert service["volumes"] == ["data:/data"]
    assert "data" in compose()["volumes"]
    assert service["env_file"] == [{"path": ".env", "required": True}]
    needed = SETTINGS.shutdown_grace_seconds + SETTINGS.stop_seconds
    assert float(service["stop_grace_period"].removesuffix("s")) > needed


def test_the_unit_of_the_guide_gives_the_process_time_to_stop() -> None:
    guide = (ROOT / "docs" / "deployment.md").read_text()
    (seconds,) = re.findall(r"^TimeoutStopSec=(\d+)$", guide, re.MULTILINE)

    assert float(seconds) > SETTINGS.shutdown_grace_seconds + SETTINGS.stop_seconds
