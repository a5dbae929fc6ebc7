import asyncio
import json
import logging
import os
import subprocess
import sys
import textwrap
import threading
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from app.engine.manifest import read_manifest
from app.engine.registry import AnyGraph, Registry
from app.errors import ConfigInvalid, GraphNotFound, GraphUnavailable

HEAD = """
from typing import TypedDict
from langgraph.graph import END, START, StateGraph

class State(TypedDict):
    text: str

def builder():
    made = StateGraph(State)
    made.add_node("say", lambda state: {"text": "said"})
    made.add_edge(START, "say")
    return made
"""
GRAPH = HEAD + "graph = builder().compile()\n"
# What a factory below leaves behind, for the test to look at: a list in a module of the user's.
NOTED = HEAD + "import asyncio, contextlib, threading\nnoted = []\n"


@pytest.fixture(autouse=True)
def process(tmp_path: Path) -> Iterator[None]:
    """Loading changes the process on purpose; what a test loaded is forgotten after it."""
    path, environment = list(sys.path), dict(os.environ)
    yield
    sys.path[:] = path
    os.environ.clear()
    os.environ.update(environment)
    for name, module in list(sys.modules.items()):
        places = [vars(module).get("__file__"), *vars(module).get("__path__", [])]
        if name.startswith("runstream_graphs") or any(str(place).startswith(str(tmp_path)) for place in places):
            del sys.modules[name]


def write(root: Path, files: Mapping[str, str]) -> None:
    for name, text in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(textwrap.dedent(text))


def configure(root: Path, graphs: Any, files: Mapping[str, str] | None = None, **more: Any) -> Path:
    write(root, files or {})
    config = root / "langgraph.json"
    config.write_text(json.dumps({"graphs": graphs, **more}))
    return config


def load(root: Path, graphs: Any, files: Mapping[str, str] | None = None, **more: Any) -> Registry:
    return Registry.load(configure(root, graphs, files, **more))


def load_one(root: Path, text: str, attribute: str = "graph", **entry: Any) -> Registry:
    """The registry of one graph, `it`, whose file is `it.py`."""
    return load(root, {"it": {"path": f"./it.py:{attribute}", **entry}}, {"it.py": text})


def problem_of(root: Path, text: str, attribute: str = "graph", **entry: Any) -> str:
    return load_one(root, text, attribute, **entry).problems["it"]


def opened(registry: Registry, name: str = "it", config: Mapping[str, Any] | None = None) -> AnyGraph:
    async def main() -> AnyGraph:
        async with registry.open(name, config) as graph:
            return graph

    return asyncio.run(main())


def module_of(registry: Registry, name: str = "it") -> Any:
    """The module of a graph's file, by the name that the graph's own types are stored under."""
    builder: Any = opened(registry, name)
    return sys.modules[builder.builder.state_schema.__module__]


def answer(graph: AnyGraph) -> str:
    return str(graph.invoke({"text": "asked"})["text"])


# The file


def test_a_string_and_an_object_each_register_a_graph(tmp_path: Path) -> None:
    graphs = {"one": "./it.py:graph", "two": {"path": "./it.py:graph", "description": "The second"}}
    registry = load(tmp_path, graphs, {"it.py": GRAPH})
    assert registry.names == ("one", "two")
    assert registry.problems == {}
    assert registry.registration("one").source == "./it.py:graph"
    assert registry.registration("one").description is None
    assert registry.registration("two").description == "The second"
    assert answer(opened(registry, "two")) == "said"


def test_a_registration_says_where_to_pause_and_what_to_show(tmp_path: Path) -> None:
    entry: dict[str, Any] = {
        "hitl": {"interrupt_before": "*", "interrupt_after": ["say"]},
        "expose_nodes": ["say"],
        "expose_keys": [],
        "hide_tags": ["inner"],
    }
    registration = load_one(tmp_path, GRAPH, **entry).registration("it")
    assert registration.has_hitl
    assert registration.interrupt_before == "*"
    assert registration.interrupt_after == ("say",)
    assert registration.expose_nodes == frozenset({"say"})
    assert registration.expose_keys == frozenset()
    assert registration.hide_tags == {"inner"}


def test_what_an_entry_leaves_out_restricts_nothing(tmp_path: Path) -> None:
    registration = load_one(tmp_path, GRAPH).registration("it")
    assert not registration.has_hitl
    assert registration.interrupt_before == ()
    assert registration.interrupt_after == ()
    assert registration.expose_nodes is None
    assert registration.expose_keys is None
    assert registration.hide_tags == frozenset()


def test_an_empty_hitl_is_still_one_that_was_given(tmp_path: Path) -> None:
    registration = load_one(tmp_path, GRAPH, hitl={}).registration("it")
    assert registration.has_hitl
    assert registration.interrupt_before == ()


def test_keys_that_are_not_known_are_left_alone(tmp_path: Path) -> None:
    graphs = {"it": {"path": "./it.py:graph", "colour": 3, "hitl": {"who": "me"}}}
    registry = load(tmp_path, graphs, {"it.py": GRAPH}, store={"path": 1}, python_version="3.12")
    assert registry.problems == {}


def test_any_text_but_none_is_a_name(tmp_path: Path) -> None:
    registry = load(tmp_path, {"a b/ü": "./it.py:graph"}, {"it.py": GRAPH})
    assert answer(opened(registry, "a b/ü")) == "said"
    with pytest.raises(ConfigInvalid, match="empty"):
        load(tmp_path, {"": "./it.py:graph"})


def test_the_default_is_the_first_unless_the_file_names_another(tmp_path: Path) -> None:
    graphs = {"zebra": "./it.py:graph", "ant": "./it.py:graph"}
    assert load(tmp_path, graphs, {"it.py": GRAPH}).default == "zebra"
    assert load(tmp_path, graphs, default_graph="ant").default == "ant"
    assert load(tmp_path, {}).default is None


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ('{"graphs": {},}', "is not JSON: .* at line 1 column"),
        ("[]", "must hold an object, not a list"),
        ("{}", "has no `graphs`"),
        ('{"graphs": ["a"]}', "graphs must be an object, not a list"),
        ('{"graphs": {}, "dependencies": "."}', "dependencies must be a list of strings, not a string"),
        ('{"graphs": {}, "dependencies": [1]}', "dependencies must be a list of strings, and a number is in it"),
        ('{"graphs": {}, "env": ["A"]}', "env must be a file's name or an object, not a list"),
        ('{"graphs": {}, "env": {"A": 1}}', "env.A must be a string, not a number"),
        ('{"graphs": {}, "env": {"A": "\\u0000"}}', "env can't be loaded: ValueError"),
        ('{"graphs": {}, "default_graph": true}', "default_graph must be a string, not true"),
        ('{"graphs": {}, "default_graph": "x"}', "default_graph names 'x', which is not among the graphs"),
        ("[" * 100_000, "nested too deeply"),
    ],
)
def test_a_file_that_is_wrong_as_a_whole_is_refused_with_a_sentence(tmp_path: Path, text: str, sentence: str) -> None:
    config = tmp_path / "langgraph.json"
    config.write_text(text)
    with pytest.raises(ConfigInvalid, match=sentence):
        Registry.load(config)


def test_a_file_that_can_not_be_read_is_refused_with_its_name(tmp_path: Path) -> None:
    with pytest.raises(ConfigInvalid, match=r"absent.json can't be read: No such file"):
        Registry.load(tmp_path / "absent.json")
    with pytest.raises(ConfigInvalid, match="can't be read: Is a directory"):
        Registry.load(tmp_path)
    (tmp_path / "latin.json").write_bytes(b'{"graphs": "\xe4"}')
    with pytest.raises(ConfigInvalid, match="is not UTF-8"):
        Registry.load(tmp_path / "latin.json")


def test_a_byte_order_mark_is_no_problem(tmp_path: Path) -> None:
    config = configure(tmp_path, {"it": "./it.py:graph"}, {"it.py": GRAPH})
    config.write_text(config.read_text(), encoding="utf-8-sig")
    assert Registry.load(config).names == ("it",)


@pytest.mark.parametrize(
    ("entry", "sentence"),
    [
        (3, "graphs.it must be a string or an object, not a number."),
        ({}, "graphs.it has no `path`."),
        ({"path": 3}, "graphs.it.path must be a string, not a number."),
        ({"path": "x:y", "description": []}, "graphs.it.description must be a string, not a list."),
        ({"path": "x:y", "hitl": True}, "graphs.it.hitl must be an object, not true."),
        (
            {"path": "x:y", "hitl": {"interrupt_after": "say"}},
            'graphs.it.hitl.interrupt_after must be "*" or a list of strings, not a string.',
        ),
        ({"path": "x:y", "expose_keys": {}}, "graphs.it.expose_keys must be a list of strings, not an object."),
        ({"path": "x:y", "hide_tags": [None]}, "graphs.it.hide_tags must be a list of strings, and null is in it."),
    ],
)
def test_a_wrong_entry_breaks_its_own_graph_alone(tmp_path: Path, entry: Any, sentence: str) -> None:
    registry = load(tmp_path, {"it": entry, "good": "./good.py:graph"}, {"good.py": GRAPH})
    assert registry.names == ("it", "good")
    assert registry.problems == {"it": sentence}
    assert registry.registration("it").name == "it"
    assert answer(opened(registry, "good")) == "said"


# Broken graphs


def test_a_broken_graph_is_registered_and_unavailable_and_the_others_are_served(tmp_path: Path) -> None:
    files = {"bad.py": "import no_such_module_anywhere\n", "good.py": GRAPH}
    registry = load(tmp_path, {"bad": "./bad.py:graph", "good": "./good.py:graph"}, files)
    assert registry.names == ("bad", "good")
    assert list(registry.problems) == ["bad"]
    assert answer(opened(registry, "good")) == "said"
    with pytest.raises(GraphUnavailable) as caught:
        opened(registry, "bad")
    assert caught.value.fields["reason"] == registry.problems["bad"]


def test_problems_come_in_the_order_of_the_file(tmp_path: Path) -> None:
    graphs = {name: f"./{name}.py:graph" for name in ("e", "d", "c", "b", "a")} | {"f": 1}
    assert list(load(tmp_path, graphs).problems) == ["e", "d", "c", "b", "a", "f"]


def test_an_unknown_name_is_told_the_names(tmp_path: Path) -> None:
    registry = load_one(tmp_path, GRAPH)
    with pytest.raises(GraphNotFound) as caught:
        registry.registration("other")
    assert caught.value.fields["graphs"] == ["it"]
    with pytest.raises(GraphNotFound):
        opened(registry, "other")


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        (
            "import no_such_module_anywhere\n",
            "ModuleNotFoundError: No module named 'no_such_module_anywhere' (line 1)",
        ),
        ("x = 1\ngraph = (\n", "SyntaxError: '(' was never closed (it.py, line 2)"),
        ("import sys\n\nsys.exit(3)\n", "SystemExit: 3 (line 3)"),
        ("raise ValueError('first\\nlast')\n", "ValueError: first last (line 1)"),
        ("raise ValueError\n", "ValueError (line 1)"),
        ("def __getattr__(name):\n    raise OSError(name)\n", "OSError: graph (line 2)"),
    ],
)
def test_a_file_that_does_not_import_is_named_with_the_exception(tmp_path: Path, text: str, sentence: str) -> None:
    assert problem_of(tmp_path, text) == f"./it.py:graph: ./it.py can't be imported: {sentence}"


def test_the_traceback_of_a_broken_file_is_logged(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.ERROR):
        load_one(tmp_path, "1 / 0\n")
    assert "ZeroDivisionError" in caplog.text
    assert 'it.py", line 1' in caplog.text


def test_a_failed_import_leaves_no_half_made_module(tmp_path: Path) -> None:
    assert "ZeroDivisionError" in problem_of(tmp_path, "graph = None\n1 / 0\n")
    write(tmp_path, {"it.py": GRAPH + "# mended\n"})
    assert Registry.load(tmp_path / "langgraph.json").problems == {}


@pytest.mark.parametrize(
    ("source", "sentence"),
    [
        ("./it.py", "'./it.py' must be a file or a module, a colon, and the name of an attribute of it."),
        ("./it.py:", "'./it.py:' must be a file or a module, a colon, and the name of an attribute of it."),
        (":graph", "':graph' must be a file or a module, a colon, and the name of an attribute of it."),
        ("./gone.py:graph", "./gone.py:graph: there is no file ./gone.py."),
        ("./it:graph", "./it:graph: there is no file ./it."),
        (
            "no_such_package_anywhere.mod:graph",
            "no_such_package_anywhere.mod:graph: no_such_package_anywhere.mod can't be imported: "
            "ModuleNotFoundError: No module named 'no_such_package_anywhere'",
        ),
    ],
)
def test_a_source_that_leads_nowhere_is_a_sentence(tmp_path: Path, source: str, sentence: str) -> None:
    registry = load(tmp_path, {"it": source}, {"it.py": GRAPH})
    assert registry.problems == {"it": sentence}


def test_a_missing_attribute_is_told_what_could_be_meant(tmp_path: Path) -> None:
    text = GRAPH + "other = 3\n_hidden = graph\n"
    expected = "./it.py:agent: there is no 'agent' in ./it.py; it has builder, graph."
    assert problem_of(tmp_path, text, "agent") == expected


def test_a_file_without_graphs_is_told_so(tmp_path: Path) -> None:
    assert problem_of(tmp_path, "x = 1\n").endswith("it has nothing that could be a graph.")


@pytest.mark.parametrize(
    ("attribute", "kind"),
    [("State", "the class State"), ("number", "an int"), ("chain", "a RunnableLambda"), ("nothing", "a NoneType")],
)
def test_an_attribute_of_another_type_is_told_its_type(tmp_path: Path, attribute: str, kind: str) -> None:
    lines = (
        "from langchain_core.runnables import RunnableLambda\nchain = RunnableLambda(str)\nnumber = 3\nnothing = None\n"
    )
    expected = f"./it.py:{attribute}: it is {kind}, not a compiled graph, a StateGraph or a factory of one."
    assert problem_of(tmp_path, HEAD + lines, attribute) == expected


def test_a_breakpoint_on_an_unknown_node_breaks_the_graph(tmp_path: Path) -> None:
    problem = problem_of(tmp_path, GRAPH, hitl={"interrupt_before": ["say"], "interrupt_after": ["sya"]})
    assert problem == "./it.py:graph: hitl names sya; the graph's nodes are say."


# Finding and naming modules


def test_relative_imports_work_in_a_package(tmp_path: Path) -> None:
    files = {
        "agents_a/__init__.py": "",
        "agents_a/words.py": "WORD = 'hello'\n",
        "agents_a/deep/__init__.py": "",
        "agents_a/deep/it.py": GRAPH.replace('"said"', "WORD").replace(
            "from typing", "from ..words import WORD\nfrom typing"
        ),
    }
    registry = load(tmp_path, {"it": "./agents_a/deep/it.py:graph"}, files)
    assert registry.problems == {}
    assert answer(opened(registry)) == "hello"
    assert module_of(registry).__name__ == "agents_a.deep.it"


def test_a_file_whose_name_is_no_identifier_is_still_part_of_its_package(tmp_path: Path) -> None:
    text = GRAPH.replace("from typing", "from . import WORD\nfrom typing").replace('"said"', "WORD")
    files = {"agents_b/__init__.py": "WORD = 'hyphen'\n", "agents_b/chat-v2.py": text}
    registry = load(tmp_path, {"it": "./agents_b/chat-v2.py:graph"}, files)
    assert registry.problems == {}
    assert answer(opened(registry)) == "hyphen"


def test_a_file_may_have_a_dot_in_its_name(tmp_path: Path) -> None:
    files = {"agents_c/__init__.py": "", "agents_c/chat.v2.py": GRAPH}
    registry = load(tmp_path, {"it": "./agents_c/chat.v2.py:graph"}, files)
    assert registry.problems == {}
    assert answer(opened(registry)) == "said"


def test_the_package_itself_can_hold_the_graph(tmp_path: Path) -> None:
    registry = load(tmp_path, {"it": "./agents_d/__init__.py:graph"}, {"agents_d/__init__.py": GRAPH})
    assert module_of(registry).__name__ == "agents_d"


def test_a_package_whose_name_is_taken_keeps_its_relative_imports(tmp_path: Path) -> None:
    text = GRAPH.replace("from typing", "from .words import WORD\nfrom typing").replace('"said"', "WORD")
    files = {"json/__init__.py": "", "json/words.py": "WORD = 'mine'\n", "json/it.py": text}
    registry = load(tmp_path, {"it": "./json/it.py:graph"}, files)
    assert registry.problems == {}
    assert answer(opened(registry)) == "mine"
    assert module_of(registry).__name__.startswith("runstream_graphs.json_")
    assert json.loads("1") == 1


def test_a_file_below_a_dependency_has_the_name_that_others_import_it_by(tmp_path: Path) -> None:
    other = "from flows_a.it import State\nfrom langgraph.graph import START, StateGraph\n"
    other += "graph = StateGraph(State).add_node('say', lambda s: {}).add_edge(START, 'say').compile()\n"
    graphs = {"it": "./flows_a/it.py:graph", "other": "./flows_a/other.py:graph"}
    registry = load(tmp_path, graphs, {"flows_a/it.py": GRAPH, "flows_a/other.py": other}, dependencies=["."])
    assert registry.problems == {}
    assert module_of(registry, "it") is module_of(registry, "other")


def test_of_two_dependencies_the_nearer_one_names_a_file(tmp_path: Path) -> None:
    registry = load(tmp_path, {"it": "./lib/flow_c.py:graph"}, {"lib/flow_c.py": GRAPH}, dependencies=[".", "./lib"])
    assert module_of(registry).__name__ == "flow_c"


def test_a_file_named_like_a_library_does_not_replace_it(tmp_path: Path) -> None:
    registry = load(tmp_path, {"it": "./json.py:graph"}, {"json.py": GRAPH}, dependencies=["."])
    assert registry.problems == {}
    assert answer(opened(registry)) == "said"
    assert sys.modules["json"] is json


def test_two_configurations_may_have_files_of_the_same_name(tmp_path: Path) -> None:
    for word in ("one", "two"):
        text = GRAPH.replace("said", word)
        files = {"it.py": text, "pkg_a/__init__.py": "", "pkg_a/it.py": text, "loose/it.py": text}
        graphs = {"plain": "./it.py:graph", "packed": "./pkg_a/it.py:graph", "loose": "./loose/it.py:graph"}
        (tmp_path / word).mkdir()
        configure(tmp_path / word, graphs, files)
    one, two, again = (Registry.load(tmp_path / word / "langgraph.json") for word in ("one", "two", "one"))
    for name in one.names:
        assert answer(opened(one, name)) == "one"
        assert answer(opened(two, name)) == "two"
        assert opened(again, name) is opened(one, name)


def test_a_file_with_two_attributes_is_imported_once(tmp_path: Path) -> None:
    text = (
        GRAPH + "second = builder().compile()\nimport os\nos.environ['IMPORTS'] = os.environ.get('IMPORTS', '') + 'x'\n"
    )
    registry = load(tmp_path, {"one": "./it.py:graph", "two": "./it.py:second"}, {"it.py": text})
    assert os.environ["IMPORTS"] == "x"
    assert module_of(registry, "one") is module_of(registry, "two")
    assert opened(registry, "one") is not opened(registry, "two")


def test_a_files_name_is_the_same_in_every_process_however_it_was_started(tmp_path: Path) -> None:
    graphs = {"pkg": "./pkg_b/it.py:graph", "plain": "./flows/it.py:graph", "up": "../up-here.py:graph"}
    files = {"pkg_b/__init__.py": "", "pkg_b/it.py": GRAPH, "flows/it.py": GRAPH, "../up-here.py": GRAPH}
    (tmp_path / "project").mkdir()
    config = configure(tmp_path / "project", graphs, files)
    program = (
        "import asyncio, sys\nfrom pathlib import Path\nfrom app.engine.registry import Registry\n"
        "async def main():\n"
        "    registry = Registry.load(Path(sys.argv[1]))\n"
        "    for name in registry.names:\n"
        "        async with registry.open(name) as graph:\n"
        "            print(graph.builder.state_schema.__module__)\n"
        "asyncio.run(main())\n"
    )
    repository = str(Path(__file__).parents[2])
    printed = []
    for folder, argument, path in [(config.parent, config.name, [str(config.parent)]), (tmp_path, str(config), [])]:
        environment = {**os.environ, "PYTHONPATH": os.pathsep.join([repository, *path])}
        command = [sys.executable, "-c", program, argument]
        ran = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=True)
        printed.append(ran.stdout.split())
    assert printed[0] == printed[1]
    assert printed[0][0] == "pkg_b.it"
    assert printed[0][1].startswith("runstream_graphs.flows_it_")
    assert len(set(printed[0])) == 3


def test_a_dotted_module_is_found_through_the_dependencies(tmp_path: Path) -> None:
    files = {"lib/flows_b/__init__.py": "", "lib/flows_b/it.py": GRAPH}
    registry = load(tmp_path, {"it": "flows_b.it:graph"}, files, dependencies=["./lib", "some-package>=1"])
    assert registry.problems == {}
    assert answer(opened(registry)) == "said"


def test_local_dependencies_are_on_the_path_once_and_packages_are_left_alone(tmp_path: Path) -> None:
    config = configure(tmp_path, {}, dependencies=[".", "./lib", ".", "langchain", "./gone"])
    (tmp_path / "lib").mkdir()
    (tmp_path / "langchain").mkdir()
    before = list(sys.path)
    Registry.load(config)
    Registry.load(config)
    assert sys.path == [str(tmp_path), str(tmp_path / "lib"), *before]


def test_a_project_in_src_layout_serves_without_being_installed(tmp_path: Path) -> None:
    text = GRAPH.replace("from typing", "from agent_a.words import WORD\nfrom typing").replace('"said"', "WORD")
    files = {
        "pyproject.toml": "",
        "src/agent_a/__init__.py": "",
        "src/agent_a/words.py": "WORD = 'src'\n",
        "src/agent_a/it.py": text,
    }
    graphs = {"it": "agent_a.it:graph", "same": "./src/agent_a/it.py:graph"}
    registry = load(tmp_path, graphs, files, dependencies=["."])
    assert registry.problems == {}
    assert opened(registry, "same") is opened(registry, "it")
    assert module_of(registry).__name__ == "agent_a.it"


def test_the_env_is_there_when_a_file_is_imported_and_overrides_nothing(tmp_path: Path) -> None:
    os.environ["KEPT_HERE"] = "kept"
    files = {".env": "KEPT_HERE=lost\nFROM_FILE='a b'\n", "it.py": "import os\nos.environ['FROM_FILE']\n" + GRAPH}
    registry = load(tmp_path, {"it": "./it.py:graph"}, files, env=".env")
    assert registry.problems == {}
    assert os.environ["FROM_FILE"] == "a b"
    assert os.environ["KEPT_HERE"] == "kept"


def test_the_env_may_be_an_object_or_a_file_that_is_missing(tmp_path: Path) -> None:
    os.environ["KEPT_HERE"] = "kept"
    load(tmp_path, {}, env={"FROM_OBJECT": "there", "KEPT_HERE": "lost"})
    assert os.environ["FROM_OBJECT"] == "there"
    assert os.environ["KEPT_HERE"] == "kept"
    load(tmp_path, {}, env=".env.absent")


# Opening


def test_a_compiled_graph_is_the_same_untouched_object_each_time(tmp_path: Path) -> None:
    registry = load_one(tmp_path, GRAPH)
    mine = module_of(registry).graph
    before = dict(vars(mine))
    assert opened(registry) is mine
    assert opened(registry, config={"configurable": {"x": 1}}) is mine
    assert vars(mine) == before


def test_a_workflow_function_is_a_compiled_graph(tmp_path: Path) -> None:
    text = (
        "from langgraph.func import entrypoint\n@entrypoint()\ndef graph(text: str) -> str:\n    return text.upper()\n"
    )
    assert opened(load_one(tmp_path, text)).invoke("loud") == "LOUD"


def test_a_state_graph_is_compiled_once_and_stays_open_for_its_author(tmp_path: Path) -> None:
    registry = load_one(tmp_path, HEAD + "graph = builder()\n")
    compiled = opened(registry)
    assert answer(compiled) == "said"
    assert opened(registry) is compiled
    assert module_of(registry).graph.compiled is False


def test_a_state_graph_can_be_compiled_for_every_registration_that_names_it(tmp_path: Path) -> None:
    text = HEAD + "graph = builder().set_node_defaults(error_handler=lambda state: {'text': 'handled'})\n"
    registry = load(tmp_path, {"one": "./it.py:graph", "two": "./it.py:graph"}, {"it.py": text})
    assert registry.problems == {}


def test_a_state_graph_that_does_not_compile_is_a_problem(tmp_path: Path) -> None:
    problem = problem_of(tmp_path, HEAD + "graph = StateGraph(State).add_node('a', lambda s: s)\n")
    assert problem.startswith(
        "./it.py:graph: the StateGraph does not compile: ValueError: Graph must have an entrypoint"
    )


FACTORIES = {
    "sync": "def graph():\n    return builder().compile()\n",
    "sync builder": "def graph():\n    return builder()\n",
    "async": "async def graph():\n    await asyncio.sleep(0)\n    return builder().compile()\n",
    "lambda": "graph = lambda: builder().compile()\n",
    "partial": "import functools\nasync def base(x, y):\n    return builder()\ngraph = functools.partial(base, 1, 2)\n",
    "callable object": "class Maker:\n    async def __call__(self):\n        return builder()\ngraph = Maker()\n",
    "function of a coroutine": "async def base():\n    return builder()\ndef graph():\n    return base()\n",
    "async context manager": (
        "@contextlib.asynccontextmanager\nasync def graph():\n"
        "    noted.append('in')\n    yield builder()\n    noted.append('out')\n"
    ),
    "async generator": "async def graph():\n    noted.append('in')\n    yield builder()\n    noted.append('out')\n",
    "sync context manager": (
        "@contextlib.contextmanager\ndef graph():\n"
        "    noted.append('in')\n    yield builder().compile()\n    noted.append('out')\n"
    ),
    "sync generator": "def graph():\n    noted.append('in')\n    yield builder()\n    noted.append('out')\n",
    "class": (
        "class graph:\n    async def __aenter__(self):\n        noted.append('in')\n        return builder()\n"
        "    async def __aexit__(self, *error):\n        noted.append('out')\n"
    ),
    "coroutine of a context manager": (
        "@contextlib.asynccontextmanager\nasync def base():\n"
        "    noted.append('in')\n    yield builder()\n    noted.append('out')\n"
        "async def graph():\n    return base()\n"
    ),
}


@pytest.mark.parametrize("kind", FACTORIES)
def test_a_factory_of_every_kind_makes_a_graph_for_each_opening(tmp_path: Path, kind: str) -> None:
    registry = load_one(tmp_path, NOTED + FACTORIES[kind])
    assert registry.problems == {}

    async def main() -> None:
        async with registry.open("it") as one, registry.open("it") as two:
            noted = sys.modules[one.builder.state_schema.__module__].noted  # type: ignore[attr-defined]
            assert one is not two
            assert noted == (["in", "in"] if "noted" in FACTORIES[kind] else [])
            assert (await one.ainvoke({"text": ""}))["text"] == "said"
        assert noted == (["in", "in", "out", "out"] if "noted" in FACTORIES[kind] else [])

    asyncio.run(main())


@pytest.mark.parametrize(
    "signature",
    [
        "config",
        "whatever",
        "whatever, /",
        "*, config",
        "config=None",
        "model='m', config=None",
        "a=1, c: 'RunnableConfig' = None",
    ],
)
def test_a_factory_that_takes_the_config_gets_a_copy_of_it(tmp_path: Path, signature: str) -> None:
    parameter = signature.removesuffix(", /").split(",")[-1].split("=")[0].split(":")[0].strip(" *")
    text = NOTED + f"def graph({signature}):\n    noted.append({parameter})\n    {parameter}['configurable']['x'] = 2\n"
    registry = load_one(tmp_path, text + "    return builder()\n")
    config = {"configurable": {"x": 1}, "tags": ["t"]}
    noted = module_of(registry).noted
    opened(registry, config=config)
    assert config == {"configurable": {"x": 1}, "tags": ["t"]}
    assert noted[0] == {"configurable": {"x": 2}, "metadata": {}, "tags": []}
    assert noted[1] == {"configurable": {"x": 2}, "metadata": {}, "tags": ["t"]}


@pytest.mark.parametrize("signature", ["", "*args", "**kwargs", "model='m'"])
def test_a_factory_that_does_not_ask_for_the_config_is_called_with_nothing(tmp_path: Path, signature: str) -> None:
    text = NOTED + f"def graph({signature}):\n    noted.append(dict(locals()))\n    return builder()\n"
    registry = load_one(tmp_path, text)
    given = module_of(registry).noted[0]
    assert given in ({}, {"args": ()}, {"kwargs": {}}, {"model": "m"})


def test_a_factory_that_wants_two_arguments_is_a_problem_before_it_is_called(tmp_path: Path) -> None:
    problem = problem_of(tmp_path, HEAD + "def graph(model, tools):\n    return builder()\n")
    assert problem == "./it.py:graph: it takes 2 arguments (model, tools); a factory takes none, or the config."


def test_loading_calls_no_factory(tmp_path: Path) -> None:
    registry = load_one(tmp_path, HEAD + "def graph():\n    raise ValueError('called')\n")
    assert registry.problems == {}


@pytest.mark.parametrize("kind", ["def", "async def"])
@pytest.mark.parametrize(
    ("body", "sentence"),
    [
        ("raise ValueError('no key')", "the factory raised ValueError: no key"),
        ("raise SystemExit(2)", "the factory raised SystemExit: 2"),
        ("return next(iter([]))", "the factory raised RuntimeError: "),
        ("return 3", "the factory made an int, not a compiled graph, a StateGraph or a factory of one."),
        ("return StateGraph(State)", "the StateGraph does not compile: ValueError: "),
        ("raise StopIteration\n    yield", "the factory raised RuntimeError: "),
        ("return\n    yield", "the factory raised RuntimeError: generator didn't yield"),
    ],
)
def test_a_factory_that_fails_makes_its_graph_unavailable_and_is_logged(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, kind: str, body: str, sentence: str
) -> None:
    registry = load_one(tmp_path, HEAD + f"{kind} graph():\n    {body}\n")
    with pytest.raises(GraphUnavailable) as caught:
        opened(registry)
    assert caught.value.fields["reason"].startswith(f"./it.py:graph: {sentence}")
    assert "'it'" in caplog.text


def test_what_a_factory_holds_is_closed_when_the_graph_it_made_is_no_graph(tmp_path: Path) -> None:
    text = NOTED + "async def graph():\n    try:\n        yield 3\n    finally:\n        noted.append('out')\n"
    registry = load(tmp_path, {"it": "./it.py:graph", "plain": "./it.py:builder"}, {"it.py": text})
    with pytest.raises(GraphUnavailable):
        opened(registry)
    assert module_of(registry, "plain").noted == ["out"]


@pytest.mark.parametrize("kind", ["def", "async def"])
def test_a_factory_is_told_an_exception_and_can_not_swallow_it(tmp_path: Path, kind: str) -> None:
    body = "    try:\n        yield builder()\n    except KeyError:\n        noted.append('told')\n"
    registry = load_one(tmp_path, NOTED + f"{kind} graph():\n{body}")

    async def main() -> Any:
        async with registry.open("it") as graph:
            module: Any = sys.modules[graph.builder.state_schema.__module__]  # type: ignore[attr-defined]
            noted.append(module.noted)
            raise KeyError("mine")

    noted: list[list[str]] = []
    with pytest.raises(KeyError, match="mine"):
        asyncio.run(main())
    assert noted == [["told"]]


@pytest.mark.parametrize("kind", ["def", "async def"])
def test_a_factory_that_fails_to_close_is_logged_and_the_work_stands(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, kind: str
) -> None:
    registry = load_one(tmp_path, HEAD + f"{kind} graph():\n    yield builder()\n    raise OSError('stuck')\n")
    assert answer(opened(registry)) == "said"
    assert "OSError: stuck" in caplog.text


def test_a_sync_factory_runs_in_one_thread_that_is_not_the_loops(tmp_path: Path) -> None:
    text = (
        NOTED
        + "def graph():\n    lock = threading.RLock()\n    with lock:\n        noted.append(threading.get_ident())\n"
    )
    registry = load_one(tmp_path, text + "        yield builder()\n    noted.append(threading.get_ident())\n")
    entered, left = module_of(registry).noted
    assert entered == left
    assert entered != threading.get_ident()


def test_a_sync_factory_that_blocks_holds_up_neither_the_loop_nor_others(tmp_path: Path) -> None:
    text = NOTED + "barrier = threading.Barrier(41)\ndef graph():\n    barrier.wait(10)\n    return builder()\n"
    registry = load(tmp_path, {"it": "./it.py:graph", "plain": "./it.py:builder"}, {"it.py": text})
    module = module_of(registry, "plain")

    async def main() -> None:  # 40 is more than the loop's own threads, which the nodes of other runs need
        await asyncio.gather(asyncio.to_thread(module.barrier.wait, 10), *(enter(registry) for _ in range(40)))

    asyncio.run(main())


async def enter(registry: Registry) -> None:
    async with registry.open("it"):
        pass


SLOW = """
entering, gate, left = threading.Event(), threading.Event(), threading.Event()

@contextlib.contextmanager
def graph():
    entering.set()
    gate.wait(10)
    try:
        yield builder()
    finally:
        left.set()
"""


def test_a_sync_context_manager_that_is_entering_when_cancelled_is_left_again(tmp_path: Path) -> None:
    registry = load(tmp_path, {"it": "./it.py:graph", "plain": "./it.py:builder"}, {"it.py": NOTED + SLOW})
    module = module_of(registry, "plain")

    async def main() -> None:
        async with asyncio.timeout(10), asyncio.TaskGroup() as tasks:
            opening = tasks.create_task(enter(registry))
            await asyncio.to_thread(module.entering.wait)
            opening.cancel()
            await asyncio.wait([opening])
            assert opening.cancelled()
            assert not module.left.is_set()
            module.gate.set()

    asyncio.run(main())
    assert module.left.wait(10)


def test_hitl_is_checked_against_what_a_factory_makes(tmp_path: Path) -> None:
    registry = load_one(tmp_path, HEAD, "builder", hitl={"interrupt_after": ["gone"]})
    assert registry.problems == {}
    with pytest.raises(GraphUnavailable, match="hitl names gone; the graph's nodes are say"):
        opened(registry)


def test_a_check_opens_every_graph_and_returns_all_problems(tmp_path: Path) -> None:
    text = GRAPH + "async def failing():\n    raise ValueError('no key')\n"
    graphs = {"failing": "./it.py:failing", "good": "./it.py:graph", "made": "./it.py:builder", "gone": "./no.py:x"}
    registry = load(tmp_path, graphs, {"it.py": text})
    assert list(registry.problems) == ["gone"]
    problems = asyncio.run(registry.check())
    assert problems == {
        "failing": "./it.py:failing: the factory raised ValueError: no key",
        "gone": "./no.py:x: there is no file ./no.py.",
    }


def test_a_factory_that_failed_once_is_asked_again(tmp_path: Path) -> None:
    text = NOTED + "def graph():\n    noted.append(1)\n    if len(noted) == 1:\n        raise OSError('not up yet')\n"
    registry = load_one(tmp_path, text + "    return builder()\n")
    assert "not up yet" in asyncio.run(registry.check())["it"]
    assert asyncio.run(registry.check()) == {}
    assert answer(opened(registry)) == "said"


@pytest.mark.parametrize(
    ("ttl", "seconds"),
    [
        ({"default_ttl": 2}, 120.0),
        ({"strategy": "delete", "default_ttl": 0.5, "sweep_interval_minutes": 1}, 30.0),
        ({"strategy": "keep_latest", "default_ttl": 2}, None),
        ({"strategy": "delete"}, None),
        (None, None),
    ],
)
def test_the_ttl_of_threads_is_langgraphs_own_in_minutes(tmp_path: Path, ttl: Any, seconds: float | None) -> None:
    path = tmp_path / "langgraph.json"
    path.write_text(json.dumps({"graphs": {}, "checkpointer": {"ttl": ttl}}))
    assert read_manifest(path).thread_ttl_seconds == seconds


@pytest.mark.parametrize("minutes", [0, -1, "60", True])
def test_a_ttl_that_is_no_time_is_said(tmp_path: Path, minutes: Any) -> None:
    path = tmp_path / "langgraph.json"
    path.write_text(json.dumps({"graphs": {}, "checkpointer": {"ttl": {"default_ttl": minutes}}}))
    with pytest.raises(ConfigInvalid, match="default_ttl must be a number of minutes above 0"):
        read_manifest(path)
