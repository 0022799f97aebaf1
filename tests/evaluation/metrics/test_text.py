"""Scores of answers against closed forms and brute force, and the task that collects them."""

import builtins
import math
import random
import re
from collections.abc import Sequence
from itertools import combinations
from typing import Any

import pytest

from hanse.data.example import Example
from hanse.errors import UserError
from hanse.evaluation.generation import Generation
from hanse.evaluation.metrics import text as answers
from hanse.evaluation.metrics.text import (
    METRICS,
    chrf,
    exact_match,
    last_number,
    number_match,
    rouge_l,
)
from hanse.journal.records import GeneratedSample

SENTENCES = ["The ship sails at noon.", "Grüße aus Lübeck, schöne Stadt", "船は正午に出る", "4"]


@pytest.mark.parametrize("metric", METRICS.values())
@pytest.mark.parametrize("text", SENTENCES)
def test_the_same_words_score_one_and_others_nothing(metric: Any, text: str) -> None:
    assert metric(text, text) == pytest.approx(1.0)
    assert metric(text, f"  {text}\n") == pytest.approx(1.0), "white space says nothing"
    assert metric(text, "xyz wvq") == 0.0
    assert metric(text, "") == 0.0


def test_exact_is_exact() -> None:
    assert exact_match("two  words", "two words") == 1.0
    assert exact_match("Two words", "two words") == 0.0
    assert exact_match("two words", "two words.") == 0.0


@pytest.mark.parametrize(
    ("text", "number"),
    [
        ("48 / 2 = 24 clips, so 48 + 24 = 72\n#### 72", "72"),
        ("she pays $1,280.50 in all.", "1280.5"),
        ("10-5", "5"),
        ("it fell to -5", "-5"),
        ("it fell to −5 degrees", "-5"),
        ("(7)-3", "3"),
        ("50%.", "50"),
        ("1,000,000", "1000000"),
        ("in 2024,12 of them", "12"),
        ("072.0", "72"),
        ("none at all", None),
    ],
)
def test_the_last_number_of_a_text(text: str, number: str | None) -> None:
    found = last_number(text)
    assert (None if found is None else float(found)) == (None if number is None else float(number))
    if number is not None:
        assert number_match(text, f"So it is {number}.") == 1.0
        assert number_match(text, f"So it is {number}, not 99999.") == 0.0
    assert number_match(text, "nothing") == 0.0


def _longest_common(first: Sequence[str], second: Sequence[str]) -> int:
    """By trying every subsequence of the first, longest first."""
    for size in range(len(first), 0, -1):
        for chosen in combinations(first, size):
            rest = iter(second)
            if all(word in rest for word in chosen):
                return size
    return 0


def test_rouge_l_is_the_f1_of_the_longest_common_subsequence() -> None:
    draw = random.Random(0)
    for _ in range(60):
        a = draw.choices(["der", "Käse", "ist", "alt", "2"], k=draw.randint(1, 7))
        b = draw.choices(["der", "käse", "ist", "nicht", "2"], k=draw.randint(1, 7))
        common = _longest_common([w.lower() for w in a], [w.lower() for w in b])
        precision, recall = common / len(b), common / len(a)
        f1 = 2 * precision * recall / (precision + recall) if common else 0.0
        assert rouge_l(" ".join(a), ", ".join(b) + "!") == pytest.approx(f1)


def test_chrf_is_its_formula() -> None:
    def grams(text: str, size: int) -> list[str]:
        bare = re.sub(r"\s", "", text)
        return [bare[i : i + size] for i in range(len(bare) - size + 1)]

    def expected(answer: str, said: str) -> float:
        """Mean precision and recall over the sizes that both have, then F with β = 2."""
        rates = []
        for size in range(1, 7):
            a, s = grams(answer, size), grams(said, size)
            if a and s:
                hits = sum(min(a.count(g), s.count(g)) for g in set(a))
                rates.append((hits / len(s), hits / len(a)))
        precision, recall = (sum(column) / len(rates) for column in zip(*rates, strict=True))
        return 5 * precision * recall / (4 * precision + recall) if precision + recall else 0.0

    for answer, said in [("the cat sat", "the cat"), ("abcdefgh", "abcdxfgh"), ("ab", "ba ab")]:
        assert chrf(answer, said) == pytest.approx(expected(answer, said), abs=1e-6)


def test_a_library_that_is_not_there(monkeypatch: pytest.MonkeyPatch) -> None:
    real = builtins.__import__

    def absent(name: str, *rest: Any, **more: Any) -> Any:
        if name.split(".")[0] in ("rouge_score", "sacrebleu"):
            raise ImportError(name)
        return real(name, *rest, **more)

    monkeypatch.setattr(builtins, "__import__", absent)
    for load in (answers._rouge, answers._chrf):
        load.cache_clear()
    speaker = Speaker([_example(1, "a", "b")])
    with pytest.raises(UserError, match=r"chrf needs sacrebleu.*pip install 'hanse\[eval\]'"):
        Generation(metrics=("chrf",)).evaluate(speaker, "test")  # type: ignore[arg-type]
    with pytest.raises(UserError, match=r"rouge_l needs rouge-score"):
        Generation(metrics=("rouge_l",)).evaluate(speaker, "test")  # type: ignore[arg-type]
    assert not speaker.batches, "nothing was generated for nothing"
    assert Generation(metrics=("exact_match",)).evaluate(speaker, "test").items == [0.0]  # type: ignore[arg-type]


class Speaker:
    """A learner that says what it was told to, and remembers what it was asked together."""

    def __init__(self, examples: Sequence[Example]) -> None:
        self.known = list(examples)
        self.batches: list[list[int]] = []

    def examples(self, split: str) -> Sequence[Example]:
        return self.known

    def generate(self, examples: Sequence[Example], max_new_tokens: int) -> list[str]:
        self.batches.append([example.prompt for example in examples])
        return [f" {SAID[example.ids[0]]}\n" for example in examples]

    def text(self, ids: Sequence[int]) -> str:
        return " ".join(map(str, ids))


SAID: dict[int, str] = {}


def _example(prompt: int, answer: str, said: str) -> Example:
    """An example with so long a prompt, to which the speaker says this."""
    name = len(SAID)
    SAID[name] = said
    ids = (name,) * prompt + (9, 9)
    return Example(ids, ids, prompt=prompt, answer=answer)


def test_answers_are_scored_in_the_order_of_the_split() -> None:
    draw = random.Random(1)
    examples = [
        _example(draw.randint(1, 9), f"it is {n}", f"it is {n if n % 3 else 'odd'}")
        for n in range(30)
    ]
    speaker = Speaker(examples)
    task = Generation(metrics=("exact_match", "chrf"), limit=20, samples=3, batch_size=8)
    found = task.evaluate(speaker, "test")  # type: ignore[arg-type]
    assert found.items == [float(n % 3 != 0) for n in range(20)]
    share = sum(found.items) / 20
    assert found.metrics["exact_match"] == pytest.approx(share)
    error = math.sqrt(share * (1 - share) / 19)
    assert found.metrics["exact_match_se"] == pytest.approx(error)
    assert list(found.metrics) == ["exact_match", "exact_match_se", "chrf", "chrf_se"]
    assert share < found.metrics["chrf"] < 1
    assert found.samples == [
        GeneratedSample(" ".join([str(e.ids[0])] * e.prompt), e.answer, SAID[e.ids[0]])
        for e in examples[:3]
    ]
    lengths = [length for batch in speaker.batches for length in batch]
    assert lengths == sorted((e.prompt for e in examples[:20]), reverse=True)
    assert [len(batch) for batch in speaker.batches] == [8, 8, 4]


def test_numbers_are_compared_as_numbers() -> None:
    examples = [_example(1, "3 + 4\n#### 1,007.0", "so 1007"), _example(1, "#### 2", "2 + 2 = 4")]
    found = Generation(answer="number").evaluate(Speaker(examples), "test")  # type: ignore[arg-type]
    assert found.items == [1.0, 0.0]
    with pytest.raises(UserError, match="row 1 of the test rows has no number in its answer 'no'"):
        Generation(answer="number").evaluate(Speaker([_example(1, "no", "1")]), "test")  # type: ignore[arg-type]


def test_one_example_has_no_standard_error() -> None:
    found = Generation().evaluate(Speaker([_example(2, "a", "a")]), "test")  # type: ignore[arg-type]
    assert found.metrics.keys() <= {*Generation.reports}
    assert list(found.metrics) == ["exact_match", "rouge_l", "chrf"]


@pytest.mark.parametrize("example", [Example((1, 2), (1, 2)), Example((1,), (1,), 0, answer="a")])
def test_rows_that_nobody_can_answer(example: Example) -> None:
    speaker = Speaker([_example(1, "a", "a"), example])
    with pytest.raises(UserError, match=r"row 2 of the validation rows .* perplexity for plain"):
        Generation().evaluate(speaker, "validation")  # type: ignore[arg-type]
    assert not speaker.batches
