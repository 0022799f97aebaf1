"""How figures are written for people."""

import pytest

from hanse.reports import formatting


def plain(text: str) -> str:
    """With ordinary spaces and signs."""
    return text.replace(formatting.NO_BREAK, " ").replace(formatting.MINUS, "-")


@pytest.mark.parametrize(
    ("value", "said"),
    [
        (0, "0 B"),
        (999, "999 B"),
        (999.6, "1 kB"),
        (1_000, "1 kB"),
        (1_234_567, "1.23 MB"),
        (5e13, "50 TB"),
    ],
)
def test_bytes(value: float, said: str) -> None:
    assert plain(formatting.bytes_(value)) == said


@pytest.mark.parametrize(
    ("value", "said"),
    [
        (0, "0 s"),
        (0.25, "0.25 s"),
        (59.96, "1 min 0 s"),
        (200, "3 min 20 s"),
        (3_599.7, "1 h 0 min"),
        (7_500, "2 h 5 min"),
    ],
)
def test_seconds(value: float, said: str) -> None:
    assert plain(formatting.seconds(value)) == said


@pytest.mark.parametrize(
    ("value", "said"),
    [(0.0123456, "0.0123"), (12.345, "12.3"), (999.4, "999"), (999.9, "1000"), (12345.0, "12300")],
)
def test_three_digits_without_a_power_of_ten(value: float, said: str) -> None:
    assert formatting.digits(value) == said


def test_scores_and_changes() -> None:
    assert plain(formatting.score(0.8125, "accuracy")) == "81.2 %"
    assert plain(formatting.score(0.8125, "macro_f1")) == "0.8125"
    assert plain(formatting.change(-0.021, "accuracy")) == "-2.1 points"
    assert plain(formatting.change(0.5, "loss")) == "+0.5"
    assert plain(formatting.interval(-0.01, 0.02, "exact_match")) == "[-1.0, +2.0]"
    assert plain(formatting.tick(0.8, "accuracy")) == "80 %"
    assert [plain(formatting.step(v, "accuracy")) for v in (-0.03, 0, 0.015)] == ["-3", "0", "+1.5"]


@pytest.mark.parametrize("length", [5, 18, 40])
def test_names_keep_their_ends(length: int) -> None:
    name = "university-hospital-of-luebeck"
    cut = formatting.middle(name, length)
    assert len(cut) == min(length, len(name))
    assert cut[:2] == name[:2] and cut[-2:] == name[-2:]


def test_texts_are_cut_at_a_word() -> None:
    assert formatting.short("a few words", 40) == "a few words"
    assert formatting.short("some words that go on", 13) == "some words…"
    assert formatting.short("x" * 50, 10) == "x" * 9 + "…"
