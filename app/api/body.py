"""The body of a start: its fields, and what it becomes (wire contract, section 1)."""

import hashlib
import uuid
from collections.abc import Mapping
from typing import Annotated, Any, Final, Literal, TypeAlias, TypeVar

import orjson
from fastapi import Request
from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    StrictBool,
    StringConstraints,
    ValidationError,
    model_validator,
)
from pydantic_core import PydanticCustomError

from app.errors import Invalid, NotSupported, UnsupportedMediaType
from app.protocols.tokens import parse_policy
from app.runs.request import (
    Action,
    Continue,
    Durability,
    LongForm,
    Message,
    NewInput,
    Resume,
    RunRequest,
    StreamMode,
)

DEFAULT_MODES: Final[tuple[StreamMode, ...]] = ("updates", "messages", "custom")
INVOKE_MODES: Final[tuple[StreamMode, ...]] = ("updates",)
M = TypeVar("M", bound=BaseModel)

ACTIONS: Final = ("message", "input", "resume", "command")

# orjson writes 254 levels, and what is stored and sent wraps a few more round a body
MAX_DEPTH: Final = 200


# langgraph_auth_user and its like tell a graph who asks: nobody says that of himself
RESERVED: Final = ("checkpoint_", "__", "langgraph_auth_")


def not_dots(value: str) -> str:
    if value in (".", ".."):
        raise PydanticCustomError("thread_id", "A thread id is not . or ..")
    return value


ThreadId: TypeAlias = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9._:-]{1,255}$"), BeforeValidator(not_dots)]
RunId: TypeAlias = Annotated[
    str,
    StringConstraints(pattern=r"^[0-9a-fA-F]{8}-[0-9a-fA-F]{4}-[0-9a-fA-F]{4}-[0-9a-fA-F]{4}-[0-9a-fA-F]{12}$"),
]
NodeNames: TypeAlias = list[str] | Literal["*"]
JsonObject: TypeAlias = dict[str, Any]


class RunConfig(BaseModel):
    """The part of a RunnableConfig that a client may set."""

    model_config = ConfigDict(extra="forbid")

    tags: list[str] = Field(default_factory=list)
    metadata: JsonObject = Field(default_factory=dict)
    recursion_limit: Annotated[int, Field(ge=1, strict=True)] | None = None
    configurable: JsonObject = Field(default_factory=dict)


class CommandBody(BaseModel):
    """LangGraph's Command."""

    model_config = ConfigDict(extra="forbid")

    resume: Any = None
    update: JsonObject | list[Any] | None = None
    goto: str | JsonObject | list[str | JsonObject] | None = None


class RunBody(BaseModel):
    """The body of `POST /runs/stream` and `POST /runs/invoke`. All fields are optional."""

    model_config = ConfigDict(extra="forbid")

    graph: str | None = Field(None, description="The graph's name. Left out: the thread's, the only one, the default.")
    thread_id: ThreadId | None = Field(None, description="The conversation. Left out: a new one.")
    input: Any = Field(None, description="The graph's input. null: go on with a paused or failed thread.")
    message: str | None = Field(None, description="Chat shorthand: input, or the answer to a pending question.")
    resume: Any = Field(None, description="The answer to an interrupt, or a map of answers by interrupt id.")
    command: CommandBody | None = Field(None, description="The long form: resume, update, goto.")
    use_hitl: StrictBool = Field(False, description="Pause after every node, or where the graph's registration says.")
    interrupt_before: NodeNames | None = Field(None, description='Nodes to pause before, or "*".')
    interrupt_after: NodeNames | None = Field(None, description='Nodes to pause after, or "*".')
    stream_mode: StreamMode | list[StreamMode] | None = Field(None, description="What to record and send.")
    subgraphs: StrictBool = Field(False, description="Also send what happens inside subgraphs.")
    tokens: JsonObject | None = Field(None, description="How token frames are sent.")
    checkpoint_id: Annotated[str, Field(min_length=1, max_length=255)] | None = Field(
        None, description="Start from that checkpoint of the thread."
    )
    config: RunConfig | None = Field(None, description="tags, metadata, recursion_limit, configurable.")
    context: JsonObject | None = Field(None, description="The graph's static context.")
    metadata: JsonObject | None = Field(None, description="Kept with the run and given back in its row.")
    durability: Durability = Field("sync", description="As in LangGraph.")
    run_id: RunId | None = Field(None, description="A UUID of the client's: the same request twice makes one run.")
    multitask_strategy: Literal["reject", "enqueue", "interrupt", "rollback"] = Field(
        "reject", description="What to do when the thread is busy."
    )
    on_disconnect: Literal["cancel", "continue"] = Field(
        "cancel", description="What becomes of the run when nobody looks on."
    )
    if_not_exists: Literal["create", "reject"] = Field("create", description="What to do about an unknown thread.")
    on_interrupted: Literal["reject", "discard"] = Field(
        "reject", description="What to do with input for a thread that waits for a human."
    )
    timeout_seconds: Annotated[float, Field(gt=0, allow_inf_nan=False, strict=True)] | None = Field(
        None, description="The longest the run may take."
    )
    include_output: StrictBool = Field(False, description="Put the graph's output into the complete frame.")

    @model_validator(mode="after")
    def _one_action(self) -> "RunBody":
        given = [name for name in ACTIONS if name in self.model_fields_set]
        if "input" in given and self.input is None:
            given.remove("input")
        given = [name for name in given if name == "resume" or getattr(self, name) is not None]
        if len(given) > 1:
            raise PydanticCustomError("actions", "Send one of {names}, not several.", {"names": ", ".join(given)})
        return self

    @model_validator(mode="after")
    def _own_configurable(self) -> "RunBody":
        for key, value in (self.config.configurable if self.config else {}).items():
            if key == "thread_id" and value == self.thread_id:
                continue
            if key == "thread_id" or key.startswith(RESERVED):
                raise PydanticCustomError("configurable", "{key} is not for clients to set.", {"key": key})
        return self

    def action(self) -> Action:
        """What the request is to do. Nothing at all means: go on."""
        if self.message is not None:
            return Message(text=self.message)
        if "resume" in self.model_fields_set:
            return Resume(value=self.resume)
        if self.command is not None:
            return self._long_form(self.command)
        return Continue() if self.input is None else NewInput(value=self.input)

    def _long_form(self, command: CommandBody) -> LongForm:
        has_resume = "resume" in command.model_fields_set
        if not has_resume and command.update is None and command.goto is None:
            raise Invalid("An empty command does nothing.", loc=("body", "command"))
        return LongForm(has_resume=has_resume, resume=command.resume, update=command.update, goto=command.goto)

    def modes(self, default: tuple[StreamMode, ...]) -> tuple[StreamMode, ...]:
        if self.stream_mode is None:
            return default
        asked = [self.stream_mode] if isinstance(self.stream_mode, str) else self.stream_mode
        return tuple(dict.fromkeys(asked))

    def to_request(
        self, *, owner: str, key: str | None, fingerprint: str, default_modes: tuple[StreamMode, ...]
    ) -> RunRequest:
        """Raises Invalid and NotSupported for what the fields alone do not tell."""
        modes = self.modes(default_modes)
        parse_policy(self.tokens)
        return RunRequest(
            owner=owner,
            action=self.action(),
            fingerprint=fingerprint,
            graph=self.graph,
            thread_id=self.thread_id,
            run_id=None if self.run_id is None else self.run_id.lower(),
            idempotency_key=key,
            use_hitl=self.use_hitl,
            interrupt_before=self.interrupt_before or (),
            interrupt_after=self.interrupt_after or (),
            stream_modes=modes,
            subgraphs=self.subgraphs,
            tokens=self.tokens,
            checkpoint_id=self.checkpoint_id,
            config=self.config.model_dump(exclude_none=True) if self.config else {},
            context=self.context,
            metadata=self.metadata or {},
            durability=self.durability,
            multitask_strategy=self.multitask_strategy,
            on_disconnect=self.on_disconnect,
            if_not_exists=self.if_not_exists,
            on_interrupted=self.on_interrupted,
            timeout_seconds=self.timeout_seconds,
            include_output=self.include_output,
        )


class CancelBody(BaseModel):
    """The body of a cancel, which may be left out."""

    model_config = ConfigDict(extra="forbid")

    keep_partial: StrictBool = Field(False, description="Write what was said so far into the thread, and make it idle.")


async def read_json(request: Request) -> Any:
    """A request's JSON. Raises UnsupportedMediaType (which keeps other sites' forms out), Invalid, and body limits."""
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind != "application/json":
        raise UnsupportedMediaType("Send the body as JSON, with Content-Type: application/json.")
    body = await request.body()
    try:
        value = orjson.loads(body) if body else {}
    except orjson.JSONDecodeError:
        raise Invalid("The body is not JSON.") from None
    check_depth(value)
    return value


def check_depth(value: Any) -> None:
    """Raise Invalid for JSON that is nested too deeply to be stored and sent again."""
    level = [value] if isinstance(value, dict | list) else []
    for _ in range(MAX_DEPTH):
        inner = [item for node in level for item in (node.values() if isinstance(node, dict) else node)]
        level = [item for item in inner if isinstance(item, dict | list)]
        if not level:
            return
    raise Invalid(f"The body is nested deeper than {MAX_DEPTH} levels.")


async def read_object(request: Request) -> dict[str, Any]:
    body = await read_json(request)
    if not isinstance(body, dict):
        raise Invalid("The body is not a JSON object.")
    return body


def parse_body(body: Mapping[str, Any]) -> RunBody:
    """Raises Invalid with the place of each mistake."""
    if "assistant_id" in body:
        raise NotSupported(
            "assistant_id belongs to LangGraph's own API, which is not built yet.", loc=("body", "assistant_id")
        )
    return parse(RunBody, body)


def parse(model: type[M], body: Any, place: str = "body") -> M:
    try:
        return model.model_validate(body)
    except ValidationError as error:
        found = [{"loc": [place, *e["loc"]], "msg": e["msg"]} for e in error.errors(include_url=False)]
        raise Invalid("The request is not valid.", errors=found) from None


def fingerprint_of(body: Mapping[str, Any]) -> str:
    """The same for bodies that are equal as JSON: whatever the order of keys, 1 and 1.0 alike."""
    return hashlib.sha256(orjson.dumps(canonical(body), option=orjson.OPT_SORT_KEYS)).hexdigest()


def canonical(value: Any) -> Any:
    match value:
        case dict():
            return {key: canonical(item) for key, item in value.items()}
        case list():
            return [canonical(item) for item in value]
        case float() if value.is_integer() and abs(value) < 2**53:
            return int(value)
        case _:
            return value


def is_run_id(text: str) -> bool:
    try:
        uuid.UUID(text)
    except ValueError:
        return False
    return True
