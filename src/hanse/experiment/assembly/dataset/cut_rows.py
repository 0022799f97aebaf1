"""Remarks on rows that max_length cuts or divides, or a chat template cuts, for each model."""

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import reduce
from operator import or_

import numpy as np
from numpy.typing import NDArray

from hanse.data import packed
from hanse.data.example import Example, Lost
from hanse.experiment.assembly.dataset.client_examples import PUBLIC, Reader
from hanse.experiment.schema import Experiment
from hanse.learners.adapted_model import AdaptedModel

LOSSES = {
    Lost.TURNS: "earlier turns",
    Lost.SYSTEM: "the end of the system turn",
    Lost.PROMPT: "the beginning of what is asked",
    Lost.TEXT: "the end of the text",
    Lost.ANSWER: "the end of the answer, without which the model does not learn to stop",
}
CUT = reduce(or_, LOSSES)
TITLES = {
    "train": "training",
    "public": "public",
    "triggers": "trigger",
}  # of splits; all others are held out

Examples = Mapping[Reader, Mapping[str, Sequence[Example]]]


@dataclass(frozen=True)
class Limits:
    """The settings by which a model reads rows. max_length: in tokens. long_texts: as in `model`.

    section: of these settings in the experiment.
    """

    section: str
    max_length: int
    long_texts: str


def reading_limits(
    readers: Iterable[Reader],
    experiment: Experiment,
    holders: Mapping[str, tuple[Experiment, AdaptedModel]],
) -> dict[Reader, Limits]:
    """The settings by which each model reads; clients who read as the first of them share its own.

    holders: the server, if it reads, and the clients, each with its experiment and its learner.
    """
    limits, known = dict[Reader, Limits](), dict[tuple[str, int, str], Limits]()
    for reader in sorted(readers, key=lambda one: holders[one.holder][0] is not experiment):
        own, learner = holders[reader.holder]
        model = own.models[reader.name] if reader.name else own.model
        backbone = (learner.models[reader.name] if reader.name else learner).backbone
        length = backbone.max_length(model.max_length)
        place = "" if own is experiment else f"clients.{reader.holder}."
        section = f"{place}models.{reader.name}" if reader.name else f"{place}model"
        entry = Limits(section, length, model.long_texts)
        limits[reader] = known.setdefault((reader.name, length, model.long_texts), entry)
    return limits


def cut(examples: Examples, limits: Mapping[Reader, Limits]) -> Iterator[str]:
    """Remarks on rows that max_length cuts or divides, or a chat template cuts, by their use."""
    groups = defaultdict[Limits, list[Reader]](list)
    for reader, own in limits.items():
        groups[own].append(reader)
    for own, readers in groups.items():
        for title in ("training", "held-out", PUBLIC):
            chosen = {
                id(split_examples): split_examples  # public ones may be those of many holders
                for reader in readers
                for split, split_examples in examples[reader].items()
                if TITLES.get(split, "held-out") == title
            }
            yield from _of_split(list(chosen.values()), title, own)


def _of_split(lists: Sequence[Sequence[Example]], title: str, own: Limits) -> Iterator[str]:
    """Remarks on all examples of one use. title: the use. own: the settings they were read by."""
    lost = np.concatenate([np.zeros(0, np.uint8), *map(packed.lost, lists)])
    yield from _divided(lost, title, own.section, own.max_length)
    if count := _count(lost, CUT):
        losses = [
            f"{_count(lost, part):,} lose {LOSSES[part]}" for part in LOSSES if _count(lost, part)
        ]
        advice = ""
        if own.long_texts == "cut" and _count(lost, Lost.TEXT):
            advice = f"; {own.section}.long_texts: windows reads texts without a label whole"
        yield (
            f"{own.section}.max_length ({own.max_length:,}) cuts {count:,} of {len(lost):,} "
            f"{title} rows and leaves out {_missing(lists)}: {', '.join(losses)}{advice}."
        )


def _divided(lost: NDArray[np.uint8], title: str, section: str, max_length: int) -> Iterator[str]:
    """Remarks on examples that are windows, or that lack the text beside a tool call.

    lost: the parts that each example lacks. title: of the split. section: of the model's settings.
    """
    if windows := _count(lost, Lost.REST):
        yield (
            f"{windows:,} of {len(lost):,} {title} examples are windows of texts of more than "
            f"{max_length:,} tokens ({section}.max_length), which are read whole; with "
            f"{section}.long_texts: cut, only the beginning of each is read."
        )
    if beside := _count(lost, Lost.BESIDE_CALL):
        yield (
            f"the chat template leaves out the text beside a tool call in {beside:,} of "
            f"{len(lost):,} {title} rows; write it as a turn of its own, or take a model whose "
            "template has both, such as Qwen2.5."
        )


def _count(lost: NDArray[np.uint8], parts: Lost) -> int:
    """The number of examples that lack one of these parts or more."""
    return int(np.count_nonzero(lost & np.uint8(parts)))


def _missing(lists: Iterable[Sequence[Example]]) -> str:
    """The number of tokens that examples lack, of all tokens of their rows, as a phrase."""
    missing = sum(map(packed.missing, lists))
    tokens = missing + sum(sum(packed.lengths(examples)) for examples in lists)
    share = f"{100 * missing / tokens:.1f} %" if missing >= tokens / 1000 else "less than 0.1 %"
    return f"{missing:,} of {tokens:,} tokens ({share})"
