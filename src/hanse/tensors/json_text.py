"""JSON from a file or a message: the one reader, which refuses what JSON leaves open."""

import json
import math
import re
from pathlib import Path
from typing import Any

_GAP = re.compile(r"[\s,]*")  # between values of one text
LARGEST = 256 * 2**20  # bytes of a file; a larger one is refused before it is read


class JsonError(ValueError):
    """A text that is not JSON, or not the JSON that was asked for; says what is wrong.

    line, column: where the syntax is wrong; 0 if the syntax is right.
    """

    def __init__(self, sentence: str, line: int = 0, column: int = 0) -> None:
        super().__init__(sentence)
        self.line, self.column = line, column


class ExtraDataError(JsonError):
    """A whole value, and something after it."""


def parse(text: str | bytes, finite: bool = False, most: int | None = None) -> Any:
    """The value of a JSON text; raises JsonError.

    An object with one key twice is refused, since readers differ in which value they take.
    finite: whether NaN and infinities are refused, too, which JSON does not have.
    most: of brackets and commas; a text with more is refused before it is parsed, since a value of
        two bytes takes a hundred in memory.
    """
    if most is not None and _marks(text) > most:
        raise JsonError(f"it has more than {most:,} brackets and commas")
    try:
        decoded = text.decode() if isinstance(text, bytes) else text
        return (_STANDARD if finite else _PYTHONS).decode(decoded)
    except JsonError:
        raise
    except json.JSONDecodeError as error:
        kind = ExtraDataError if error.msg == "Extra data" else JsonError
        raise kind(error.msg.lower(), error.lineno, error.colno) from None
    except UnicodeDecodeError:
        raise JsonError("it is not UTF-8 text") from None
    except RecursionError:
        raise JsonError("it is nested too deeply") from None
    except ValueError:  # Python reads no integer of more than 4300 digits
        raise JsonError("it holds a number with too many digits") from None


def parse_all(text: str) -> list[Any]:
    """The values of a text that holds one after another, perhaps with commas; raises JsonError."""
    values, at = [], 0
    while (at := _GAP.match(text, at).end()) < len(text):  # type: ignore[union-attr]
        try:
            value, at = _PYTHONS.raw_decode(text, at)
        except (ValueError, RecursionError) as error:
            raise JsonError(str(error)) from None
        values.append(value)
    return values


def parse_object(
    text: str | bytes, finite: bool = False, most: int | None = None
) -> dict[str, Any]:
    """The object of a JSON text; raises JsonError for any other value, too."""
    value = parse(text, finite, most)
    if not isinstance(value, dict):
        raise JsonError(f"it holds a {type(value).__name__}, not an object")
    return value


def read(file: Path, finite: bool = False, largest: int = LARGEST) -> Any:
    """The value in a JSON file; raises OSError and JsonError."""
    with file.open("rb") as handle:
        data = handle.read(largest + 1)
    if len(data) > largest:
        raise JsonError(f"it has more than {largest:,} bytes")
    return parse(data, finite)


def read_object(file: Path, finite: bool = False, largest: int = LARGEST) -> dict[str, Any]:
    """The object in a JSON file; raises OSError and JsonError."""
    value = read(file, finite, largest)
    if not isinstance(value, dict):
        raise JsonError(f"it holds a {type(value).__name__}, not an object")
    return value


def _marks(text: str | bytes) -> int:
    """The number of opening brackets and commas in a text, those within strings included."""
    if isinstance(text, bytes):
        return sum(map(text.count, (b"[", b"{", b",")))
    return sum(map(text.count, ("[", "{", ",")))


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """The object of its keys and values; raises JsonError if a key comes twice."""
    values = dict(pairs)
    if len(values) < len(pairs):
        keys = [key for key, _ in pairs]
        twice = next(key for key in values if keys.count(key) > 1)
        raise JsonError(f"it has the key {twice!r:.80} twice")
    return values


def _finite(digits: str) -> float:
    """A number; raises JsonError if it is larger than a float can be."""
    value = float(digits)
    if not math.isfinite(value):
        raise JsonError(f"it holds the number {digits:.40}, which is not finite")
    return value


def _refuse_constant(name: str) -> float:
    raise JsonError(f"it holds {name}, which JSON does not have")


_PYTHONS = json.JSONDecoder(object_pairs_hook=_object)  # NaN and infinities, too
_STANDARD = json.JSONDecoder(
    object_pairs_hook=_object, parse_constant=_refuse_constant, parse_float=_finite
)
