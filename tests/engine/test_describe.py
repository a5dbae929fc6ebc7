import json
from dataclasses import dataclass, field
from typing import Annotated, Any, NewType, NotRequired, TypedDict

import pytest
import typing_extensions
from langgraph.channels import EphemeralValue, LastValue
from langgraph.func import entrypoint
from langgraph.graph import END, START, MessagesState, StateGraph
from langgraph.graph.message import add_messages
from langgraph.managed import RemainingSteps
from langgraph.pregel import NodeBuilder, Pregel
from pydantic import BaseModel

from app.engine.describe import AnyGraph, describe, has_messages_key, input_shape
from app.engine.manifest import Registration

REGISTRATION = Registration(name="essay", source="./essay.py:graph")
Topic = NewType("Topic", str)


class Question(TypedDict):
    question: str
    documents: list[str]


class Nested(TypedDict):
    inner: Question


class Portable(typing_extensions.TypedDict):
    question: str
    hint: NotRequired[str]


class Unresolved(TypedDict):
    question: "str"
    hint: "NotRequired[str]"


class Model(BaseModel):
    topic: Annotated[str, "what it is about"]
    tone: str = "plain"
    words: int


@dataclass
class Record:
    topic: str
    tone: str = "plain"
    tags: list[str] = field(default_factory=list)


class Context(BaseModel):
    model: str = "small"


class Essay(MessagesState):
    topic: str


class Steps(TypedDict):
    topic: Topic
    remaining: RemainingSteps


def compiled(state: Any, **schemas: Any) -> AnyGraph:
    builder = StateGraph(state, **schemas)
    builder.add_node("write", lambda state: {})
    builder.add_edge(START, "write")
    return builder.compile()


def branching() -> AnyGraph:
    builder = StateGraph(Question)
    builder.add_node("plan", lambda state: {})
    builder.add_node("write", lambda state: {})
    builder.add_edge(START, "plan")
    builder.add_conditional_edges("plan", lambda state: "go", {"go": "write", "stop": END})
    builder.add_edge("write", END)
    return builder.compile()


def test_a_description_has_every_key_and_is_json() -> None:
    described = describe(branching(), REGISTRATION)
    keys = ["name", "description", "input_schema", "output_schema", "context_schema", "nodes", "edges", "mermaid"]
    assert list(described) == keys
    assert described["name"] == "essay"
    assert json.loads(json.dumps(described)) == described


def test_nodes_are_named_without_the_start_and_the_end() -> None:
    assert describe(branching(), REGISTRATION)["nodes"] == ["plan", "write"]


def test_edges_say_whether_they_are_conditional_and_what_their_label_is() -> None:
    edges = describe(branching(), REGISTRATION)["edges"]
    expected = [
        {"source": "__start__", "target": "plan", "conditional": False},
        {"source": "plan", "target": "write", "conditional": True, "data": "go"},
        {"source": "plan", "target": "__end__", "conditional": True, "data": "stop"},
        {"source": "write", "target": "__end__", "conditional": False},
    ]
    assert sorted(edges, key=str) == sorted(expected, key=str)


def test_the_drawing_is_mermaid_text() -> None:
    mermaid = describe(branching(), REGISTRATION)["mermaid"]
    assert "graph TD" in mermaid
    assert "plan -.->" in mermaid or "plan -. " in mermaid


@pytest.mark.parametrize("state", [Question, Portable], ids=["typing", "typing_extensions"])
def test_a_typed_dict_has_a_schema_on_every_python(state: type) -> None:
    schema = describe(compiled(state), REGISTRATION)["input_schema"]
    assert schema["properties"]["question"] == {"title": "Question", "type": "string"}
    assert "question" in schema["required"]
    assert "hint" not in schema["required"]


def test_a_typed_dict_from_typing_keeps_its_optional_keys_optional() -> None:
    schema = describe(compiled(Unresolved), REGISTRATION)["input_schema"]
    assert schema["required"] == ["question"]
    assert set(schema["properties"]) == {"question", "hint"}


def test_a_schema_that_can_not_be_made_is_null_and_the_rest_is_there() -> None:
    class Opaque:
        pass

    class Holding(TypedDict):
        held: Opaque

    described = describe(compiled(Holding, context_schema=Context), REGISTRATION)
    assert described["input_schema"] is None
    assert described["output_schema"] is None
    assert described["context_schema"]["properties"]["model"]["default"] == "small"
    assert described["nodes"] == ["write"]
    assert described["mermaid"]


def test_a_graph_without_a_context_has_no_context_schema() -> None:
    assert describe(compiled(Model), REGISTRATION)["context_schema"] is None


def test_input_and_output_have_their_own_schemas() -> None:
    described = describe(compiled(Essay, input_schema=Model, output_schema=Portable), REGISTRATION)
    assert set(described["input_schema"]["properties"]) == {"topic", "tone", "words"}
    assert set(described["output_schema"]["properties"]) == {"question", "hint"}


def test_the_registrations_description_goes_before_the_graphs_own() -> None:
    @entrypoint()
    def workflow(text: str) -> str:
        """Answers at once."""
        return text

    registered = Registration(name="essay", source="./essay.py:graph", description="Ours")
    assert describe(workflow, registered)["description"] == "Ours"
    assert describe(workflow, REGISTRATION)["description"] == "Answers at once."


def test_a_graph_that_says_nothing_of_itself_has_no_description() -> None:
    assert describe(branching(), REGISTRATION)["description"] is None


def test_a_docstring_put_on_a_graph_describes_it() -> None:
    graph = branching()
    graph.__doc__ = "Plans and writes."
    assert describe(graph, REGISTRATION)["description"] == "Plans and writes."


@pytest.mark.parametrize(
    ("state", "shape"),
    [
        (MessagesState, "messages"),
        (Essay, "messages"),
        (Question, "question"),
        (Portable, "question"),
        (Unresolved, "question"),
        (Model, "topic"),
        (Record, "topic"),
        (Steps, "topic"),
        (Nested, None),
        (Annotated[list[Any], add_messages], None),
    ],
)
def test_a_message_goes_to_messages_or_to_the_only_required_string(state: Any, shape: str | None) -> None:
    assert input_shape(compiled(state)) == shape


def test_two_required_strings_take_no_message() -> None:
    class Two(TypedDict):
        first: str
        second: str

    assert input_shape(compiled(Two)) is None


def test_a_total_false_string_is_not_required() -> None:
    class Loose(TypedDict, total=False):
        hint: str

    assert input_shape(compiled(Loose)) is None


def test_the_input_schema_decides_where_it_differs_from_the_state() -> None:
    graph = compiled(Essay, input_schema=Portable)
    assert input_shape(graph) == "question"
    assert has_messages_key(graph)


def test_a_workflow_function_takes_a_message_by_the_type_of_its_argument() -> None:
    @entrypoint()
    def typed(given: Question) -> str:
        return given["question"]

    @entrypoint()
    def annotated_as_text(given: "Question") -> str:
        return given["question"]

    @entrypoint()
    async def plain(text: str) -> str:
        return text

    assert input_shape(typed) == "question"
    assert input_shape(annotated_as_text) == "question"
    assert input_shape(plain) is None


def test_a_bare_pregel_takes_a_message_by_its_input_channels() -> None:
    node = NodeBuilder().subscribe_only("text").do(str.upper).write_to("answer")
    graph: AnyGraph = Pregel(
        nodes={"shout": node},
        channels={"text": EphemeralValue(str), "answer": LastValue(str)},
        input_channels=["text"],
        output_channels=["answer"],
    )
    assert input_shape(graph) == "text"
    assert not has_messages_key(graph)


def test_only_a_state_with_messages_has_the_key() -> None:
    assert has_messages_key(compiled(Essay))
    assert not has_messages_key(compiled(Question))
