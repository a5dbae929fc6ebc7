"""All settings, validated once. Values are passed down from `create_app`; nothing reads the environment later."""

import json
from ipaddress import ip_address
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    PositiveFloat,
    PositiveInt,
    SecretStr,
    field_validator,
    model_validator,
)
from pydantic_core import PydanticCustomError
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict

from app.auth.key import ApiKey, parse_api_keys

MIN_SECRET_CHARS = 32

LogFormat = Literal["text", "json"]
LogLevel = Literal["critical", "error", "warning", "info", "debug"]


class JwtSettings(BaseModel):
    """Whose tokens are taken, with `RUNSTREAM_JWT__` before their names."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    jwks: str = Field("", description="The issuer's public keys: a JSON Web Key Set, a file or a URL.")
    issuer: str = Field("", description="The `iss` that a token must have. Empty: any.")
    audience: str = Field("", description="The `aud` that a token must have. Empty: it must have none.")

    @model_validator(mode="after")
    def _has_keys(self) -> "JwtSettings":
        if (self.issuer or self.audience) and not self.jwks:
            raise PydanticCustomError("jwks", "an issuer or an audience is of no use without RUNSTREAM_JWT__JWKS")
        return self


class Settings(BaseSettings):
    """A field is the variable `RUNSTREAM_<NAME>` of the environment or of `.env`; the command line goes before both."""

    model_config = SettingsConfigDict(
        env_prefix="RUNSTREAM_",
        env_file=".env",
        env_nested_delimiter="__",
        extra="ignore",
        frozen=True,
        hide_input_in_errors=True,  # what is wrong may be a secret
    )

    config: Path = Field(Path("langgraph.json"), description="LangGraph's own file: which graphs are served.")
    host: str = Field("127.0.0.1", description="The address to listen on.")
    port: int = Field(8000, ge=0, le=65535, description="The port to listen on; 0 takes a free one.")
    data_dir: Path = Field(Path("data"), description="Where the embedded store keeps its files.")
    database_url: str = Field(
        "", description="Empty: SQLite in the data directory. `memory:` keeps everything in memory."
    )
    log_level: LogLevel = Field("info", description="How much is logged.")
    log_format: LogFormat = Field("text", description="Lines for people, or JSON for machines.")

    heartbeat_seconds: PositiveFloat = Field(4.0, description="Silence on a stream after which a heartbeat is sent.")
    disconnect_grace_seconds: Annotated[float, Field(ge=0)] = Field(
        30.0, description="How long a run with `on_disconnect: cancel` goes on when nobody looks on."
    )
    shutdown_grace_seconds: Annotated[float, Field(ge=0)] = Field(
        20.0, description="How long running steps may take to end when the process is told to stop."
    )
    stop_seconds: PositiveFloat = Field(
        30.0, description="How long a cancelled run's nodes may take to stop before its thread is released anyway."
    )
    expose_errors: bool = Field(False, description="Send the text of exceptions to clients. For development.")

    max_concurrent_runs: PositiveInt = Field(1000, description="Active runs of all owners; more are 429.")
    max_streams: PositiveInt = Field(10_000, description="Open streams of all owners; more are 429.")
    max_streams_per_owner: PositiveInt | None = Field(
        None, description="Open streams of one owner; more are 429. Empty: as many as of all."
    )
    max_stream_seconds: PositiveFloat | None = Field(
        900.0, description="How long a stream may last, give or take a tenth; then it is broken off. Empty: for ever."
    )
    blocked_loop_seconds: PositiveFloat = Field(
        1.0, description="How long a node may block the event loop until the log says which one does."
    )
    header_timeout_seconds: PositiveFloat = Field(
        10.0, description="How long a connection may take to send a request's headers."
    )
    max_runs_per_owner: PositiveInt | None = Field(
        None, description="Active runs of one owner; more are 429. Empty: no bound of its own."
    )
    max_body_bytes: PositiveInt = Field(1024 * 1024, description="Size of a request's body.")
    body_timeout_seconds: PositiveFloat = Field(30.0, description="How long a request's body may take to arrive.")
    max_frame_bytes: PositiveInt = Field(
        1024 * 1024, description="Size of a frame; a larger one is sent truncated, with the state's address."
    )
    max_timeout_seconds: PositiveFloat | None = Field(
        3600.0, description="The longest a run may take; caps `timeout_seconds`."
    )
    idle_timeout_seconds: PositiveFloat | None = Field(
        None, description="The longest a run may be silent. Empty: for ever."
    )
    max_recursion_limit: PositiveInt = Field(100, description="The most steps a run may take; caps `recursion_limit`.")
    max_run_events: PositiveInt = Field(1_000_000, description="The most events that a run may have.")
    max_run_bytes: PositiveInt = Field(
        256 * 1024 * 1024, description="Size of all events that an attempt at a run may have."
    )
    max_waiting_bytes: PositiveInt = Field(
        32 * 1024 * 1024, description="Size of the events of a run that may wait for the disk."
    )
    max_node_threads: PositiveInt = Field(64, description="Threads for nodes that are sync functions.")
    lease_seconds: PositiveFloat = Field(30.0, description="How long a silent process keeps its runs.")
    stuck_loop_seconds: PositiveFloat = Field(
        60.0, description="How long a node may block the event loop before the process gives its runs up."
    )

    retention_seconds: PositiveFloat | None = Field(
        604800.0, description="How long a run's input and events are kept after its end. Empty: for ever."
    )
    row_retention_seconds: PositiveFloat | None = Field(
        7776000.0, description="How long the row of a run is kept after its end. Empty: as long as its thread."
    )
    thread_ttl_seconds: PositiveFloat | None = Field(
        None, description="How long a thread is kept after its last change. Empty: for ever."
    )
    paused_thread_ttl_seconds: PositiveFloat | None = Field(
        None, description="The same for a thread that waits for a human. Empty: for ever."
    )
    keep_checkpoints: PositiveInt | None = Field(
        None, description="How many of a thread's newest checkpoints are kept. Empty: all."
    )

    cors_origins: Annotated[tuple[str, ...], NoDecode] = Field(
        (), description="Origins whose pages may call this server: with commas, or JSON. None by default."
    )

    api_keys: Annotated[tuple[ApiKey, ...], NoDecode] = Field(
        (), repr=False, description="Who may come in: `owner:key,owner:key`, or `owner:sha256:<hex>`. Kept hashed."
    )
    jwt: JwtSettings = Field(JwtSettings(), description="Tokens of an issuer; the owner is their `sub`.")
    auth: str = Field("", description="A function of yours that says who asks: `module:function`, or a file.")
    allow_anonymous: bool = Field(
        False, description="Serve other machines though nobody is asked who they are: everybody is one owner."
    )

    auth_recheck_seconds: PositiveFloat = Field(
        60.0, description="How often an authentication of your own is asked again while a stream is open."
    )
    stream_token_seconds: PositiveFloat = Field(300.0, description="How long a stream token is good for.")
    stream_token_secret: SecretStr = Field(
        SecretStr(""), description="What stream tokens are signed with. Empty: a key in the data directory."
    )
    rate_limit: str = Field("", description="Requests of an owner, such as `100/minute`. Empty: as many as he likes.")
    allowed_hosts: Annotated[tuple[str, ...], NoDecode] = Field(
        (), description="Names that the server is known by. None: on loopback those of loopback, elsewhere any."
    )
    metrics_token: SecretStr = Field(
        SecretStr(""), description="What `/metrics` asks for. Empty: what the other routes ask for."
    )
    socket_auth_seconds: PositiveFloat = Field(
        10.0, description="How long a WebSocket without credentials may take to send an authenticate message."
    )

    @field_validator("api_keys", mode="before")
    @classmethod
    def _hash_keys(cls, value: Any) -> Any:
        return parse_api_keys(value) if isinstance(value, str) else value

    @field_validator("rate_limit")
    @classmethod
    def _is_rate(cls, value: str) -> str:
        if value:
            from limits import parse  # 5 MB, for who has set a limit alone

            parse(value)
        return value

    @field_validator("stream_token_secret")
    @classmethod
    def _is_long(cls, value: SecretStr) -> SecretStr:
        if 0 < len(value.get_secret_value()) < MIN_SECRET_CHARS:
            raise ValueError(f"it needs at least {MIN_SECRET_CHARS} characters")
        return value

    @field_validator("cors_origins", "allowed_hosts", mode="before")
    @classmethod
    def _split(cls, value: Any) -> Any:
        if not isinstance(value, str):
            return value
        if value.lstrip().startswith("["):
            return json.loads(value)
        return [each.strip() for each in value.split(",") if each.strip()]

    @field_validator(
        "max_timeout_seconds",
        "idle_timeout_seconds",
        "max_streams_per_owner",
        "max_stream_seconds",
        "retention_seconds",
        "row_retention_seconds",
        "max_runs_per_owner",
        "thread_ttl_seconds",
        "paused_thread_ttl_seconds",
        "keep_checkpoints",
        mode="before",
    )
    @classmethod
    def _empty_is_none(cls, value: Any) -> Any:
        return None if value == "" else value

    @property
    def is_on_loopback(self) -> bool:
        """Whether only this machine can reach the server."""
        if self.host.lower() == "localhost":
            return True
        try:
            return ip_address(self.host).is_loopback
        except ValueError:
            return False

    @property
    def is_in_memory(self) -> bool:
        return self.database_url in ("memory:", "memory://", ":memory:")
