"""The documents, cut into what can be tried: fenced blocks, tables, links, headings."""

import json
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.server import ROOT

README = ROOT / "README.md"
PROTOCOL = ROOT / "docs" / "protocol.md"
CONFIGURATION = ROOT / "docs" / "configuration.md"

FENCE = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
CODE = re.compile(r"`([^`]+)`")


def documents() -> list[Path]:
    return [README, ROOT / "CHANGELOG.md", *sorted((ROOT / "docs").rglob("*.md"))]


def name_of(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


@dataclass(frozen=True, kw_only=True)
class Block:
    """A fenced block: its language, and what is in it."""

    language: str
    text: str


def blocks(path: Path, *languages: str) -> list[Block]:
    found = [Block(language=match[1], text=match[2]) for match in FENCE.finditer(path.read_text())]
    return [block for block in found if not languages or block.language in languages]


def section(path: Path, heading: str) -> str:
    """What is under a heading, down to the next one of its level or above; code is not mistaken for headings."""
    level = len(heading) - len(heading.lstrip("#"))
    lines, inside, is_code = list[str](), False, False
    for line in path.read_text().splitlines():
        is_code ^= line.startswith("```")
        if not is_code and re.match(rf"#{{1,{level}}} ", line):
            inside = line == heading
        elif inside:
            lines.append(line)
    assert lines, f"{name_of(path)} has no section {heading!r}"
    return "\n".join(lines)


def rows(text: str) -> Iterator[list[str]]:
    """The cells of a table's rows, without its head and its rule."""
    is_head = True
    for line in text.splitlines():
        if not line.startswith("|"):
            is_head = True
            continue
        cells = [cell.strip() for cell in line.strip().strip("|").split(" | ")]
        if not is_head and not set(line) <= set("|-: "):
            yield cells
        is_head = False


def codes(text: str) -> list[str]:
    """What is written as code in a text, outside of fenced blocks."""
    return CODE.findall(without_code(text))


def frames_in(path: Path) -> list[dict[str, Any]]:
    """The example frames of a document."""
    found = [json.loads(block.text) for block in blocks(path, "json")]
    return [frame for frame in found if "event" in frame]


def without_code(text: str) -> str:
    return FENCE.sub("", text)


def anchors(text: str) -> Sequence[str]:
    """The anchors of a document's headings, as they are made on GitHub."""
    headings = re.findall(r"^#+ (.+)$", without_code(text), re.MULTILINE)
    return [re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings]
