"""Lists that were written into a table's cell as text: by json.dumps, by pandas or by numpy."""

import ast
import io
import tokenize
from collections.abc import Iterator
from typing import Any

from hanse.tensors import json_text

_BEGINNINGS = frozenset("'\"[{-0123456789")  # of the first item of a list that Python prints
_ENDS = (tokenize.STRING, tokenize.NUMBER, tokenize.NAME)


def read(value: Any) -> Any:
    """The list that a text spells, as JSON or as Python prints it; any other value unchanged."""
    if not (isinstance(value, str) and value.startswith("[") and value.endswith("]")):
        return value
    is_list = value[1:].lstrip()[:1] in _BEGINNINGS
    for parse in (json_text.parse, *([_of_python] if is_list else [])):
        try:
            items = parse(value)
        except (ValueError, SyntaxError, MemoryError, RecursionError, tokenize.TokenError):
            continue
        return items if isinstance(items, list) else value
    return value


def _of_python(text: str) -> Any:
    """The value of a Python literal; numpy prints arrays of it without commas."""
    return ast.literal_eval("".join(_with_commas(text)))


def _with_commas(text: str) -> Iterator[str]:
    """The tokens of a literal, with the commas that numpy leaves out."""
    ended = False
    for token in tokenize.generate_tokens(io.StringIO(text).readline):
        if token.type in (tokenize.NL, tokenize.NEWLINE, tokenize.ENDMARKER):
            continue
        if ended and (token.type in _ENDS or token.string in ("[", "{")):
            yield ","
        ended = token.type in _ENDS or token.string in ("]", "}")
        yield f"{token.string} "
