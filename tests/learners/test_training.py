"""Which examples are drawn, and how the learning rate goes over the rounds."""

from collections import Counter

import pytest
import torch

from hanse.learners.training import WINDOW, Training, draw


def _drawn(lengths: list[int], settings: Training, seed: int = 0) -> list[list[list[int]]]:
    return draw(lengths, settings, torch.Generator().manual_seed(seed))


def test_steps_and_sizes() -> None:
    settings = Training(per_device_train_batch_size=4, gradient_accumulation_steps=3, max_steps=5)
    steps = _drawn([1] * 1000, settings)
    assert [[len(batch) for batch in step] for step in steps] == [[4, 4, 4]] * 5


def test_every_example_once_before_any_twice() -> None:
    settings = Training(per_device_train_batch_size=4, max_steps=8)
    counts = Counter(i for step in _drawn([1] * 20, settings) for batch in step for i in batch)
    assert sorted(counts.values()) == [1] * 8 + [2] * 12


def test_an_epoch_is_every_example_once() -> None:
    settings = Training(per_device_train_batch_size=8, num_train_epochs=1.0)
    drawn = [i for step in _drawn(list(range(1, 31)), settings) for batch in step for i in batch]
    assert sorted(drawn) == list(range(30))
    assert len(_drawn([1] * 30, Training(num_train_epochs=0.5))) == 2


def test_batches_hold_examples_of_like_length() -> None:
    lengths = torch.randint(5, 200, (400,), generator=torch.Generator().manual_seed(3)).tolist()
    settings = Training(per_device_train_batch_size=8, num_train_epochs=1.0)
    steps = _drawn(lengths, settings)
    padded = sum(max(lengths[i] for i in b) * len(b) for step in steps for b in step)
    assert padded < 1.15 * sum(lengths)
    firsts = [max(lengths[i] for i in step[0]) for step in steps[:WINDOW]]
    assert firsts != sorted(firsts), "the batches themselves are shuffled"


def test_draws_depend_on_the_seed_alone() -> None:
    settings = Training(max_steps=3)
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
    settings = Training(learning_rate=1.0, lr_scheduler_type=kind, warmup_ratio=warmup)
    assert [settings.rate(p) for p in (0.0, 0.5, 0.75)] == pytest.approx(expected)
