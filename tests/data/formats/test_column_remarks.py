"""Every column that nothing uses is named in one sentence, with the setting that would use it."""

import json
from typing import Any

import pytest

from hanse.data.formats.column_remarks import HINT, remarks
from hanse.data.formats.row import rows

TALK = [{"role": "user", "content": "hi"}, {"role": "assistant", "content": "hello"}]
ASKED = {"instruction": "hi", "output": "hello"}


def _remarks(records: list[dict[str, Any]], columns: dict[str, str] | None = None) -> list[str]:
    return remarks(rows(((f"f:{n}", r) for n, r in enumerate(records)), "f", columns or {}))


@pytest.mark.parametrize(
    ("record", "names"),
    [
        ({"text": "a", "id": 7}, "id"),
        ({"text": "a", "label": "b", "title": "t", "url": "u"}, "title, url"),
        ({"review": "a", "stars": 4, "product": "p"}, "product"),
        ({"messages": TALK, "metadata": {"source": "web"}}, "metadata"),
        ({"messages": TALK, "system": "s", "tags": ["a"]}, "tags"),
        ({"conversations": TALK, "id": "x", "images": ["a.png"]}, "id, images"),
        ({**ASKED, "input": "c", "context": "more"}, "context"),
        ({**ASKED, "category": "qa"}, "category"),
        ({"prompt": "a", "completion": "b", "rationale": "c"}, "rationale"),
        ({"prompt": "a", "chosen": "b", "rejected": "c", "score_chosen": 0.5}, "score_chosen"),
        ({"tokens": ["a"], "ner_tags": ["O"], "doc": 3}, "doc"),
        ({"prompt": "a", "completion": "b", "label": "good"}, "label"),
        (
            {"messages": [{**turn, "learn": 1, "id": 2} for turn in TALK]},
            "messages[].learn, messages[].id",
        ),
        (
            {"messages": json.dumps([{**turn, "learn": 1} for turn in TALK])},
            "messages[].learn",
        ),
        (
            {"question": "a", "answers": {"text": ["b", "c"], "answer_start": [1, 2]}},
            "answers.answer_start, answers.text[1:]",
        ),
        ({"conversations": [{**turn, "weight": 1, "note": None} for turn in TALK]}, ""),
        # Nothing is left: parts of the format, what judges an answer, and cells without a value.
        ({"prompt": "a", "completion": "b", "label": True}, ""),
        ({"messages": TALK, "kto_tag": True}, ""),
        ({**ASKED, "input": "", "history": [], "note": None, "more": {}, "blank": " "}, ""),
        ({"text": "a", "file": "part-1", "folder": "north"}, ""),
    ],
)
def test_what_nothing_uses_is_named(record: dict[str, Any], names: str) -> None:
    assert _remarks([record]) == ([f"not used: {names} ({HINT})."] if names else [])


def test_columns_of_all_rows_are_named_but_not_more_than_ten() -> None:
    first, second = ({f"c{n}": n for n in numbers} for numbers in (range(8), range(5, 14)))
    [sentence] = _remarks([{"text": "a", **first}, {"text": "b", **second}])
    assert sentence.startswith("not used: c0, c1, c2, c3, c4, c5, c6, c7, c8, c9 and 4 more (")


def test_columns_that_settings_use_are_not_named() -> None:
    found = rows([("f:1", {"text": "a", "topic": "t", "id": 1})], "f", {})
    assert [s.partition(" (")[0] for s in remarks(found, ["topic"])] == ["not used: id"]
    assert remarks(found, ["topic", "id"]) == []


def test_a_column_that_data_columns_leaves_is_named() -> None:
    record = {"body": "a", "title": "t", "class": "x"}
    [sentence] = _remarks([record], {"text": "title"})
    assert sentence.startswith("not used: body, class (")


MOODS = ("glad", "sad", "calm")


@pytest.mark.parametrize(
    ("more", "hint"),
    [
        (
            lambda n: {"Mood": MOODS[n % 3]},
            "not used: Mood (Mood has 3 values; data.columns: {text: Comment, label: Mood} "
            "classifies by it).",
        ),
        (
            lambda n: {"id": n, "stance": n % 2, "year": 2000 + n % 4},
            "not used: id, stance, year (stance has 2 values, year 4; data.columns: {text: "
            "Comment, label: stance} classifies by the first).",
        ),
        (
            lambda n: {"toxic": n % 2, "insult": n % 3 // 2},
            "not used: toxic, insult (toxic, insult hold 0 or 1, but several labels of one text "
            "cannot be learned (no multi-label classification); data.columns: {text: Comment, "
            "label: toxic} classifies by one of them).",
        ),
        (lambda n: {"id": n}, f"not used: id ({HINT})."),
        (lambda n: {"lang": "en"}, f"not used: lang ({HINT})."),
        (lambda n: {"note": "w" * 41 + "xy"[n % 2]}, f"not used: note ({HINT})."),
        (lambda n: {"Mood": "glad"} if n else {"Mood": None}, f"not used: Mood ({HINT})."),
    ],
)
def test_a_column_of_few_values_is_offered_as_the_label_of_a_text(more: Any, hint: str) -> None:
    assert _remarks([{"Comment": f"text {n}", **more(n)} for n in range(12)]) == [hint]


def test_a_text_that_has_a_label_is_offered_no_other() -> None:
    records = [{"text": f"text {n}", "label": n % 2, "Mood": MOODS[n % 3]} for n in range(12)]
    assert _remarks(records) == [f"not used: Mood ({HINT})."]


@pytest.mark.parametrize(
    ("answer", "classified"),
    [
        (lambda n: f"Ship {n}.", ""),
        (lambda n: ("yes", "no")[n % 2], " {text: text, label: summary}"),
    ],
)
def test_a_guess_is_told_with_the_settings_for_others(answer: Any, classified: str) -> None:
    records = [{"text": f"text {n}", "summary": answer(n), "id": n} for n in range(12)]
    assert _remarks(records) == [
        "text is read as the question and summary as the answer to learn; data.columns: {text: "
        f"text}} learns text alone,{classified}{' classifies by it,' if classified else ''} and "
        "{instruction: …, output: …} takes other columns.",
        f"not used: id ({HINT}).",
    ]
    assert _remarks(records, {"instruction": "text", "output": "summary"}) == [
        f"not used: id ({HINT})."
    ]


@pytest.mark.parametrize(
    ("column", "values", "setting"),
    [
        ("label", (0, 1), "{label: '1'}"),
        ("Label", ("bad", "good"), "{Label: 'good'}"),
        ("desirable", (False, True), "{desirable: 'true'}"),
        ("lang", ("de", "en"), ""),
        ("label", (1, 2, 3), ""),
    ],
)
def test_a_mark_of_answers_is_offered_as_a_filter(
    column: str, values: tuple[Any, ...], setting: str
) -> None:
    records = [{**ASKED, column: values[n % len(values)]} for n in range(12)]
    hint = f"{column} has 2 values; data.filter: {setting} keeps the rows with one of them"
    assert _remarks(records) == [f"not used: {column} ({hint if setting else HINT})."]
