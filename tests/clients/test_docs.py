"""The code in docs/clients.md runs as it stands, and prints what it says."""

import re
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

import pytest

from tests.clients.conftest import JS_DIR, STRICT, TSC, Node
from tests.clients.site import ROOT
from tests.server import RunningServer

FENCE = re.compile(r"^```(ts|python)\n(.*?)^```\n(?:\n```text\n(.*?)^```\n)?", re.MULTILINE | re.DOTALL)
PAGE = (ROOT / "docs" / "clients.md").read_text()


class Snippet(NamedTuple):
    language: str
    code: str
    output: str

    def run_at(self, url: str) -> str:
        assert "http://localhost:8000" in self.code
        return self.code.replace("http://localhost:8000", url)


SNIPPETS = [Snippet(*found.groups(default="")) for found in FENCE.finditer(PAGE)]
IN_PYTHON = [snippet for snippet in SNIPPETS if snippet.language == "python"]
IN_TYPESCRIPT = [snippet for snippet in SNIPPETS if snippet.language == "ts"]


@pytest.fixture(scope="module")
def project(
    tmp_path_factory: pytest.TempPathFactory, js_client: Path, node: Node, example_server: RunningServer
) -> Path:
    """A project that has installed the package of clients/js, and compiled the page's examples, by their numbers."""
    folder: Path = tmp_path_factory.mktemp("project")
    names = [f"{number}.ts" for number in range(len(IN_TYPESCRIPT))]
    for name, snippet in zip(names, IN_TYPESCRIPT, strict=True):
        (folder / name).write_text(snippet.run_at(example_server.url))
    (folder / "node_modules").mkdir()
    (folder / "node_modules" / "runstream-client").symlink_to(JS_DIR)
    (folder / "package.json").write_text('{"private": true, "type": "module"}')
    node(TSC, *STRICT, *names, cwd=folder)
    return folder


def test_the_page_has_examples_in_both_languages() -> None:
    assert len(IN_PYTHON) > 5
    assert len(IN_TYPESCRIPT) > 5


@pytest.mark.parametrize("snippet", IN_PYTHON)
def test_the_python_in_the_docs_runs(snippet: Snippet, example_server: RunningServer) -> None:
    command = [sys.executable, "-W", "error", "-c", snippet.run_at(example_server.url)]
    done = subprocess.run(
        command,
        env={"PYTHONPATH": str(ROOT / "clients" / "python")},
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip()
    assert snippet.output in ("", done.stdout)


@pytest.mark.parametrize("number", range(len(IN_TYPESCRIPT)))
def test_the_typescript_in_the_docs_is_well_typed_and_runs(number: int, project: Path, node: Node) -> None:
    printed = node(f"{number}.js", cwd=project)
    assert printed.strip()
    assert IN_TYPESCRIPT[number].output in ("", printed)
