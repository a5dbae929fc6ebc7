"""All settings, validated once. Values are passed down from `create_app`; nothing reads the environment later."""

import json
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, PositiveFloat, PositiveInt, field_validator
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict

LogLevel = Literal["critical", "error", "warning", "info", "debug"]


class Settings(BaseSettings):
    """A field is the variable `RUNSTREAM_<NAME>` of the environment or of `.env`; the command line goes before both."""

    model_config = SettingsConfigDict(
        env_prefix="RUNSTREAM_", env_file=".env", env_nested_delimiter="__", extra="ignore", frozen=True
    )

    config: Path = Field(Path("langgraph.json"), description="LangGraph's own file: which graphs are served.")
    host: str = Field("127.0.0.1", description="The address to listen on.")
    port: int = Field(8000, ge=0, le=65535, description="The port to listen on; 0 takes a free one.")
    data_dir: Path = Field(Path("data"), description="Where the embedded store keeps its files.")
    database_url: str = Field(
        "", description="Empty: SQLite in the data directory. `memory:` keeps everything in memory."
    )
    log_level: LogLevel = Field("info", description="How much is logged.")

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
    max_node_threads: PositiveInt = Field(64, description="Threads for nodes that are sync functions.")
    lease_seconds: PositiveFloat = Field(30.0, description="How long a silent process keeps its runs.")

    cors_origins: Annotated[tuple[str, ...], NoDecode] = Field(
        (), description="Origins whose pages may call this server: with commas, or JSON. None by default."
    )

    @field_validator("cors_origins", mode="before")
    @classmethod
    def _split_origins(cls, value: Any) -> Any:
        if not isinstance(value, str):
            return value
        if value.lstrip().startswith("["):
            return json.loads(value)
        return [origin.strip() for origin in value.split(",") if origin.strip()]

    @field_validator("max_timeout_seconds", "idle_timeout_seconds", mode="before")
    @classmethod
    def _empty_is_none(cls, value: Any) -> Any:
        return None if value == "" else value

    @property
    def is_in_memory(self) -> bool:
        return self.database_url in ("memory:", "memory://", ":memory:")
