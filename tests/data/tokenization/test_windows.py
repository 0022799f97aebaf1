"""All tokens of a long text are learned once, in windows that fit."""

from pathlib import Path
from typing import Any

import pytest
from transformers import AutoTokenizer

from hanse.data.example import IGNORED, Example, Lost
from hanse.data.formats.row import Row
from hanse.data.tokenization.token_cache import Rendering, Tokenized
from hanse.data.tokenization.windows import windows

BEGIN = 1


def whole(size: int, front: int = 0) -> Example:
    """A text of the tokens 100, 101, …, behind a first token that is not learned."""
    ids = tuple(range(100, 100 + size))
    first = (BEGIN,) * front
    return Example(first + ids, (IGNORED,) * front + ids, lost=Lost.NOTHING)


@pytest.mark.parametrize("front", [0, 1])
@pytest.mark.parametrize("size", [9, 10, 15, 16, 17, 100, 1001])
def test_each_token_is_learned_once_behind_the_one_before_it(size: int, front: int) -> None:
    text = whole(size, front)
    learned: list[int] = []
    for number, window in enumerate(windows(text, 8, front)):
        assert len(window) <= 8
        assert len(window.labels) == len(window)
        assert window.ids[:front] == (BEGIN,) * front
        for place, label in enumerate(window.labels):
            if label == IGNORED:
                continue
            learned.append(label)
            assert window.ids[place] == label
            if place and label > 100:
                assert window.ids[place - 1] == label - 1
            assert place or (not number and not front)  # else nothing comes before it
        assert window.lost == Lost.REST
    assert learned == list(text.ids[front:])


def test_windows_have_nearly_equal_lengths() -> None:
    sizes = list(map(len, windows(whole(1001, 1), 100, 1)))
    assert max(sizes) - min(sizes) <= 1 and max(sizes) <= 100
    assert len(sizes) == 11  # 1,000 tokens behind the first, at most 98 new ones in each


@pytest.fixture
def rendering(tiny_llama: Path) -> Rendering:
    tokenizer: Any = AutoTokenizer.from_pretrained(tiny_llama)
    return Rendering(tokenizer, "tokens", {}, "{text}", 16, windowed=True)


def rows() -> list[Row]:
    return [Row(text="short"), Row(text="a long text " * 20), Row(text="another one")]


def test_rows_keep_their_order_and_short_ones_are_as_before(
    rendering: Rendering, tmp_path: Path
) -> None:
    first, long, last = rendering.examples(rows())
    assert [first, last] == [[rendering.render(rows())[n]] for n in (0, 2)]
    assert len(long) > 2 and all(len(window) <= 16 for window in long)
    reader = Tokenized(rendering, tmp_path)
    assert list(*reader.examples([rows()])) == [*first, *long, *last]
    later, again = reader.examples([[rows()[2], rows()[1]], rows()[:1]])
    assert (list(later), list(again)) == ([*last, *long], first)


def test_windows_come_back_from_disk(
    rendering: Rendering, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("hanse.data.tokenization.token_cache.WORTH", 1)
    expected = list(*Tokenized(rendering, tmp_path).examples([rows()]))
    monkeypatch.delattr(Rendering, "examples")  # all are on disk
    assert list(*Tokenized(rendering, tmp_path).examples([rows()])) == expected


def test_only_texts_without_a_question_have_windows(rendering: Rendering) -> None:
    answer = Row(prompt="Why?", completion=" because " * 30)
    assert [len(examples) for examples in rendering.examples([answer])] == [1]
