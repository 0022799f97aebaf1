"""Which examples are drawn, and how the learning rate goes over the rounds."""

from collections import Counter

import pytest
import torch

from hanse.learners.training.batch_sampling import WINDOW, sample_batches
from hanse.learners.training.settings import TrainingSettings
from hanse.randomness import RoundContext


def _drawn(lengths: list[int], settings: TrainingSettings, seed: int = 0) -> list[list[list[int]]]:
    return sample_batches(lengths, settings, RoundContext(seed, 1, "silo"))


def test_steps_and_sizes() -> None:
    settings = TrainingSettings(
        per_device_train_batch_size=4, gradient_accumulation_steps=3, max_steps=5
    )
    steps = _drawn([1] * 1000, settings)
    assert [[len(batch) for batch in step] for step in steps] == [[4, 4, 4]] * 5


def test_every_example_once_before_any_twice() -> None:
    settings = TrainingSettings(per_device_train_batch_size=4, max_steps=8)
    counts = Counter(i for step in _drawn([1] * 20, settings) for batch in step for i in batch)
    assert sorted(counts.values()) == [1] * 8 + [2] * 12


def test_an_epoch_is_every_example_once() -> None:
    settings = TrainingSettings(per_device_train_batch_size=8, num_train_epochs=1.0)
    drawn = [i for step in _drawn(list(range(1, 31)), settings) for batch in step for i in batch]
    assert sorted(drawn) == list(range(30))
    assert len(_drawn([1] * 30, TrainingSettings(num_train_epochs=0.5))) == 2


def test_batches_hold_examples_of_like_length() -> None:
    lengths = torch.randint(5, 200, (400,), generator=torch.Generator().manual_seed(3)).tolist()
    settings = TrainingSettings(per_device_train_batch_size=8, num_train_epochs=1.0)
    steps = _drawn(lengths, settings)
    padded = sum(max(lengths[i] for i in b) * len(b) for step in steps for b in step)
    assert padded < 1.15 * sum(lengths)
    firsts = [max(lengths[i] for i in step[0]) for step in steps[:WINDOW]]
    assert firsts != sorted(firsts), "the batches themselves are shuffled"


@pytest.mark.parametrize("examples", [3, 8, 30, 100, 600])
@pytest.mark.parametrize("wanted", [1, 7, 8, 30, 199, 1000])
def test_as_many_are_drawn_as_are_asked_for(examples: int, wanted: int) -> None:
    settings = TrainingSettings(per_device_train_batch_size=8, num_train_epochs=wanted / examples)
    batches = [batch for step in _drawn(list(range(1, 1 + examples)), settings) for batch in step]
    assert [len(batch) for batch in batches[:-1]] == [8] * (len(batches) - 1)
    assert sum(map(len, batches)) == wanted
    counts = Counter(index for batch in batches for index in batch)
    assert max(counts.values()) <= wanted // examples + 1
    if wanted >= examples:
        assert len(counts) == examples


def test_a_short_round_draws_every_example_alike() -> None:
    """Two of eight batches, whose examples are of very different lengths."""
    settings, lengths = (
        TrainingSettings(per_device_train_batch_size=4, max_steps=2),
        list(range(1, 33)),
    )
    counts = Counter(
        index
        for seed in range(2000)
        for step in _drawn(lengths, settings, seed)
        for index in step[0]
    )
    assert set(counts) == set(range(32))
    # Binomial, 2,000 draws of probability 1/4: five standard deviations are 97.
    assert all(abs(count - 500) < 97 for count in counts.values())


def test_a_short_round_reads_short_and_long_ones() -> None:
    settings, lengths = (
        TrainingSettings(per_device_train_batch_size=4, max_steps=2),
        list(range(1, 33)),
    )
    for seed in range(50):
        (one,), (other,) = _drawn(lengths, settings, seed)
        assert abs(sum(one) - sum(other)) == 4 * 16, "half of the examples lie between the two"


def test_clients_take_long_batches_at_the_same_steps() -> None:
    settings = TrainingSettings(per_device_train_batch_size=2, max_steps=40)
    lengths = torch.randint(5, 200, (80,), generator=torch.Generator().manual_seed(3)).tolist()
    one, other = (
        sample_batches(lengths, settings, RoundContext(0, 1, name)) for name in ("one", "other")
    )
    assert one != other
    longest = [[max(lengths[i] for i in step[0]) for step in drawn] for drawn in (one, other)]
    assert torch.corrcoef(torch.tensor(longest, dtype=torch.float))[0, 1] > 0.95


def test_draws_depend_on_the_seed_alone() -> None:
    settings = TrainingSettings(max_steps=3)
    assert _drawn([1] * 50, settings, 1) == _drawn([1] * 50, settings, 1)
    assert _drawn([1] * 50, settings, 1) != _drawn([1] * 50, settings, 2)


@pytest.mark.parametrize(
    ("kind", "warmup", "expected"),
    [
        ("constant", 0.0, [1.0, 1.0, 1.0]),
        ("linear", 0.0, [1.0, 0.5, 0.25]),
        ("linear", 0.5, [0.0, 1.0, 0.5]),
        ("cosine", 0.0, [1.0, 0.5, 0.1464466]),
    ],
)
def test_schedule(kind: str, warmup: float, expected: list[float]) -> None:
    settings = TrainingSettings(learning_rate=1.0, lr_scheduler_type=kind, warmup_ratio=warmup)
    assert [settings.rate(p) for p in (0.0, 0.5, 0.75)] == pytest.approx(expected)


@pytest.mark.parametrize(("warmup", "share"), [(3, 0.3), (0.3, 0.3), (10, 1.0), (500, 1.0)])
def test_warmup_in_steps_is_a_share_of_the_steps_of_all_rounds(warmup: float, share: float) -> None:
    settings = TrainingSettings(learning_rate=1.0, lr_scheduler_type="linear", warmup_steps=warmup)
    by_ratio = [
        p / share if p < share else 1 - (p - share) / (1 - share) for p in (0.0, 0.1, 0.3, 0.6, 0.9)
    ]
    if warmup == 500:  # the rate is still rising when the run ends
        by_ratio = [10 * p / 10 for p in (0.0, 0.1, 0.3, 0.6, 0.9)]
    assert [settings.rate(p, 10) for p in (0.0, 0.1, 0.3, 0.6, 0.9)] == pytest.approx(by_ratio)


def test_warmup_by_steps_and_by_a_ratio_is_refused() -> None:
    with pytest.raises(ValueError, match=r"both warmup_steps: 3 and warmup_ratio: 0\.1; leave one"):
        TrainingSettings(warmup_steps=3, warmup_ratio=0.1)
