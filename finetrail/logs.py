"""The log of a process on standard error: lines for people, or one JSON object a line for machines."""

import json
import logging
import sys
import time
from typing import Any, Final, Literal, TextIO

from typing_extensions import override

from domain.context import current
from finetrail.redaction import FIELDS, Redaction, Redactor, secrets_of
from finetrail.settings import Settings

LogFormat = Literal["text", "json"]

LINE: Final = "%(asctime)s.%(msecs)03dZ %(levelname)s {name} %(name)s: %(message)s"
TIME: Final = "%Y-%m-%dT%H:%M:%S"
CHATTY: Final = ("httpx", "httpcore", "nats", "asyncio")  # a line a request, or a line a poll


class JsonLines(logging.Formatter):
    """One JSON object an entry; a member that has no value is left out."""

    def __init__(self, process: str) -> None:
        super().__init__(datefmt=TIME)
        self.converter = time.gmtime
        self._process = process

    @override
    def format(self, record: logging.LogRecord) -> str:
        context = current()
        entry: dict[str, Any] = {
            "time": f"{self.formatTime(record, TIME)}.{int(record.msecs):03d}Z",
            "level": record.levelname,
            "process": self._process,
            "logger": record.name,
            "message": record.getMessage(),
            "correlation_id": context.correlation_id,
            "message_id": context.message_id,
            "workspace": context.workspace,
            "trace_id": context.traceparent[3:35],
            **getattr(record, FIELDS, {}),
            "exception": _exception(self, record),
            "stack": record.stack_info,
        }
        said = {name: value for name, value in entry.items() if value not in {"", None}}
        return json.dumps(said, ensure_ascii=False, default=str)


def log_to_stderr(name: str, settings: Settings, to: TextIO | None = None) -> None:
    """Send everything that is logged to standard error, without secrets."""
    handler = logging.StreamHandler(to or sys.stderr)
    handler.setFormatter(formatter(name, settings.log_format))
    handler.addFilter(Redaction(Redactor(secrets_of(settings))))
    logging.basicConfig(level=settings.log_level, handlers=[handler], force=True)
    for chatty in CHATTY:
        level = max(logging.WARNING, logging.getLevelName(settings.log_level))
        logging.getLogger(chatty).setLevel(level)


def formatter(name: str, form: LogFormat) -> logging.Formatter:
    if form == "json":
        return JsonLines(name)
    lines = logging.Formatter(LINE.format(name=name), TIME)
    lines.converter = time.gmtime
    return lines


def _exception(lines: logging.Formatter, record: logging.LogRecord) -> str | None:
    if record.exc_text or not record.exc_info:
        return record.exc_text
    return lines.formatException(record.exc_info)
