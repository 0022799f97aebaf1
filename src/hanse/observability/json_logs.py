"""Log lines for machines: one JSON object a line, with run, round, silo and progress."""

import json
import logging
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from enum import StrEnum
from typing import Any

from hanse.observability.steps import as_json

FIELDS = ("run", "round", "silo")


class LogFormat(StrEnum):
    """How log lines are written."""

    TEXT = "text"
    JSON = "json"


class Lines(logging.Formatter):
    """Writes a record as one line of JSON.

    about: run, round and silo as they are just now; a record's own win.
    """

    def __init__(self, about: Callable[[], Mapping[str, Any]]) -> None:
        super().__init__()
        self._about = about

    def format(self, record: logging.LogRecord) -> str:
        """The line."""
        fields = {name: getattr(record, name) for name in FIELDS if hasattr(record, name)}
        step = getattr(record, "step", None)
        line = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            **self._about(),
            **fields,
            "message": record.getMessage(),
            **({"progress": as_json(step)} if step else {}),
        }
        if record.exc_info:
            line["traceback"] = self.formatException(record.exc_info)
        return json.dumps(line, ensure_ascii=False)


def structured(form: LogFormat, about: Callable[[], Mapping[str, Any]]) -> None:
    """Let all that is logged from now on be written so."""
    if form is LogFormat.JSON:
        for handler in logging.getLogger().handlers:
            handler.setFormatter(Lines(about))
