"""A page: one HTML file that needs nothing else."""

import shlex
import time
from functools import cache
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from hanse import __version__
from hanse.reports import formatting


def render(template: str, **facts: Any) -> bytes:
    """The template's page about these facts; whatever comes from outside is escaped."""
    page = _environment().get_template(f"{template}.html.jinja")
    return page.render(version=__version__, **facts).encode()


@cache
def _environment() -> Environment:
    """The templates beside this file, and the words that they may use."""
    loader = FileSystemLoader(Path(__file__).parent)
    environment = Environment(
        loader=loader, autoescape=True, undefined=StrictUndefined, trim_blocks=True
    )
    environment.filters |= {
        "bytes": formatting.bytes_,
        "change": formatting.change,
        "label": formatting.label,
        "percent": formatting.percent,
        "python": repr,
        "quote": shlex.quote,
        "score": formatting.score,
        "seconds": formatting.seconds,
        "short": formatting.short,
        "utc": lambda at: time.strftime("%Y-%m-%d", time.gmtime(at)),
    }
    return environment
