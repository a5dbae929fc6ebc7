"""Everything that knows LangGraph and LangChain; nothing else of the application does.

Checkpoints are read back with strict msgpack, so a crafted database can't run code (docs/decisions/003-checkpoints.md).
LangGraph looks at this variable once, when it is first imported, and at each compile, for the types of the state;
so it is set before anything here imports LangGraph. `require_strict_msgpack` refuses to go on where that was too late.
"""

import os

os.environ.setdefault("LANGGRAPH_STRICT_MSGPACK", "true")


def require_strict_msgpack() -> None:
    """Raise ConfigInvalid when checkpoints would be read back without the allow-list of types."""
    from langgraph.checkpoint.serde._msgpack import STRICT_MSGPACK_ENABLED

    from app.errors import ConfigInvalid

    if not STRICT_MSGPACK_ENABLED:
        raise ConfigInvalid(
            "LANGGRAPH_STRICT_MSGPACK must be true: without it a crafted checkpoint can run code when it is read."
        )
