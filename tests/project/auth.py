"""An authentication of a project's own: a token is `team-<name>`, until the file beside the trace bans it."""

import os
import pathlib
from typing import Any

from langgraph_sdk import Auth

auth = Auth()


def who(headers: Any) -> str | None:
    token = headers.get("authorization", "").removeprefix("Bearer ")
    banned = pathlib.Path(os.environ["RUNSTREAM_TEST_TRACE"] + ".banned")
    if not token.startswith("team-") or (banned.exists() and token in banned.read_text()):
        return None
    return str(token.removeprefix("team-"))


@auth.authenticate
async def authenticate(authorization: str | None) -> dict[str, Any]:
    name = who({"authorization": authorization or ""})
    if name is None:
        raise Auth.exceptions.HTTPException(status_code=401, detail="nobody")
    return {"identity": name}
