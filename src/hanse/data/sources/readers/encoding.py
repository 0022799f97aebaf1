"""From a file's bytes to text, in whichever encoding its writer saved it."""

import codecs
from typing import NoReturn

from hanse.errors import UserError

MARKS = {  # byte-order marks; UTF-32's little one begins with UTF-16's
    codecs.BOM_UTF8: "utf-8",
    codecs.BOM_UTF32_LE: "utf-32",
    codecs.BOM_UTF32_BE: "utf-32",
    codecs.BOM_UTF16_LE: "utf-16",
    codecs.BOM_UTF16_BE: "utf-16",
}
FORMER = "Windows-1252"  # of which Latin-1's printed characters are a part


def decode(content: bytes, name: str) -> tuple[str, int]:
    """The text with line ends as "\n", and the first line that is not UTF-8; 0 if all is.

    Without a byte-order mark, what is not UTF-8 is read as Windows-1252.
    Raises UserError with file and line for what is no text.
    """
    mark = next((mark for mark in MARKS if content.startswith(mark)), b"")
    coding = MARKS.get(mark, "utf-8")
    former = 0
    if coding == "utf-8" and b"\0" in content:
        _refuse_zero(content.decode("latin-1"), name)
    try:
        text = content.decode("utf-8-sig" if mark == codecs.BOM_UTF8 else coding)
    except UnicodeDecodeError as error:
        start = error.start + (len(mark) if mark == codecs.BOM_UTF8 else 0)
        former = _lines(content[:start].decode(coding, "replace")) + 1
        if mark or _mostly_utf8(content):
            raise UserError(
                f"{name}:{former} is not {coding.upper()}, as the rest of the file is; mend the "
                f"line, and save the file as UTF-8."
            ) from None
        text = _windows(content, name)
    if "\0" in text:
        _refuse_zero(text, name)
    return text.replace("\r\n", "\n").replace("\r", "\n"), former


def note(name: str, line: int) -> str:
    """What to tell of a file that was read as Windows-1252."""
    return (
        f"{name} is not UTF-8 (line {line}); it is read as {FORMER}; save it as UTF-8 if letters "
        "look wrong"
    )


def _mostly_utf8(content: bytes) -> bool:
    """Whether a file that is not all UTF-8 has more letters beyond ASCII that are than faults.

    Then it is a damaged one, of which Windows-1252 would make nonsense. The other way round, two
    letters of Windows-1252 seldom make one of UTF-8.
    """
    good = content.decode(errors="ignore")
    faults = len(content) - len(good.encode())
    return len(good) - len(good.encode("ascii", "ignore")) > faults


def _windows(content: bytes, name: str) -> str:
    try:
        return content.decode("cp1252")
    except UnicodeDecodeError as error:
        line = _lines(content[: error.start].decode("latin-1")) + 1
        raise UserError(
            f"{name}:{line} is neither UTF-8 nor {FORMER} (byte {content[error.start]:#04x}); save "
            "the file as UTF-8."
        ) from None


def _refuse_zero(text: str, name: str) -> NoReturn:
    """Most binary files have a zero byte early on, and UTF-16 has one for every letter."""
    line = _lines(text[: text.index("\0")]) + 1
    raise UserError(
        f"{name}:{line} holds a zero byte, so it is no text (but perhaps a spreadsheet or an "
        "archive), or UTF-16 without its mark; save it as text in UTF-8."
    )


def _lines(text: str) -> int:
    """How many lines end in a text, by any of the three line ends."""
    return text.count("\n") + text.count("\r") - text.count("\r\n")
