"""Texts that come from elsewhere, made safe for a terminal, a log line and a report."""

import re

MOST = 2000  # characters of a text that came over the network
# Control characters (escape codes begin with one), line separators, overrides of the direction of
# writing, and lone surrogates, which no encoding can write.
_UNSAFE = re.compile("[\0-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069\ud800-\udfff]")
_SPACES = "\t\n\r\v\f"


def cleaned(text: str, most: int | None = MOST, lines: bool = False) -> str:
    r"""The text without what could deceive its reader; to clean it again changes nothing.

    Control characters, overrides and surrogates are written as escapes (\x1b); ends of lines and
    tabs become spaces.

    most: characters that are left; what is longer is cut, and says so. None: all.
    lines: whether ends of lines and tabs stay.
    """
    whole = len(text)
    if lines:
        text = text.replace("\r\n", "\n")
    text = _UNSAFE.sub(lambda found: _written(found[0], lines), text[:most])
    if most is None or max(whole, len(text)) <= most:
        return text
    mark = f"… (cut; {whole:,} characters)"
    return text[: most - len(mark)] + mark


def _written(sign: str, lines: bool) -> str:
    if sign in _SPACES:
        return sign if lines and sign in "\n\t" else " "
    return f"\\x{ord(sign):02x}" if ord(sign) < 256 else f"\\u{ord(sign):04x}"
