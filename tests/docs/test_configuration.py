"""docs/configuration.md, .env.example and what is really read: the same names, the same defaults."""

import argparse
import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from pydantic import BaseModel

from app.cli import parser
from app.engine.manifest import read_manifest
from app.errors import ConfigInvalid
from app.settings import Settings
from graphs.model import ModelSettings
from tests.docs.document import CONFIGURATION, blocks, codes, rows, section
from tests.server import ROOT

PREFIX = "RUNSTREAM_"
EMPTY = "empty"


def shown(value: Any) -> str:
    """A default as it is written in a file of variables."""
    match value:
        case None | ():
            return ""
        case bool():
            return str(value).lower()
        case _ if hasattr(value, "get_secret_value"):
            return str(value.get_secret_value())
        case _:
            return str(value)


def defaults(settings: type[BaseModel], prefix: str = "") -> dict[str, str]:
    found: dict[str, str] = {}
    for name, each in settings.model_fields.items():
        if isinstance(each.default, BaseModel):
            found |= defaults(type(each.default), f"{prefix}{name.upper()}__")
        else:
            found[prefix + name.upper()] = shown(each.default)
    return found


def real() -> dict[str, str]:
    return {**defaults(Settings, PREFIX), **defaults(ModelSettings)}


def documented() -> dict[str, str]:
    """The variables of the page's tables, each with its default."""
    found = [cells for cells in rows(CONFIGURATION.read_text()) if re.match(r"`[A-Z][A-Z_]+`$", cells[0])]
    return {codes(name)[0]: "" if default == EMPTY else codes(default)[0] for name, default, _ in found}


def env_lines() -> list[str]:
    return (ROOT / ".env.example").read_text().splitlines()


def example() -> dict[str, str]:
    """The variables of .env.example, all of them commented out."""
    return dict(re.findall(r"^# ([A-Z][A-Z_]+)=(.*)$", "\n".join(env_lines()), re.MULTILINE))


def test_the_page_names_every_setting_with_its_default() -> None:
    assert documented() == real()


def test_env_example_has_every_setting_with_its_default() -> None:
    assert example() == real()


def test_env_example_changes_nothing_and_says_a_line_about_each_setting() -> None:
    lines = env_lines()

    assert [line for line in lines if line and not line.startswith("#")] == []
    for number, line in enumerate(lines):
        if line.startswith(f"# {PREFIX}"):
            assert re.match(r"# [A-Z]?[a-z].{10,}", lines[number - 1]), line


def test_env_example_can_be_used_with_every_line_in_force(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in real():
        monkeypatch.delenv(name, raising=False)
    path = tmp_path / ".env"
    path.write_text("\n".join(f"{name}={value}" for name, value in example().items()))

    assert Settings(_env_file=path) == Settings(_env_file=None)


def test_the_page_names_the_options_of_each_command() -> None:
    table = [cells for cells in options_table() if codes(cells[2])]  # without --reload, which is no setting
    told = {codes(option)[0]: (set(codes(commands)), codes(same)[0]) for option, commands, same in table}

    assert told.keys() | {"--reload"} == real_options().keys()
    assert told.items() <= real_options().items()


def options_table() -> list[list[str]]:
    return [cells for cells in rows(section(CONFIGURATION, "## The command line")) if cells[0].startswith("`--")]


def real_options() -> dict[str, tuple[set[str], str]]:
    found: dict[str, tuple[set[str], str]] = {}
    for command, subparser in subcommands().items():
        for action in subparser._actions:
            if action.dest != "help" and action.option_strings:
                same = PREFIX + action.dest.upper()
                found.setdefault(action.option_strings[0], (set(), same))[0].add(command)
    return found


def subcommands() -> Mapping[str, argparse.ArgumentParser]:
    (action,) = (each for each in parser()._actions if isinstance(each, argparse._SubParsersAction))
    choices: Mapping[str, argparse.ArgumentParser] = action.choices
    return choices


def test_the_page_names_every_command() -> None:
    told = {
        codes(cells[0])[0] for cells in rows(section(CONFIGURATION, "## The command line")) if "runstream" in cells[0]
    }

    assert told == {f"runstream {command}" for command in subcommands()}


def test_the_langgraph_json_of_the_page_is_understood(tmp_path: Path) -> None:
    (block,) = blocks(CONFIGURATION, "json")
    path = tmp_path / "langgraph.json"
    path.write_text(block.text)

    manifest = read_manifest(path)

    assert manifest.problems == {}
    assert (list(manifest.registrations), manifest.default) == (["chat", "essay"], "chat")
    assert manifest.registrations["essay"].interrupt_after == ("planner", "draft")


def key_cells() -> list[str]:
    return [codes(cells[0])[0] for cells in rows(section(CONFIGURATION, "## langgraph.json"))]


@pytest.mark.parametrize("key", key_cells())
def test_each_key_of_langgraph_json_that_the_page_names_is_really_read(key: str, tmp_path: Path) -> None:
    document: dict[str, Any] = {"graphs": {"one": {"path": "./one.py:graph"}}}
    wrong = 5
    if key.startswith("graphs.<name>."):
        document["graphs"]["one"][key.rpartition(".")[2]] = wrong
    else:
        outer, _, inner = key.partition(".")
        document[outer] = {inner: wrong} if inner else wrong
    path = tmp_path / "langgraph.json"
    path.write_text(json.dumps(document))

    assert complaint(path), f"{key} may be anything, so nobody reads it"


def complaint(path: Path) -> str | None:
    try:
        return read_manifest(path).problems.get("one")
    except ConfigInvalid as error:
        return str(error)
