"""The format of a record is found by its columns, and every fault is named with its place."""

from typing import Any

import pytest

from hanse.data.formats.column_names import ALIASES
from hanse.data.formats.columns import FORMATS
from hanse.data.formats.invalid_rows import InvalidRows
from hanse.data.formats.row import Row, reading, row, rows
from hanse.data.formats.turns import answers
from hanse.errors import UserError

USER = {"role": "user", "content": "hi"}
ANSWER = {"role": "assistant", "content": "hello"}
WORSE = {"role": "assistant", "content": "what"}


def _said(found: Row) -> list[tuple[str, str]]:
    return [(message["role"], message["content"]) for message in found.messages]


def test_each_format_is_found_by_its_own_columns() -> None:
    found = [
        row({"messages": [USER, ANSWER]}, "f:1"),
        row({"prompt": "a", "completion": "b"}, "f:2"),
        row({"text": "a", "label": 1}, "f:3"),
        row({"text": "a"}, "f:4"),
        row({"prompt": "a", "chosen": "b", "rejected": "c"}, "f:5"),
    ]
    kinds = ["messages", "completion", "labelled", "text", "preference"]
    assert [r.kind for r in found] == kinds
    assert [dict(m) for m in found[0].messages] == [USER, ANSWER]
    assert (found[1].prompt, found[1].completion) == ("a", "b")
    assert found[3].place == "f:4"
    assert (found[4].prompt, found[4].chosen, found[4].rejected) == ("a", "b", "c")


ASKED = {"prompt": "Where?", "completion": " Here."}
TALK = {"messages": [USER, ANSWER]}
ALPACA = {"instruction": "Where?", "output": "Here."}


@pytest.mark.parametrize("record", [ASKED, TALK, ALPACA, {"prompt": [USER], "completion": "a"}])
@pytest.mark.parametrize(
    ("column", "good", "bad"),
    [
        ("label", True, False),  # TRL, ms-swift
        ("label", "True", "False"),  # a table of the same
        ("Label", "true", "false"),
        ("kto_tag", True, False),  # LLaMA-Factory
    ],
)
def test_answers_marked_as_bad_are_left_out_and_said(
    record: dict[str, Any], column: str, good: Any, bad: Any
) -> None:
    records = [(f"f:{at}", {**record, column: bad if at % 3 else good}) for at in range(9)]
    said: list[str] = []
    found = rows(records, "f", {}, said.append)
    assert [row.place for row in found] == ["f:0", "f:3", "f:6"]
    assert {row.label for row in found} == {None}, "what judges an answer is no class"
    assert len(said) == 1 and said[0].startswith("6 of 9 rows of f are left out: ")
    assert f"{column} false marks a bad answer" in said[0]
    with pytest.raises(UserError, match=r"f has nothing to learn: .* marks a bad answer"):
        rows([(place, {**found, column: bad}) for place, found in records], "f", {}, said.append)


@pytest.mark.parametrize(
    ("record", "label"),
    [
        ({**ASKED, "label": 0}, "0"),
        ({**TALK, "label": "no"}, "no"),
        ({"text": "a", "label": False}, "false"),
    ],
)
def test_labels_that_judge_no_answer_stay_labels(record: dict[str, Any], label: str) -> None:
    [found] = rows([("f:1", record)], "f", {})
    assert (found.label, found.left_out) == (label, "")


MARKS = [
    *[{"weight": 0}, {"weight": 0.0}, {"train": False}, {"training": False}, {"loss": False}],
    *[{"loss_mask": 0}, {"loss_scale": 0.0}, {"loss_weight": 0}, {"train": "false"}],
    {"weight": 1, "train": False},
]


@pytest.mark.parametrize("mark", MARKS)
@pytest.mark.parametrize("keys", [("role", "content"), ("from", "value")])
def test_a_marked_answer_is_read_and_not_learned(
    mark: dict[str, Any], keys: tuple[str, str]
) -> None:
    who, what = keys
    talk = [
        {who: "user", what: "a", **mark},
        {who: "assistant", what: "b", **mark},
        {who: "user", what: "c"},
        {who: "assistant", what: "d", **dict.fromkeys(mark, 1)},
        {who: "user", what: "e"},
        {who: "assistant", what: "f", "weight": None},
    ]
    [found] = rows([("f:1", {"conversations": talk})], "f", {})
    assert answers(found.messages) == [3, 5]
    assert [content for _, content in _said(found)] == list("abcdef")
    said: list[str] = []
    talks = [talk, talk[:2], talk[:2] + talk[2:3], talk]
    records = [(f"f:{at}", {"conversations": some}) for at, some in enumerate(talks)]
    assert [row.place for row in rows(records, "f", {}, said.append)] == ["f:0", "f:3"]
    assert said == [
        "2 of 4 rows of f are left out: every answer in them is marked as not to be learned."
    ]


@pytest.mark.parametrize("column", ["messages", "conversations"])
@pytest.mark.parametrize("mask", [[0, 0, 1, 1], [1, False, 1, True], ["1", "0", "0", "1"]])
def test_a_list_of_marks_beside_the_turns(mask: list[Any], column: str) -> None:
    record = {column: [USER, WORSE, USER, ANSWER], "system": "S", "loss_mask": mask}
    found = row(record, "f:1")
    assert answers(found.messages) == [4]
    assert found.reading is not None and found.reading.unread == ()
    assert answers(row({**record, "loss_mask": None}, "f:1").messages) == [2, 4]


@pytest.mark.parametrize(
    ("mark", "said"),
    [
        ({"weight": 0.5}, "f:7: message 2 has weight 0.5, but a turn is learned as a whole or not"),
        ({"loss_mask": [0, 1]}, r"f:7: message 2 has loss_mask \[0, 1\], but"),
        ({"train": "no"}, "f:7: message 2 has train 'no', but"),
        ({"train_detail": [{"begin_offset": 0}]}, "f:7: message 2 has train_detail, but a turn is"),
    ],
)
def test_marks_that_are_no_yes_or_no(mark: dict[str, Any], said: str) -> None:
    with pytest.raises(UserError, match=said):
        row({"messages": [USER, {**ANSWER, **mark}]}, "f:7")


@pytest.mark.parametrize(
    "record",
    [
        {"words": ["the", "film"], "tags": ["AT", "NN"]},
        {"tokens": ["the", "film"], "ner_tags": ["AT", "NN"], "id": 7},
        {"tokens": "the  film", "pos_tags": "AT NN"},
    ],
)
def test_words_have_tags_and_are_a_text(record: dict[str, Any]) -> None:
    found = row(record, "f:1")
    assert (found.kind, found.words, found.tags) == ("tagged", ("the", "film"), ("AT", "NN"))
    assert found.text == "the film"
    assert found.fields == ({"id": "7"} if "id" in record else {})


def test_tags_may_be_numbers_and_a_label_beside_them_is_a_field() -> None:
    found = row({"tokens": ["a", "b"], "ner": [0, 3], "label": "news"}, "f:1")
    assert (found.tags, found.kind, found.fields["label"]) == (("0", "3"), "tagged", "news")


@pytest.mark.parametrize(
    ("record", "said"),
    [
        ({"words": ["a"], "tags": ["X", "Y"]}, "f:1: there are 1 words and 2 tags"),
        ({"words": ["a", " "], "tags": ["X", "Y"]}, "f:1: word 2 is empty"),
        ({"words": ["a", "b"], "tags": ["X", None]}, "f:1: tag 2 is empty; a tag is a word"),
        ({"words": ["a"], "tags": [["X"]]}, "f:1: tag 1 is a list"),
        ({"words": {"a": 1}, "tags": []}, "f:1: words is an object; write a list"),
        ({"words": [], "tags": []}, "f:1: words is empty"),
        ({"tokens": ["a"], "ner_tags": ["X"], "pos_tags": ["Y"]}, "'ner_tags' or 'pos_tags'; say"),
    ],
)
def test_what_is_wrong_with_tags_is_named(record: dict[str, Any], said: str) -> None:
    with pytest.raises(UserError, match=said):
        row(record, "f:1")


@pytest.mark.parametrize("who", ["human", "user", "Human"])
def test_sharegpt_under_its_own_keys_and_under_openais(who: str) -> None:
    said = [{"from": who, "value": "hi"}, {"from": "gpt", "value": "hello"}]
    mixed = [{"role": who, "content": "hi"}, {"role": "model", "content": "hello"}]
    for record in ({"conversations": said}, {"conversations": mixed}, {"messages": said}):
        assert _said(row(record, "f:1")) == [("user", "hi"), ("assistant", "hello")]


def test_a_content_of_several_texts_is_one() -> None:
    parts = [{"type": "text", "text": "hel"}, {"type": "text", "text": "lo"}]
    assert _said(row(_answered(parts), "f:1")) == [("user", "hi"), ("assistant", "hello")]


@pytest.mark.parametrize("record", [{"system": "S"}, {"system": ""}, {"system": None}, {}])
def test_a_system_column_opens_the_conversation(record: dict[str, Any]) -> None:
    system = [("system", "S")] if record.get("system") else []
    talk = [("user", "hi"), ("assistant", "hello")]
    forms: list[dict[str, Any]] = [
        {"conversations": [USER, ANSWER]},
        {"instruction": "hi", "output": "hello"},
        {"question": "hi", "completion": "hello"},
    ]
    for form in forms:
        assert _said(row(form | record, "f:1")) == system + talk
    opened = [{"role": "system", "content": "mine"}, USER, ANSWER]
    assert _said(row({"messages": opened, **record}, "f:1")) == [("system", "mine"), *talk]


def test_alpaca_becomes_a_conversation() -> None:
    record = {"instruction": "Add.", "input": "1 2", "output": "3", "history": [["a", "b"]]}
    turns = [("user", "a"), ("assistant", "b"), ("user", "Add.\n1 2"), ("assistant", "3")]
    assert _said(row(record, "f:1")) == turns
    empties: list[dict[str, Any]] = [{"input": ""}, {"input": None}, {"input": float("nan")}, {}]
    for nothing in empties:
        plain = {"instruction": "Add.", "output": "3", **nothing}
        assert _said(row(plain, "f:1")) == [("user", "Add."), ("assistant", "3")]


@pytest.mark.parametrize(
    "record",
    [
        {"prompt": "hi", "response": "hello"},
        {"question": "hi", "answer": "hello"},
        {"query": "hi", "response": "hello"},
        {"input": "hi", "output": "hello"},
        {"instruction": "hi", "response": "hello"},
        {"instruction": "hi", "output": "hello"},
        {"Question": "hi", "Answer": "hello"},
        {"prompt": [USER], "completion": [ANSWER]},
        {"prompt": "hi", "completion": [ANSWER]},
        {"completion": [USER, ANSWER]},
    ],
)
def test_a_question_and_its_answer_are_two_turns(record: dict[str, Any]) -> None:
    assert _said(row(record, "f:1")) == [("user", "hi"), ("assistant", "hello")]
    assert reading(record).kind == "messages"


DOCUMENT = "A ship left the harbour."


@pytest.mark.parametrize(
    ("document", "answer"),
    [
        *[(name, "summary") for name in ("document", "article", "dialogue", "text", "Transcript")],
        *[("article", name) for name in ("highlights", "abstract", "tl;dr", "translation")],
        *[("text", name) for name in ("answer", "response", "Summary")],
        *[("source", "target"), ("inputs", "targets"), ("context", "answer")],
        *[
            ("problem", "solution"),
            ("paper", "abstract"),
            ("code", "summary"),
            ("docstring", "code"),
        ],
    ],
)
def test_a_document_and_its_answer_are_a_question_and_an_answer(document: str, answer: str) -> None:
    record = {"id": 7, document: f"def f(): {DOCUMENT}", answer: "Ship left: gone."}
    found = row(record, "f:1")
    assert _said(found) == [("user", record[document]), ("assistant", record[answer])]
    assert found.reading is not None and found.reading.format == "document"
    assert found.reading.columns == {"instruction": document, "output": answer}
    assert found.reading.unread == ("id",)
    assert row(record, "f:1", {"text": document}).kind == "text"
    other = {**record, "other": "o"}
    assert _said(row(other, "f:1", {"output": "other"}))[-1] == ("assistant", "o")


@pytest.mark.parametrize(
    ("record", "format_"),
    [
        ({"text": "a", "label": "b", "summary": "c"}, "labelled"),
        ({"article": "a", "category": "b", "highlights": "c"}, "labelled"),
        ({"text": "a", "target": "b"}, "labelled"),
        ({"messages": [USER, ANSWER], "text": "a", "summary": "b"}, "messages"),
        ({"prompt": "a", "completion": "b", "summary": "c"}, "completion"),
        ({"tokens": ["a"], "tags": ["X"], "summary": "c"}, "tagged"),
        ({"text": "a", "title": "b", "url": "c"}, "text"),
        ({"abstract": "a", "title": "b"}, "text"),
        ({"text": "a", "code": "en-GB"}, "text"),
        ({"text": "a", "code": 7}, "text"),
        ({"text": "a", "code": "return 1"}, "document"),
    ],
)
def test_a_document_with_its_answer_comes_after_all_but_a_text(
    record: dict[str, Any], format_: str
) -> None:
    assert reading(record).format == format_


@pytest.mark.parametrize(
    ("record", "columns"),
    [
        # A text's names precede the others of a document.
        (
            {"article": "a", "description": "b", "summary": "c"},
            {"instruction": "article", "output": "summary"},
        ),
        (
            {"content": "a", "context": "b", "answer": "c"},
            {"instruction": "content", "output": "answer"},
        ),
        # Late names count only without others.
        (
            {"question": "a", "answer": "b", "answers": "c"},
            {"instruction": "question", "output": "answer"},
        ),
        (
            {"question": "a", "answer": "b", "transcript": "c"},
            {"instruction": "question", "output": "answer"},
        ),
        (
            {"question": "a", "answer": "b", "dialogue": "A: c", "rating": 1},
            {"instruction": "question", "output": "answer"},
        ),
        ({"comment": "a", "comment_text": "b"}, {"text": "comment"}),
        ({"tweet": "a", "full_text": "b", "stars": 1}, {"text": "tweet", "label": "stars"}),
        ({"content": "a", "reviewText": "b"}, {"text": "content"}),
        (
            {"text": "a", "label": "b", "question": "c", "answers": "d"},
            {"text": "text", "label": "label"},
        ),
    ],
)
def test_names_have_an_order(record: dict[str, Any], columns: dict[str, str]) -> None:
    found = reading(record)
    assert found.columns == columns
    assert set(found.unread) == set(record) - set(columns.values())


def test_late_names_are_as_uncertain_as_others() -> None:
    for record in (
        {"transcript": "a", "full_text": "b"},
        {"question": "a", "answers": "b", "text": "c"},
    ):
        with pytest.raises(UserError, match="say which"):
            reading(record)


@pytest.mark.parametrize(
    ("cells", "column", "texts"),
    [
        (["A1", "B2", "C 3", "D4"], "code", ["t0", "t1", "t2", "t3"]),
        (["C 3", "A1", "B2", None], "code", ["t0", "t1", "t2", "t3"]),
        (["return 1", "pass", "x = 1"], "code", ["return 1", "pass", "x = 1"]),
        (["pass", "return 1", "x = 1"], "code", ["pass", "return 1", "x = 1"]),
        (["A: hi", "[laughs] B: hi", "A: no"], "chat", ["A: hi", "[laughs] B: hi", "A: no"]),
        (["[laughs] B: hi", "A: hi", "A: no"], "dialogue", ["[laughs] B: hi", "A: hi", "A: no"]),
    ],
)
def test_the_cells_of_a_column_decide_together(
    cells: list[Any], column: str, texts: list[str]
) -> None:
    records = [
        (f"f:{n}", {"chat": {}, "code": {"text": f"t{n}"}, "dialogue": {"summary": "s"}}[column])
        for n in range(len(cells))
    ]
    cells_of = zip(records, cells, strict=True)
    found = rows(((place, {**record, column: cell}) for (place, record), cell in cells_of), "f", {})
    assert len({row.kind for row in found}) == 1
    assert [row.text or row.messages[column == "code"]["content"] for row in found] == texts


def test_a_dialogue_without_a_value_is_no_other_format() -> None:
    records = [{"chat": chat, "text": "a"} for chat in (None, [USER, ANSWER], [USER, ANSWER])]
    said: list[str] = []
    invalid = InvalidRows(skip=True)
    records_ = [(f"f:{n}", record) for n, record in enumerate(records)]
    found = rows(records_, "f", {"messages": "chat"}, said.append, invalid=invalid)
    assert [row.place for row in found] == ["f:1", "f:2"] and "f:0: chat is null" in said[0]
    alone = row({"dialogue": None, "text": "a"}, "f:1")
    assert (alone.kind, alone.text) == ("text", "a")


def test_a_dialogue_may_be_turns_or_one_text() -> None:
    talk = {"dialogue": [USER, ANSWER], "summary": "They greet."}
    assert _said(row(talk, "f:1")) == [("user", "hi"), ("assistant", "hello")]
    assert row({"dialogue": "A: hi\nB: hello"}, "f:1").text == "A: hi\nB: hello"
    labelled = row({"dialogue": "A: hi\nB: hello", "topic": "x", "label": 1}, "f:1")
    assert (labelled.text, labelled.label) == ("A: hi\nB: hello", "1")


def test_the_first_of_squads_answers_is_learned() -> None:
    answers = {"text": ["Ten.", "10"], "answer_start": [4, 9]}
    found = row({"question": "How many?", "context": "Ten ships.", "answers": answers}, "f:1")
    assert _said(found) == [("user", "How many?\nTen ships."), ("assistant", "Ten.")]
    assert found.reading is not None
    assert found.reading.unread == ("answers.answer_start", "answers.text[1:]")
    same = row({"question": "How many?", "answers": {"text": ["Ten.", "Ten."]}}, "f:1")
    assert same.reading is not None and same.reading.unread == ()
    with pytest.raises(UserError, match="f:1: answers is an object"):
        row({"question": "How many?", "answers": {"text": []}}, "f:1")


def test_every_alias_of_a_table_is_found() -> None:
    for name in ALIASES["text"]:
        assert row({name: "a", "stars": 5}, "f:1").text == "a"
    for name in ALIASES["label"]:
        found = row({"sentence": "a", name: "b"}, "f:1")
        assert (found.kind, found.label, found.fields[name]) == ("labelled", "b", "b")
    assert set(ALIASES) <= {part for form in FORMATS for part in (*form.needs, *form.may)}


def test_a_reading_tells_which_column_is_what() -> None:
    found = reading({"id": 1, "Review Text": "a", "stars": 4})
    assert (found.kind, found.format) == ("labelled", "labelled")
    assert found.columns == {"text": "Review Text", "label": "stars"}
    assert reading({"reviewText": "a", "overall": 4}).columns == {"text": "reviewText"}
    found = reading({"instruction": "a", "context": "c", "response": "b", "category": "x"})
    assert (found.kind, found.format) == ("messages", "alpaca")
    assert found.columns == {"instruction": "instruction", "input": "context", "output": "response"}


def test_input_is_the_instruction_only_if_there_is_no_other() -> None:
    assert _said(row({"prompt": "a", "input": "b", "output": "c"}, "f:1"))[0] == ("user", "a\nb")
    assert _said(row({"input": "b", "output": "c"}, "f:1"))[0] == ("user", "b")


def test_columns_that_are_named_win() -> None:
    record = {"text": "t", "label": "l", "title": "T", "topic": "x"}
    found = row(record, "f:1", {"text": "title", "label": "topic"})
    assert (found.text, found.label) == ("T", "x")
    assert found.fields == {"text": "t", "label": "x", "topic": "x"}
    # The other is guessed only if nothing fits without guessing.
    assert row({"body": "b", "class": "c"}, "f:1", {"text": "body"}).kind == "text"
    assert row({"body": "b", "kind": "c"}, "f:1", {"label": "kind"}).text == "b"
    swapped = {"prompt": "completion", "completion": "prompt"}
    assert row({"prompt": "b", "completion": "a"}, "f:1", swapped).prompt == "a"


@pytest.mark.parametrize(
    "columns", [{"prompt": "question", "completion": "answer"}, {"completion": "answer"}]
)
def test_a_completion_continues_only_what_is_called_a_prompt(columns: dict[str, str]) -> None:
    found = row({"question": "1+1=", "answer": "2"}, "f:1", columns)
    assert (found.kind == "completion") == ("prompt" in columns)
    assert found.prompt == ("1+1=" if "prompt" in columns else "")


PAIRS: dict[str, dict[str, Any]] = {
    "text": {"prompt": "hi", "chosen": "hello", "rejected": "what"},
    "explicit": {"prompt": [USER], "chosen": [ANSWER], "rejected": [WORSE]},
    "implicit": {"chosen": [USER, ANSWER], "rejected": [USER, WORSE]},
    "repeated": {"prompt": "hi", "chosen": [USER, ANSWER], "rejected": [USER, WORSE]},
    "question": {"question": "hi", "chosen": "hello", "rejected": "what"},
}


@pytest.mark.parametrize("form", PAIRS)
def test_preferences_are_read_whole(form: str) -> None:
    found = row(PAIRS[form], "f:1")
    assert (found.kind, found.chosen, found.rejected) == ("preference", "hello", "what")
    asked = found.prompt if form == "text" else found.messages[0]["content"]
    assert asked == "hi"
    assert len(found.messages) == (form != "text")


@pytest.mark.parametrize("form", PAIRS)
def test_the_chosen_answers_can_be_learned_alone(form: str) -> None:
    found = row(PAIRS[form], "f:1", {"completion": "chosen"})
    if form == "text":
        assert (found.kind, found.prompt, found.completion) == ("completion", "hi", "hello")
    else:
        assert _said(found) == [("user", "hi"), ("assistant", "hello")]
    assert not found.rejected


@pytest.mark.parametrize(
    ("label", "value"),
    [
        *((1, "1"), (0, "0"), (1.0, "1"), (-2.0, "-2"), (True, "true"), (False, "false")),
        *(("pos", "pos"), (" pos ", "pos"), ("1.0", "1.0"), (3.5, "3.5"), ([1], "1"), (["a"], "a")),
    ],
)
def test_labels_become_text(label: Any, value: str) -> None:
    found = row({"text": "a", "label": label}, "f:1")
    assert found.label == value
    assert found.fields == {"label": value}


@pytest.mark.parametrize(
    ("value", "text"),
    [(4, "4"), (4.0, "4"), (-0.5, "-0.5"), (10**30, str(10**30)), (True, "true"), (False, "false")],
)
def test_numbers_and_booleans_are_read_as_texts(value: Any, text: str) -> None:
    assert _said(row({"question": 1, "answer": value}, "f:1")) == [
        ("user", "1"),
        ("assistant", text),
    ]
    assert row({"prompt": value, "completion": value}, "f:1").prompt == text
    assert _said(row(_answered(value), "f:1"))[1] == ("assistant", text)
    assert row({"prompt": "a", "chosen": value, "rejected": "x"}, "f:1").chosen == text
    assert row({"tokens": ["a", value], "ner": ["X", "Y"]}, "f:1").text == f"a {text}"


def test_a_verdict_column_beside_a_conversation() -> None:
    found = row({"messages": [USER, ANSWER], "score": 3}, "f:1", {"verdict": "score"}, judged=True)
    assert found.verdict == "3"


@pytest.mark.parametrize("write", [float, str])
def test_many_numbers_with_fractions_are_no_labels(write: Any) -> None:
    def read(numbers: list[float]) -> list[Row]:
        records = [{"review": f"a {n}", "score": write(n)} for n in numbers]
        return rows(
            [(f"f:{n}", r) for n, r in enumerate(records)],
            "f",
            {"text": "review", "label": "score"},
        )

    said = (
        r"f: score holds 30 different numbers with fractions, .* \(no regression\); .* with "
        r"data.columns: \{instruction: review, output: score\}"
    )
    with pytest.raises(UserError, match=said):
        read([n / 7 for n in range(30)])
    assert len(read([n % 9 / 2 for n in range(30)])) == 30, "half stars are labels"
    assert len(read(list(range(30)))) == 30, "whole numbers may be names"


def test_other_plain_columns_are_kept_as_text() -> None:
    record = {"text": "a", "source": "imdb", "num": 4.0, "part": 0.5, "old": False}
    odd = {"nested": {"a": 1}, "none": None, "nan": float("nan"), "bytes": b""}
    kept = {"source": "imdb", "num": "4", "part": "0.5", "old": "false"}
    assert row({**record, **odd}, "f:1").fields == kept


def test_a_label_beside_messages_is_kept_to_partition_by() -> None:
    found = row({"messages": [USER, ANSWER], "label": 3}, "f:1")
    assert (found.kind, found.label) == ("messages", "3")


def test_an_empty_prompt_is_allowed() -> None:
    assert row({"prompt": "", "completion": "b"}, "f:1").kind == "completion"


def _answered(content: Any) -> dict[str, Any]:
    return {"messages": [USER, {"role": "assistant", "content": content}]}


@pytest.mark.parametrize(
    ("record", "sentence"),
    [
        ({"a": "x", "b": 1}, "f:7: the columns 'a', 'b' fit no known format; known are messages, "),
        ({"en": "x", "de": "y"}, r"such as .*\{text: en\}, or \{instruction: en, output: de\}\.$"),
        (
            {"id": 1, "translation": {"en": "x", "de": "y"}},
            "'id', 'translation' fit no known format; 'translation' holds an object with the keys "
            "'en', 'de'; write each of them as a column of its own",
        ),
        ({"I liked it!": "x", "1": "2"}, r"fit no .* \(the first line of a table names its col"),
        (
            {"a": "x"},
            r"prompt \+ completion, .*, text \+ text_pair \+ label, text; say .*columns: {text: a}",
        ),
        ({str(i): "" for i in range(99)}, "'11' and 87 more fit no known format"),
        ({}, r"f:7: the columns \(none\) fit no known format"),
        ({"text": "  "}, "f:7: text is empty; write some text there or drop the row"),
        ({"prompt": "a", "completion": ""}, "f:7: completion is empty"),
        ({"text": [3]}, "f:7: text is a list; write it as text in quotes"),
        ({"text": None}, "f:7: text is null"),
        ({"text": b"a"}, "f:7: text is bytes"),
        ({"text": "a" * 10_000_001}, "f:7: text holds 10,000,001 characters, and a row may hold"),
        ({"prompt": {"a": 3}, "completion": "b"}, "f:7: prompt is an object"),
        ({"Review": " ", "stars": 4}, "f:7: Review is empty"),
        ({"Review": "a", "stars": None}, "f:7: stars is empty; a label is a word"),
        ({"question": "a", "answer": None}, "f:7: answer is null; write some text there or drop"),
        ({"question": "a", "answer": float("nan")}, "f:7: answer is empty; write some text"),
        ({"question": "", "answer": "b"}, "f:7: question is empty"),
        ({"query": "a", "response": ["b"]}, "f:7: response is a list; write it as text"),
        ({"conversations": "A: hi"}, "f:7: conversations is text; write a list of {role, content}"),
        ({"tokens": {"a": 1}, "ner": []}, "f:7: tokens is an object; write a list"),
        ({"completion": "b"}, "f:7: completion has no prompt; name its column"),
        ({"text": "a", "label": None}, "f:7: label is empty; a label is a word, a number"),
        ({"text": "a", "label": ""}, "f:7: label is empty"),
        ({"text": "a", "label": " "}, "f:7: label is empty"),
        ({"text": "a", "label": float("nan")}, "f:7: label is empty"),
        ({"text": "a", "label": float("inf")}, "f:7: label is inf"),
        ({"text": "a", "label": []}, "f:7: label is a list; a label is a word"),
        ({"text": "a", "label": {"x": 1}}, "f:7: label is an object; a label is a word"),
        (
            {"text": "a", "labels": ["x", "y"]},
            r"f:7: labels holds 2 labels, .* \(multi-label class",
        ),
        (
            {"text": "a", "label": [0, 1, 1]},
            "f:7: label holds 3 labels, and a row can have only one",
        ),
        ({**TALK, "loss_mask": [0]}, "f:7: loss_mask is no list of 0 and 1 for the 2 messages"),
        ({**TALK, "loss_mask": [0, 0.5]}, "f:7: loss_mask is no list of 0 and 1 for the 2 mess"),
        ({"text": "\ud83d"}, "f:7: text holds half of a surrogate pair"),
        ({"text": "a", "source": "\ud83d"}, "f:7: source holds half of a surrogate pair"),
        ({"messages": "hi"}, r"f:7: messages is text; write a list of \{role, content\}"),
        ({"conversations": "hi"}, "f:7: conversations is text"),
        ({"messages": []}, "f:7: no assistant turn follows another turn in these 0 messages"),
        ({"messages": [USER, USER]}, "f:7: no assistant turn follows .* 2 messages"),
        ({"messages": [ANSWER, USER]}, "f:7: no assistant turn follows"),
        ({"messages": [USER, {"role": "assistant"}]}, "f:7: message 2 has the keys 'role'"),
        ({"messages": [{"content": "a"}, ANSWER]}, "message 1 .* needs role and content"),
        ({"messages": [USER, "hello"]}, "f:7: message 2 is text; it needs role and content"),
        ({"messages": [{}, ANSWER]}, "f:7: message 1 has the keys"),
        (
            {"messages": [{"role": "judge", "content": "a"}, ANSWER]},
            "f:7: message 1 has the role 'judge'; roles are system, user, assistant, tool",
        ),
        ({"messages": [USER, {"role": [1], "content": "a"}]}, "has the role a list; roles are"),
        (_answered([{"type": "image_url"}]), "the content of message 2 is a list"),
        (_answered([{"type": "text"}]), "the content of message 2 is a list"),
        (_answered([]), "the content of message 2 is empty"),
        (_answered(None), "f:7: the content of message 2 is null"),
        (_answered(" "), "f:7: the content of message 2 is empty"),
        (_answered("\udc00"), "f:7: the content of message 2 holds half of a surrogate pair"),
        ({"instruction": " ", "output": "b"}, "f:7: instruction is empty"),
        ({"instruction": "a", "output": None}, "f:7: output is null"),
        ({"instruction": "a", "output": "b", "history": "x"}, "f:7: history is no list of"),
        ({"instruction": "a", "output": "b", "history": [["x"]]}, "f:7: history is no list of"),
        ({"instruction": "a", "output": "b", "history": [["x", []]]}, "history 1 is a list"),
        ({"prompt": "a", "chosen": "b", "rejected": ""}, "f:7: rejected is empty"),
        ({"chosen": [USER], "rejected": [USER]}, "f:7: chosen does not end in an assistant turn"),
        (
            {"chosen": [USER, ANSWER, USER, ANSWER], "rejected": [USER, WORSE, USER, ANSWER]},
            "f:7: chosen and rejected differ before their last turn",
        ),
        ({"text": "a", "stars": 1, "class": "x"}, "'label' may be the column 'class' or 'stars'"),
        (
            {"question": "a", "answer": "b", "text": "c"},
            r"read as instruction \+ output \(in 'question', 'answer'\) or text \(in 'text'\); say",
        ),
    ],
)
def test_faults_are_named_with_their_place(record: dict[str, Any], sentence: str) -> None:
    with pytest.raises(UserError, match=sentence):
        row(record, "f:7")


@pytest.mark.parametrize(
    ("columns", "sentence"),
    [
        (
            {"txt": "body"},
            r"data.columns has 'txt' \(did you mean 'text'\?\) to the left of a column",
        ),
        ({"text": "boddy"}, r"f:1: data.columns takes text from 'boddy', which is not there \(did"),
        ({"label": "star"}, r"data.columns: f has no column 'star' \(did you mean 'stars'\?\); it"),
    ],
)
def test_columns_that_are_not_there(columns: dict[str, str], sentence: str) -> None:
    record = {"stars": 4, "title": "b", "text" if "label" in columns else "boody": "a"}
    with pytest.raises(UserError, match=sentence):
        rows([("f:1", record)], "f", columns)


def test_a_column_may_be_missing_in_some_rows() -> None:
    records = [("f:1", {"q": "a", "a": "b"}), ("f:2", {"q": "a", "a": "b", "more": "c"})]
    found = rows(records, "f", {"instruction": "q", "output": "a", "input": "more"})
    assert [one.messages[0]["content"] for one in found] == ["a", "a\nc"]


@pytest.mark.parametrize(
    ("record", "parts"),
    [
        ({"premise": "a", "hypothesis": "b", "label": "c"}, "text + text_pair + label"),
        ({"review": "a", "sentiment": "b"}, "text + label"),
        ({"question": "a", "answer": "b"}, "instruction + output"),
        (
            {"conversations": [{"from": "human", "value": "a"}, {"from": "gpt", "value": "b"}]},
            "conversations",
        ),
        ({"prompt": "a", "completion": "b"}, "prompt + completion"),
    ],
)
def test_a_row_names_the_parts_of_its_own_format(record: dict[str, Any], parts: str) -> None:
    assert row(record, "f:1").parts == parts


def test_rows_of_one_source_are_of_one_kind() -> None:
    records = [("f:1", {"text": "a"}), ("f:2", {"text": "a", "label": "b"})]
    with pytest.raises(UserError, match=r"f:2 has text \+ label, but f:1 has text; a file or"):
        rows(records, "f", {})
    with pytest.raises(UserError, match="f holds no rows; give a file with at least one example"):
        rows([], "f", {})
