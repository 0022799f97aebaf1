"""The one reader of JSON: what it takes, and what it refuses with which reason."""

import math
from pathlib import Path

import pytest

from hanse.tensors import json_text
from hanse.tensors.json_text import ExtraDataError, JsonError


def test_values_are_those_of_json() -> None:
    assert json_text.parse('{"a": [1, 2.5, null, true, "ü"]}') == {"a": [1, 2.5, None, True, "ü"]}
    assert json_text.parse(b'{"a": 1}') == {"a": 1}
    assert math.isnan(json_text.parse("NaN")) and json_text.parse("1e999") == math.inf


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ('{"a": 1, "a": 2}', "it has the key 'a' twice"),
        ('{"b": {"a": 1, "c": 2, "c": 3}}', "it has the key 'c' twice"),
        ("[" * 99_999, "nested too deeply"),
        ("9" * 5000, "too many digits"),
        (b"\xff", "not UTF-8"),
        ("", "expecting value"),
    ],
)
def test_what_is_refused(text: str | bytes, reason: str) -> None:
    with pytest.raises(JsonError, match=reason):
        json_text.parse(text)


@pytest.mark.parametrize("text", ["NaN", "[-Infinity]", '{"a": 1e999}', "-1e999"])
def test_numbers_that_are_not_finite_are_refused_where_asked(text: str) -> None:
    json_text.parse(text)
    with pytest.raises(JsonError, match=r"which JSON does not have|not finite"):
        json_text.parse(text, finite=True)


def test_the_place_of_a_mistake_is_told() -> None:
    with pytest.raises(JsonError) as caught:
        json_text.parse('{"a": 1,\n "b" 2}')
    assert (caught.value.line, caught.value.column) == (2, 6)
    with pytest.raises(ExtraDataError) as extra:
        json_text.parse('{"a": 1}\n{"a": 2}')
    assert extra.value.line == 2


def test_another_value_is_no_object(tmp_path: Path) -> None:
    with pytest.raises(JsonError, match="it holds a list, not an object"):
        json_text.parse_object("[]")
    (tmp_path / "a.json").write_text("3")
    with pytest.raises(JsonError, match="it holds a int, not an object"):
        json_text.read_object(tmp_path / "a.json")


def test_a_file_that_is_too_large_is_refused(tmp_path: Path) -> None:
    (tmp_path / "a.json").write_text('{"a": 1}')
    assert json_text.read_object(tmp_path / "a.json", largest=8) == {"a": 1}
    with pytest.raises(JsonError, match="it has more than 7 bytes"):
        json_text.read(tmp_path / "a.json", largest=7)
    with pytest.raises(FileNotFoundError):
        json_text.read(tmp_path / "b.json")


# Each reads lines that another process of the same program has written.
PIPES = {"chat_templates.py", "template_process.py", "fork_server.py"}


def test_json_is_parsed_in_one_place() -> None:
    package = Path(json_text.__file__).parent.parent
    parsing = {file.name for file in package.rglob("*.py") if "json.load" in file.read_text()}
    assert parsing == PIPES
