"""What goes wrong, as a tree.

RunstreamClientError
├── ProblemError        the server refused: an RFC 9457 problem, with its `code`
├── ConnectionLost      the server could not be reached for as long as the retry policy allows
└── PatchError          a patch does not fit its document
"""

from collections.abc import Mapping
from typing import Any, Final

import httpx

GATEWAY_STATUSES: Final = frozenset({429, 502, 503, 504})


class RunstreamClientError(Exception):
    pass


class ProblemError(RunstreamClientError):
    """`code` is for programs, `detail` a sentence for people.

    `problem` is the whole body: `interrupts`, `run_id`, `graphs`, `errors` and so on. It is empty, and the code
    `unknown`, when something between here and the server answered.
    """

    def __init__(
        self,
        status: int,
        code: str,
        detail: str,
        *,
        problem: Mapping[str, Any] | None = None,
        retry_after_seconds: float | None = None,
    ) -> None:
        super().__init__(f"{status} {code}: {detail}")
        self.status = status
        self.code = code
        self.detail = detail
        self.problem: Mapping[str, Any] = problem or {}
        self.retry_after_seconds = retry_after_seconds

    @property
    def is_temporary(self) -> bool:
        """Whether the same request may succeed in a moment. The clients try again by themselves then."""
        if self.code == "unknown":
            return self.status in GATEWAY_STATUSES
        return self.retry_after_seconds is not None and self.code != "graph_unavailable"


class ConnectionLost(RunstreamClientError):
    """`__cause__` is what happened last."""


class PatchError(RunstreamClientError):
    pass


def problem_of(response: httpx.Response) -> ProblemError:
    """The error of a response that was read."""
    seconds = seconds_of(response.headers.get("retry-after"))
    try:
        body = response.json()
    except ValueError:
        body = None
    if not isinstance(body, dict) or not isinstance(body.get("code"), str):
        detail = f"The answer was {response.status_code}."
        return ProblemError(response.status_code, "unknown", detail, retry_after_seconds=seconds)
    return ProblemError(
        response.status_code, body["code"], str(body.get("detail")), problem=body, retry_after_seconds=seconds
    )


def seconds_of(text: str | None) -> float | None:
    try:
        return None if text is None else float(text)
    except ValueError:
        return None
