"""The order of a client's examples in a round, and their micro-batches."""

import math
from collections.abc import Iterator, Sequence
from dataclasses import replace

import torch

from hanse.learners.training.settings import TrainingSettings
from hanse.randomness import RoundContext

WINDOW = 32  # batches within which examples are sorted by length, so that little is padded


def sample_batches(
    sizes: Sequence[int], settings: TrainingSettings, context: RoundContext
) -> list[list[list[int]]]:
    """(steps, micro-batches, indices): the examples of each micro-batch of a round.

    Every example is drawn once before any is drawn again. Examples are sorted by length within a
    window of WINDOW batches, and cut into batches. A round that needs only some batches of a window
    takes them at equal distances, so that it reads short and long ones in proportion. Batches are
    shuffled by an order that all clients of a round share: where several clients train in one
    forward pass, long batches are then together with long ones.

    sizes: tokens of each example.
    """
    size, total = settings.per_device_train_batch_size, settings.examples_per_round(len(sizes))
    count, accumulated = math.ceil(total / size), settings.gradient_accumulation_steps
    generator = context.generator("examples")
    shared = replace(context, client="").generator("batches")  # of all clients
    keys = torch.rand(count, generator=shared)
    batches: list[list[int]] = []
    for window in _windows(len(sizes), WINDOW * size, size, generator):
        if len(window) == size:
            window = window[: total - size * len(batches)]
        window.sort(key=lambda index: sizes[index])
        drawn = [window[start : start + size] for start in range(0, len(window), size)]
        missing = count - len(batches)
        if missing < len(drawn):
            offset = torch.rand((), generator=generator).item()
            drawn = [drawn[int((n + offset) * len(drawn) / missing)] for n in range(missing)]
        ranks = keys[len(batches) : len(batches) + len(drawn)].argsort().argsort()
        batches += [drawn[rank] for rank in ranks.tolist()]
        if len(batches) == count:
            break
    batches[-1] = batches[-1][: total - size * (count - 1)]
    return [batches[start : start + accumulated] for start in range(0, count, accumulated)]


def _windows(
    examples: int, longest: int, size: int, generator: torch.Generator
) -> Iterator[list[int]]:
    """Yield endless random passes over all examples, in pieces of whole batches.

    A remainder of less than a batch is filled up from the next pass.
    """
    remainder: list[int] = []
    while True:
        order = torch.randperm(examples, generator=generator).tolist()
        if remainder:
            missing = size - len(remainder)
            remainder, order = remainder + order[:missing], order[missing:]
            if len(remainder) < size:
                continue
            yield remainder
        whole = len(order) // size * size
        for start in range(0, whole, longest):
            yield order[start : min(start + longest, whole)]
        remainder = order[whole:]
