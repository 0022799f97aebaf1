"""The rows that `hanse init` holds out are those that the silos can spare, drawn or reckoned."""

import random

import pytest

from hanse.data.formats.row import Row
from hanse.planning.first_experiment import held_out


@pytest.mark.parametrize("seed", range(40))
def test_rows_that_are_surely_spared_are_spared_by_any_draw(
    seed: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    draw = random.Random(seed)
    owners, texts = draw.choice([1, 1, 2, 5]), draw.choice([3, 30, 10_000])
    owned = [
        (f"silo {draw.randrange(owners)}", Row(text=f"text {draw.randrange(texts)}"))
        for _ in range(draw.choice([5, 40, 200]))
    ]
    test, validation, silos = len(owned) * 0.2, len(owned) * 0.1, draw.choice([1, 4, 30])
    reckoned = held_out._spared(owned, silos, test, validation)
    monkeypatch.setattr(held_out, "_surely_spared", lambda *_: False)
    assert reckoned == held_out._spared(owned, silos, test, validation)


@pytest.mark.parametrize(
    ("texts", "held", "surely"),
    [
        (["a", "b", "c", "d"], 2, True),
        (["a", "b", "c", "d"], 3, False),
        (["a", "a", "a", "b"], 1, False),  # all of the equal rows would go
        (["a", "a", "b", "c"], 1, True),
        (["a", "b"], 0, True),
    ],
)
def test_the_worst_draw_counts(texts: list[str], held: int, surely: bool) -> None:
    owned = [("silo", Row(text=text)) for text in texts]
    assert held_out._surely_spared(owned, 1, held) is surely
    assert not held_out._surely_spared(owned, len(texts) + 1 - held, held)
