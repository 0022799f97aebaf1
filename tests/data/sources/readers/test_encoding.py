"""Bytes become text in the encoding that they are in, or are refused with their line."""

import codecs

import pytest

from hanse.data.sources.readers.encoding import decode
from hanse.errors import UserError

TEXT = "naïve — “quoted” 5 €\nline"


@pytest.mark.parametrize(
    "content",
    [
        TEXT.encode(),
        TEXT.encode("utf-8-sig"),
        TEXT.encode("utf-16"),
        TEXT.encode("utf-32"),
        codecs.BOM_UTF16_BE + TEXT.encode("utf-16-be"),
        codecs.BOM_UTF32_BE + TEXT.encode("utf-32-be"),
    ],
)
def test_unicode(content: bytes) -> None:
    assert decode(content, "f") == (TEXT, 0)


def test_windows_1252_is_read_and_told_of() -> None:
    assert decode(TEXT.encode("cp1252"), "f") == (TEXT, 1)
    assert decode(b"a\r\nb\r\ncaf\xe9", "f") == ("a\nb\ncafé", 3)
    assert decode(b"a\rb\rcaf\xe9", "f") == ("a\nb\ncafé", 3)


@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
def test_all_line_ends_become_one(end: str) -> None:
    assert decode(f"a{end}{end}b\u2028{end}".encode(), "f") == ("a\n\nb\u2028\n", 0)


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        # Half a letter where a file was cut, among letters that are whole.
        ("äöü\nß".encode()[:-1], "f:2 is not UTF-8, but the rest of the file is; correct the line"),
        (codecs.BOM_UTF8 + b"a\n\xff", "f:2 is not UTF-8, but the rest"),
        (codecs.BOM_UTF8 + b"\xff", "f:1 is not UTF-8, but the rest"),
        ("a\nb\n".encode("utf-16") + b"x", "f:3 is not UTF-16, but the rest of the file is"),
        (codecs.BOM_UTF16_LE + b"a\0\n\0\x00\xd8", "f:2 is not UTF-16"),
        ("a\nb".encode("utf-16-le"), "f:1 holds a zero byte, .* or UTF-16 without its mark"),
        (b"PK\x03\x04\x14\x00\x06\x81", "f:1 holds a zero byte, .* perhaps a spreadsheet"),
        ("a\nb\0".encode("utf-16"), "f:2 holds a zero byte"),
        (b"a\r\nb\r\n\xe9\0", "f:3 holds a zero byte"),
        (b"a\n\x81\x8d", r"f:2 is neither UTF-8 nor Windows-1252 \(byte 0x81\); save the file"),
        ("日本語、テキスト".encode("shift-jis"), "f:1 is neither UTF-8 nor Windows-1252"),
    ],
)
def test_faults_are_named_with_their_line(content: bytes, sentence: str) -> None:
    with pytest.raises(UserError, match=sentence):
        decode(content, "f")
