"""Regular expressions that come from clients, found by RE2 (https://github.com/google/re2/wiki/Syntax).

RE2 takes time in proportion to the text whatever the pattern is. An engine that backtracks, even with a timeout, stops
the event loop for every token of whoever sends `(a|aa)+$`.
"""

from typing import Any, Final

import re2  # type: ignore[import-untyped]  # it has no annotations

MAX_PATTERN_LENGTH: Final = 200
MAX_PROGRAM_SIZE: Final = 5_000  # of RE2's instructions: what a character may cost


class BadPattern(ValueError):
    """A text that is no regular expression, or too large a one; the message says so to whoever sent it."""


class Pattern:
    """A regular expression, compiled."""

    def __init__(self, text: object) -> None:
        """Raises BadPattern."""
        if not isinstance(text, str) or len(text) > MAX_PATTERN_LENGTH:
            raise BadPattern(f"pattern is a regular expression of at most {MAX_PATTERN_LENGTH} characters.")
        try:
            self._compiled: Any = re2.compile(text, options())
        except (re2.error, UnicodeEncodeError):
            raise BadPattern("pattern is not a regular expression that RE2 takes.") from None
        if self._compiled.programsize > MAX_PROGRAM_SIZE:
            raise BadPattern("pattern repeats too much.")

    def is_in(self, text: str) -> bool:
        return self._compiled.search(text) is not None


def options() -> Any:
    chosen = re2.Options()
    chosen.log_errors = False  # it writes to the standard error
    chosen.never_capture = True
    return chosen
