"""Log lines as text or JSON, with the request that they concern, and the log file of a process."""

import json
import logging
import os
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime
from enum import StrEnum
from logging.handlers import RotatingFileHandler
from pathlib import Path
from typing import IO, Any

from hanse.observability import requests
from hanse.observability.steps import as_json

log = logging.getLogger(__name__)

FIELDS = ("run", "round", "silo", "event")
FILE = "log.jsonl"  # in a run folder, or in a silo's state
LARGEST = 16 * 2**20  # bytes of a log file, after which it is renamed to log.jsonl.1

About = Callable[[], Mapping[str, Any]]


class LogFormat(StrEnum):
    """The form of log lines on the console."""

    TEXT = "text"
    JSON = "json"


class JsonLines(logging.Formatter):
    """Formats a record as one line of JSON.

    about: the run, round and silo at this moment; a record's own values replace them.
    """

    def __init__(self, about: About) -> None:
        super().__init__()
        self._about = about

    def format(self, record: logging.LogRecord) -> str:
        """The line."""
        fields = {name: getattr(record, name) for name in FIELDS if hasattr(record, name)}
        if request := _request_of(record):
            fields["request_id"] = request
        step = getattr(record, "step", None)
        line = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="microseconds"),
            "level": record.levelname.lower(),
            **self._about(),
            **fields,
            "message": record.getMessage(),
            **({"progress": as_json(step)} if step else {}),
        }
        if record.exc_info:
            line["traceback"] = self.formatException(record.exc_info)
        return json.dumps(line, ensure_ascii=False)


class TextLines(logging.Formatter):
    """Formats a record as another formatter does, followed by the request in brackets."""

    def __init__(self, inner: logging.Formatter | None) -> None:
        super().__init__()
        self._inner = inner or logging.Formatter()

    def format(self, record: logging.LogRecord) -> str:
        """The line, and a traceback below it if there is one."""
        text = self._inner.format(record)
        if not (request := _request_of(record)):
            return text
        first, end, more = text.partition("\n")
        return f"{first} [{request}]{end}{more}"


def _request_of(record: logging.LogRecord) -> str:
    return str(getattr(record, "request_id", "")) or requests.current_request()


@contextmanager
def console_lines(form: LogFormat, about: About) -> Iterator[None]:
    """Write log lines in this form, with the request that they concern, while the block lasts."""
    handlers = {handler: handler.formatter for handler in logging.getLogger().handlers}
    for handler, former in handlers.items():
        handler.setFormatter(JsonLines(about) if form is LogFormat.JSON else TextLines(former))
    try:
        yield
    finally:
        for handler, former in handlers.items():
            handler.setFormatter(former)


@contextmanager
def log_file(folder: Path, about: About) -> Iterator[None]:
    """Write all log lines, and the events of requests, into a folder's log while the block lasts.

    Lines are JSON whatever the console shows, and only the owner may read them.
    """
    handler = _LogFile(folder / FILE)
    handler.setFormatter(JsonLines(about))
    handler.setLevel(logging.INFO)
    loggers = logging.getLogger(), requests.events
    for logger in loggers:
        logger.addHandler(handler)
    former = requests.events.level
    requests.events.setLevel(logging.INFO)
    try:
        yield
    except BaseException as error:
        reason = str(error) or type(error).__name__
        requests.events.error("ended: %s", reason, extra={"event": "ended"})
        raise
    finally:
        requests.events.setLevel(former)
        for logger in loggers:
            logger.removeHandler(handler)
        handler.close()


class _LogFile(RotatingFileHandler):
    """A file that is renamed when it is large; the former one is kept beside it."""

    def __init__(self, path: Path) -> None:
        self._failed = False
        super().__init__(path, maxBytes=LARGEST, backupCount=1, encoding="utf-8", delay=True)

    def _open(self) -> IO[Any]:  # type: ignore[override]
        opener, escaped = _private, "backslashreplace"
        return open(self.baseFilename, "a", encoding="utf-8", errors=escaped, opener=opener)

    def handleError(self, record: logging.LogRecord) -> None:  # noqa: N802 (logging's name)
        """Say once that the file cannot be written; the work goes on without it."""
        if not self._failed:
            self._failed = True
            error = sys.exc_info()[1]
            log.warning("%s cannot be written, so it lacks lines: %s", self.baseFilename, error)


def _private(path: str, flags: int) -> int:
    """Open a file that only its owner may read, and not through a symbolic link."""
    return os.open(path, flags | os.O_NOFOLLOW, 0o600)
