"""Remarks that many runs make alike, said once."""

import logging
from collections.abc import Iterator
from contextlib import contextmanager

MAKERS = "hanse.data", "hanse.experiment", "hanse.learners", "hanse.simulation"  # of remarks


@contextmanager
def said_once() -> Iterator[None]:
    """Within, the log leaves out remarks that it had in the same words."""
    said: dict[str, logging.LogRecord] = {}

    def is_new(record: logging.LogRecord) -> bool:
        if not record.name.startswith(MAKERS):
            return True
        return said.setdefault(record.getMessage(), record) is record

    handlers = [h for name in ("", "hanse") for h in logging.getLogger(name).handlers]
    for handler in handlers:
        handler.addFilter(is_new)
    try:
        yield
    finally:
        for handler in handlers:
            handler.removeFilter(is_new)
