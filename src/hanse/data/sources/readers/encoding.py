"""Decodes a file: UTF-8, UTF-16 or UTF-32 by their marks, or another encoding, named or guessed."""

import codecs
from typing import NamedTuple, NoReturn

from hanse.data.sources.readers.encoding_guess import WESTERN, guess
from hanse.errors import UserError

MARKS = {  # byte-order marks; UTF-32's comes first, since it begins with UTF-16's
    codecs.BOM_UTF8: "utf-8",
    codecs.BOM_UTF32_LE: "utf-32",
    codecs.BOM_UTF32_BE: "utf-32",
    codecs.BOM_UTF16_LE: "utf-16",
    codecs.BOM_UTF16_BE: "utf-16",
}


class Guess(NamedTuple):
    """The guessed encoding of a file, as Python's codec, and its first line that is not UTF-8."""

    encoding: str
    line: int


def decode(content: bytes, name: str, encoding: str = "") -> tuple[str, Guess | None]:
    """The text with "\\n" as line ends, and the guess if the encoding is one.

    encoding: of a file without a byte-order mark; empty: UTF-8, or a guess if it is not.
    Faulty bytes in a file that is UTF-8 otherwise become surrogates, which no row may hold.
    Raises UserError with file and line for a file that is no text.
    """
    mark = next((mark for mark in MARKS if content.startswith(mark)), b"")
    check(encoding)
    codec = MARKS.get(mark) or (codecs.lookup(encoding).name if encoding else "")
    assumed = None
    if codec not in ("", "utf-8"):
        text = _strict(content, codec, name)
    else:
        if b"\0" in content:
            _refuse_zero(content.decode("latin-1"), name)
        text, assumed = _utf8(content.removeprefix(mark), name, certain=bool(codec))
    if "\0" in text:
        _refuse_zero(text, name)
    return text.removeprefix("\ufeff").replace("\r\n", "\n").replace("\r", "\n"), assumed


def check(encoding: str) -> None:
    """Raise UserError for a name that is no encoding of texts; the empty name is none."""
    try:
        "".encode(encoding or "utf-8")
    except LookupError:
        raise UserError(
            f"there is no encoding {encoding!r:.80}; write one such as utf-8, gbk, big5, "
            "shift_jis, euc_kr, cp1251 or cp1252 in data.encoding, or leave it out."
        ) from None


def note(name: str, assumed: Guess) -> str:
    """The remark on a file whose encoding was guessed."""
    return (
        f"{name} is not UTF-8 (line {assumed.line}); by its letters it is read as "
        f"{_shown(assumed.encoding)}; if they look wrong, name another one in data.encoding"
    )


def _utf8(content: bytes, name: str, certain: bool) -> tuple[str, Guess | None]:
    """The text of a file in UTF-8, or in the encoding that its letters suggest, and the guess.

    certain: it is UTF-8, and other bytes are faults.
    """
    try:
        return content.decode(), None
    except UnicodeDecodeError as error:
        if certain or _mostly_utf8(content):
            return content.decode(errors="surrogateescape"), None
        assumed = Guess(guess(content), _lines(content[: error.start].decode()) + 1)
        return _strict(content, assumed.encoding, name), assumed


def _strict(content: bytes, encoding: str, name: str) -> str:
    """The text in one encoding; raises UserError with file and line for other bytes."""
    try:
        return content.decode(encoding)
    except UnicodeDecodeError as error:
        line = _lines(content[: error.start].decode(encoding, "replace")) + 1
        raise UserError(
            f"{name}:{line} is neither UTF-8 nor {_shown(encoding)} (byte "
            f"{content[error.start]:#04x}); name its encoding in data.encoding, or save it as "
            "UTF-8."
        ) from None


def _shown(encoding: str) -> str:
    return "Windows-1252" if encoding == WESTERN else encoding


def _mostly_utf8(content: bytes) -> bool:
    """Tell if a file with faults in UTF-8 has more valid letters beyond ASCII than faults.

    Then it is damaged UTF-8, and reading it as Windows-1252 would give nonsense. In Windows-1252
    two such letters seldom happen to be a valid letter of UTF-8.
    """
    valid = content.decode(errors="ignore")
    faults = len(content) - len(valid.encode())
    return len(valid) - len(valid.encode("ascii", "ignore")) > faults


def _refuse_zero(text: str, name: str) -> NoReturn:
    """Raise UserError for a zero byte: binary files have one early on, UTF-16 in most letters."""
    line = _lines(text[: text.index("\0")]) + 1
    raise UserError(
        f"{name}:{line} holds a zero byte, so it is no text but perhaps a spreadsheet, an archive, "
        "or UTF-16 without its mark; save it as text in UTF-8, or name its encoding in "
        "data.encoding."
    )


def _lines(text: str) -> int:
    """The number of line ends in a text, of any of the three kinds."""
    return text.count("\n") + text.count("\r") - text.count("\r\n")
