"""How much of a batch is padding, for texts as long as people write them."""

from collections.abc import Sequence

import numpy as np
import pytest

from hanse.learners.training.batch_sampling import sample_batches
from hanse.learners.training.settings import TrainingSettings
from hanse.randomness import RoundContext
from toy_learners import ToyLearner
from toys import held_out

# Tokens of movie reviews (the package's, SmolLM2's tokenizer, cut at 512): every 20th of them.
REVIEWS = (16, 27, 32, 38, 46, 60, 103, 151, 165, 177, 192, 207, 226, 246, 274, 317, 366, 424, 512)


def lengths(count: int, seed: int) -> list[int]:
    at = np.random.default_rng(seed).random(count)
    places = np.linspace(0, 1, len(REVIEWS))
    return [int(length) for length in np.interp(at, places, REVIEWS)]


def padding(batches: Sequence[Sequence[int]]) -> float:
    """The share of padding in batches of such lengths."""
    wide = sum(max(batch) * len(batch) for batch in batches)
    return 1 - sum(map(sum, batches)) / wide


@pytest.mark.parametrize("size", [2, 4, 8])
@pytest.mark.parametrize("steps", [1, 3, 12, 40])
def test_training_reads_little_padding(size: int, steps: int) -> None:
    settings = TrainingSettings(per_device_train_batch_size=size, max_steps=steps)
    own, found = lengths(1000, 0), []
    for seed in range(10):
        drawn = sample_batches(own, settings, RoundContext(seed, 1, "silo"))
        found.append(padding([[own[at] for at in batch] for step in drawn for batch in step]))
    assert sum(found) / len(found) < 0.10


@pytest.mark.parametrize("steps", [10, 40])
def test_clients_side_by_side_are_padded_little(steps: int) -> None:
    """Each step of a cohort is as wide as its longest row, whoever's it is."""
    settings = TrainingSettings(per_device_train_batch_size=4, max_steps=steps)
    texts = {f"client-{number}": lengths(300 * number, number) for number in (1, 2, 3, 4)}
    found = []
    for seed in range(10):
        drawn = {
            n: sample_batches(own, settings, RoundContext(seed, 1, n)) for n, own in texts.items()
        }
        for step in range(steps):
            rows = [texts[name][at] for name in texts for at in drawn[name][step][0]]
            found.append((max(rows) * len(rows), sum(rows)))
    assert 1 - sum(read for _, read in found) / sum(wide for wide, _ in found) < 0.15


class Reader(ToyLearner):
    """Its examples are as long as reviews, and its batches are those lengths."""

    def examples(self, split: str) -> Sequence[range]:  # type: ignore[override]
        return [range(length) for length in lengths(1000, 1)]

    def batch(self, examples: Sequence[range]) -> list[int]:  # type: ignore[override]
        return list(map(len, examples))


@pytest.mark.parametrize("size", [16, 32])
def test_evaluation_reads_less(size: int) -> None:
    learner = Reader(held_out(), RoundContext(0), {})
    assert padding([batch for _, batch in learner.batches("test", size)]) < 0.05
