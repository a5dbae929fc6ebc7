"""What documents and docstrings point to is there: files, headings, and the files they name."""

import re
from pathlib import Path

import pytest

from tests.docs.document import anchors, documents, name_of, without_code
from tests.server import ROOT

LINK = re.compile(r"\[[^\]]*\]\(([^)\s]+)\)")
DOCUMENT_NAME = re.compile(r"\bdocs/[\w./-]+\.md\b")
SOURCES = ("app", "graphs", "examples", "tests/server.py", "Makefile", "pyproject.toml", ".env.example", "Dockerfile")


def broken_link(document: Path, target: str) -> str | None:
    if re.match(r"[a-z]+://", target):
        return None
    place, _, anchor = target.partition("#")
    path = (document.parent / place).resolve() if place else document
    if not path.exists():
        return f"{target}: no such file"
    if not path.is_relative_to(ROOT):
        return f"{target}: outside of the repository"
    if anchor and anchor not in anchors(path.read_text()):
        return f"{target}: no such heading"
    return None


@pytest.mark.parametrize("document", documents(), ids=name_of)
def test_every_relative_link_leads_to_a_file_and_a_heading(document: Path) -> None:
    targets = LINK.findall(without_code(document.read_text()))

    assert [broken for target in targets if (broken := broken_link(document, target))] == []


def source_files() -> list[Path]:
    roots = [ROOT / source for source in SOURCES]
    nested = [
        path for root in roots if root.is_dir() for path in root.rglob("*") if path.suffix in (".py", ".html", ".sql")
    ]
    return [root for root in roots if root.is_file()] + nested


def test_every_document_that_a_source_file_names_is_there() -> None:
    named = {(name_of(path), found) for path in source_files() for found in DOCUMENT_NAME.findall(path.read_text())}

    assert named, "no source file names a document"
    assert [pair for pair in sorted(named) if not (ROOT / pair[1]).is_file()] == []


def test_every_decision_says_the_four_things_that_one_asks() -> None:
    decisions = sorted((ROOT / "docs" / "decisions").glob("*.md"))

    assert [path.name[:3] for path in decisions] == [f"{number:03}" for number in range(1, len(decisions) + 1)]
    for path in decisions:
        text = path.read_text()
        assert text.startswith(f"# {path.name[:3]}: "), path.name
        for heading in ("## Context", "## Decision", "## Alternatives", "## What would change our mind"):
            assert heading in text, f"{path.name} has no {heading!r}"
