"""Decodes a file: UTF-8, UTF-16 or UTF-32 by their marks, and Windows-1252."""

import codecs
from typing import NoReturn

from hanse.errors import UserError

MARKS = {  # byte-order marks; UTF-32's comes first, since it begins with UTF-16's
    codecs.BOM_UTF8: "utf-8",
    codecs.BOM_UTF32_LE: "utf-32",
    codecs.BOM_UTF32_BE: "utf-32",
    codecs.BOM_UTF16_LE: "utf-16",
    codecs.BOM_UTF16_BE: "utf-16",
}
FALLBACK = "Windows-1252"  # has all printed characters of Latin-1


def decode(content: bytes, name: str) -> tuple[str, int]:
    """The text with "\\n" as line ends, and the number of the first line that is not UTF-8, or 0.

    A file without a byte-order mark that is not UTF-8 is read as Windows-1252.
    Raises UserError with file and line for a file that is no text.
    """
    mark = next((mark for mark in MARKS if content.startswith(mark)), b"")
    coding = MARKS.get(mark, "utf-8")
    line = 0
    if coding == "utf-8" and b"\0" in content:
        _refuse_zero(content.decode("latin-1"), name)
    try:
        text = content.decode("utf-8-sig" if mark == codecs.BOM_UTF8 else coding)
    except UnicodeDecodeError as error:
        start = error.start + (len(mark) if mark == codecs.BOM_UTF8 else 0)
        line = _lines(content[:start].decode(coding, "replace")) + 1
        if mark or _mostly_utf8(content):
            raise UserError(
                f"{name}:{line} is not {coding.upper()}, but the rest of the file is; correct the "
                "line, and save the file as UTF-8."
            ) from None
        text = _windows(content, name)
    if "\0" in text:
        _refuse_zero(text, name)
    return text.replace("\r\n", "\n").replace("\r", "\n"), line


def note(name: str, line: int) -> str:
    """The warning about a file that was read as Windows-1252."""
    return (
        f"{name} is not UTF-8 (line {line}); it is read as {FALLBACK}; save it as UTF-8 if letters "
        "look wrong"
    )


def _mostly_utf8(content: bytes) -> bool:
    """Tell if a file with faults in UTF-8 has more valid letters beyond ASCII than faults.

    Then it is damaged UTF-8, and reading it as Windows-1252 would give nonsense. In Windows-1252
    two such letters seldom happen to be a valid letter of UTF-8.
    """
    valid = content.decode(errors="ignore")
    faults = len(content) - len(valid.encode())
    return len(valid) - len(valid.encode("ascii", "ignore")) > faults


def _windows(content: bytes, name: str) -> str:
    """Decode a file as Windows-1252; raises UserError with file and line if it is not."""
    try:
        return content.decode("cp1252")
    except UnicodeDecodeError as error:
        line = _lines(content[: error.start].decode("latin-1")) + 1
        raise UserError(
            f"{name}:{line} is neither UTF-8 nor {FALLBACK} (byte {content[error.start]:#04x}); "
            "save the file as UTF-8."
        ) from None


def _refuse_zero(text: str, name: str) -> NoReturn:
    """Raise UserError for a zero byte: binary files have one early on, UTF-16 in most letters."""
    line = _lines(text[: text.index("\0")]) + 1
    raise UserError(
        f"{name}:{line} holds a zero byte, so it is no text but perhaps a spreadsheet, an archive, "
        "or UTF-16 without its mark; save it as text in UTF-8."
    )


def _lines(text: str) -> int:
    """The number of line ends in a text, of any of the three kinds."""
    return text.count("\n") + text.count("\r") - text.count("\r\n")
