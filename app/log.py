"""The log's lines: as text, or as JSON for a machine; each with the run that it is about, where it is about one."""

import json
import logging
import os
import re
import sys
from dataclasses import asdict
from datetime import UTC, datetime
from typing import Any, Final

from app.runs.label import RunLabel, current_run
from app.settings import LogFormat

HIDDEN: Final = "[hidden]"
MIN_SECRET_CHARS: Final = 8
SECRET_NAME: Final = re.compile(r"(KEY|KEYS|TOKEN|SECRET|PASSWORD)$", re.IGNORECASE)
SECRETS: Final = (
    re.compile(r"(\bbearer\s+)[\w.~+/=-]+", re.IGNORECASE),
    re.compile(
        r"((?:api[_-]?key|access[_-]?token|\btoken|\bkey|secret|password|authorization)[\"']?\s*[=:]\s*[\"']?)"
        r"(?!bearer\b)[^\s\"'&,;)}\]]{8,}",
        re.IGNORECASE,
    ),
    re.compile(r"()\beyJ[\w-]{8,}\.[\w-]+\.[\w-]*"),  # a JWT
    re.compile(r"()\bsk-[\w-]{8,}"),  # a key of a model's provider
)
# at debug these log what is said to models, and with which key
TALKATIVE: Final = (
    "openai",
    "anthropic",
    "httpx",
    "httpx2",
    "httpcore",
    "httpcore2",
    "langchain",
    "langsmith",
    "urllib3",
)


def set_up_logging(level: str, form: LogFormat) -> None:
    """Send what is logged, uvicorn's lines too, to standard error."""
    handler = logging.StreamHandler(sys.stderr)
    handler.addFilter(add_label)
    handler.setFormatter(JsonFormatter() if form == "json" else TextFormatter())
    logging.basicConfig(level=level.upper(), handlers=[handler])
    for name in TALKATIVE:
        logging.getLogger(name).setLevel(max(logging.INFO, logging.getLogger().level))
    logging.getLogger("uvicorn.error").addFilter(is_no_frame)


def is_no_frame(record: logging.LogRecord) -> bool:
    """The frames and headers of a WebSocket, which its library logs under uvicorn's name."""
    return record.levelno > logging.DEBUG or "websockets" not in record.pathname


def redacted(text: str) -> str:
    """A text without keys and tokens: what looks like one, and what the environment calls one."""
    for name, value in os.environ.items():
        if len(value) >= MIN_SECRET_CHARS and SECRET_NAME.search(name):
            text = text.replace(value, HIDDEN)
    for pattern in SECRETS:
        text = pattern.sub(rf"\1{HIDDEN}", text)
    return text


def add_label(record: logging.LogRecord) -> bool:
    """Note on a record the run whose task, or whose node's thread, logs it."""
    record.run_label = current_run.get()
    return True


def label_of(record: logging.LogRecord) -> RunLabel | None:
    label: RunLabel | None = getattr(record, "run_label", None)
    return label


class TextFormatter(logging.Formatter):
    """One line, and the traceback below it."""

    def format(self, record: logging.LogRecord) -> str:
        return redacted(super().format(record))

    def __init__(self) -> None:
        super().__init__("%(asctime)s %(levelname)s %(name)s: %(message)s")

    def formatMessage(self, record: logging.LogRecord) -> str:
        line, label = super().formatMessage(record), label_of(record)
        if label is None:
            return line
        return f"{line} [run={label.run_id} thread={label.thread_id} graph={label.graph} owner={label.owner}]"


class JsonFormatter(logging.Formatter):
    """One JSON object a line: ASCII, whatever is in it."""

    def format(self, record: logging.LogRecord) -> str:
        label = label_of(record)
        line: dict[str, Any] = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": redacted(record.getMessage()),
            **(asdict(label) if label else {}),
        }
        if record.exc_info:
            line["exception"] = redacted(self.formatException(record.exc_info))
        if record.stack_info:
            line["stack"] = redacted(self.formatStack(record.stack_info))
        return json.dumps(line)
