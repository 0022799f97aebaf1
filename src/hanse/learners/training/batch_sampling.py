"""The order in which a client draws its examples."""

import math
from collections.abc import Iterator, Sequence
from dataclasses import replace

import torch

from hanse.learners.training.settings import TrainingSettings
from hanse.randomness import RoundContext

WINDOW = 32  # batches within which examples are sorted by length, to spare padding


def sample_batches(
    sizes: Sequence[int], settings: TrainingSettings, context: RoundContext
) -> list[list[list[int]]]:
    """Which examples make up each micro-batch of each step: (steps, micro-batches, indices).

    Every example is drawn once before any is drawn again. Within a window of WINDOW batches they
    are sorted by length and cut into batches; a round that needs only some of these takes them at
    equal distances, so that it reads short and long ones as they come. Batches are shuffled, but
    in like order for all clients of a round: in a cohort, long ones then stand beside long ones.

    sizes: tokens of each example.
    """
    size, wanted = settings.per_device_train_batch_size, settings.seen(len(sizes))
    steps, micro = math.ceil(wanted / size), settings.gradient_accumulation_steps
    own = context.generator("examples")
    keys = torch.rand(steps, generator=replace(context, client="").generator("batches"))
    batches: list[list[int]] = []
    for window in _windows(len(sizes), WINDOW * size, size, own):
        if len(window) == size:
            window = window[: wanted - size * len(batches)]
        window.sort(key=lambda index: sizes[index])
        cut = [window[at : at + size] for at in range(0, len(window), size)]
        missing = steps - len(batches)
        if missing < len(cut):
            first = torch.rand((), generator=own).item()
            cut = [cut[int((place + first) * len(cut) / missing)] for place in range(missing)]
        ranks = keys[len(batches) : len(batches) + len(cut)].argsort().argsort()
        batches += [cut[rank] for rank in ranks.tolist()]
        if len(batches) == steps:
            break
    batches[-1] = batches[-1][: wanted - size * (steps - 1)]
    return [batches[at : at + micro] for at in range(0, steps, micro)]


def _windows(
    examples: int, longest: int, size: int, generator: torch.Generator
) -> Iterator[list[int]]:
    """Endless random passes over all examples, in pieces of whole batches.

    What is left of a pass, less than a batch, is filled up from the next one.
    """
    rest: list[int] = []
    while True:
        order = torch.randperm(examples, generator=generator).tolist()
        if rest:
            rest, order = rest + order[: size - len(rest)], order[size - len(rest) :]
            if len(rest) < size:
                continue
            yield rest
        whole = len(order) // size * size
        for start in range(0, whole, longest):
            yield order[start : min(start + longest, whole)]
        rest = order[whole:]
