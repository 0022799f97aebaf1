"""Values of YAML on one line, and texts in its comments."""

from typing import Any

import yaml


def scalar(value: Any) -> str:
    """A value as YAML on one line, quoted where needed."""
    style = None if not isinstance(value, str) or value.isprintable() else '"'
    text = yaml.safe_dump(
        [value], default_flow_style=True, default_style=style, allow_unicode=True, width=2**31
    )
    return text.strip()[1:-1]


def line(value: object) -> str:
    """A value in a comment, on one line."""
    shown = "".join(sign if sign.isprintable() else " " for sign in str(value))
    return " ".join(shown.split())
