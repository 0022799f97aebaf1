"""Bytes become text in the encoding that they are in, or are refused with their line."""

import codecs

import pytest
from pydantic import ValidationError

from hanse.data.formats.row import row
from hanse.data.sources.readers.encoding import decode
from hanse.errors import UserError
from hanse.experiment.schema import Experiment

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
    assert decode(content, "f") == (TEXT, None)


def test_windows_1252_is_read_and_told_of() -> None:
    assert decode(TEXT.encode("cp1252"), "f") == (TEXT, ("cp1252", 1))
    assert decode(b"a\r\nb\r\ncaf\xe9", "f") == ("a\nb\ncafé", ("cp1252", 3))
    assert decode(b"a\rb\rcaf\xe9", "f") == ("a\nb\ncafé", ("cp1252", 3))


@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
def test_all_line_ends_become_one(end: str) -> None:
    assert decode(f"a{end}{end}b\u2028{end}".encode(), "f") == ("a\n\nb\u2028\n", None)


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        ("a\nb\n".encode("utf-16") + b"x", "f:3 is neither UTF-8 nor utf-16"),
        (codecs.BOM_UTF16_LE + b"a\0\n\0\x00\xd8", "f:2 is neither UTF-8 nor utf-16"),
        ("a\nb".encode("utf-16-le"), "f:1 holds a zero byte, .* or UTF-16 without its mark"),
        (b"PK\x03\x04\x14\x00\x06\x81", "f:1 holds a zero byte, .* perhaps a spreadsheet"),
        ("a\nb\0".encode("utf-16"), "f:2 holds a zero byte"),
        (b"a\r\nb\r\n\xe9\0", "f:3 holds a zero byte"),
        (b"a\n\x81\x8d", r"f:2 is neither UTF-8 nor .* \(byte 0x81\); name its encoding"),
    ],
)
def test_faults_are_named_with_their_line(content: bytes, sentence: str) -> None:
    with pytest.raises(UserError, match=sentence):
        decode(content, "f")


@pytest.mark.parametrize(
    "content",
    [
        "äöü\nß".encode()[:-1],  # half a letter where a file was cut, among whole letters
        codecs.BOM_UTF8 + b"a\n\xff",
        codecs.BOM_UTF8 + b"\xff",
    ],
)
def test_faults_in_utf8_are_left_to_the_rows(content: bytes) -> None:
    text, guess = decode(content, "f")
    assert guess is None
    with pytest.raises(UserError, match="f:2: text holds bytes that are not UTF-8, as the rest"):
        row({"text": text}, "f:2")
    assert decode("äöü ß\xff".encode("latin-1"), "f", "latin-1") == ("äöü ß\xff", None)


@pytest.mark.parametrize("encoding", ["gbk", "GB18030", "utf-8", "UTF8", "utf-16-le", "utf_16"])
def test_an_encoding_that_is_named(encoding: str) -> None:
    text = "今天\n天气"
    assert decode(text.encode(encoding), "f", encoding) == (text, None)
    assert decode(text.encode("utf-8-sig"), "f", encoding) == (text, None), "a mark goes first"


def test_a_named_encoding_that_does_not_fit() -> None:
    with pytest.raises(UserError, match=r"f:2 is neither UTF-8 nor shift_jis \(byte 0x..\); name"):
        decode("a\n天气".encode("gbk") + b"\xd3", "f", "shift_jis")
    for name in ("gkb", "base64", "rot13", "a b"):
        with pytest.raises(UserError, match=rf"there is no encoding '{name}'; write one such as"):
            decode(b"a", "f", name)
    with pytest.raises(ValidationError, match=r"there is no encoding 'gkb'"):
        Experiment.model_validate({"data": {"encoding": "gkb"}})
