"""Many examples in a few arrays: a few bytes for each token, where tuples take about fifty."""

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, overload

import numpy as np
from numpy.typing import NDArray

from hanse.data.example import IGNORED, Example, Lost
from hanse.tensors import json_text

Choices = tuple[tuple[int, ...], ...]
Numbers = NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class Packed:
    """Examples behind each other in arrays.

    ids: (tokens,) of all examples, in the smallest type that holds them.
    starts: (examples + 1,) the place in `ids` where each example begins, and the end of the last.
    learned: (spans, 2) begin and end in `ids` of each span of learned tokens, in order.
    choice, prompt, lost, missing, rejected: (examples,) as in `Example`.
    verdict: (examples,) the same; not a number for an example without one.
    text, cuts: (bytes,) all answers as UTF-8, and (examples + 1,) the place where each begins.
    tags: (tokens,) of all examples; empty if the words are not tagged.
    choices, classes: the same for all examples; empty if they have none.
    """

    ids: NDArray[Any]
    starts: Numbers
    learned: Numbers
    choice: NDArray[np.int32]
    prompt: NDArray[np.int32]
    text: NDArray[np.uint8]
    cuts: Numbers
    tags: NDArray[np.int32]
    lost: NDArray[np.uint8]
    missing: NDArray[np.int32]
    rejected: NDArray[np.int32]
    verdict: NDArray[np.float64]
    choices: Choices = ()
    classes: tuple[str, ...] = ()

    def __len__(self) -> int:
        return len(self.choice)

    def example(self, index: int) -> Example:
        """One example, as it was before it was packed."""
        start, stop = self.starts[index : index + 2]
        ids = tuple(self.ids[start:stop].tolist())
        labels = [IGNORED] * len(ids)
        verdict = float(self.verdict[index])
        first, last = np.searchsorted(self.learned[:, 0], (start, stop))
        for begin, end in (self.learned[first:last] - start).tolist():
            labels[begin:end] = ids[begin:end]
        return Example(
            ids=ids,
            labels=tuple(labels),
            choices=self.choices,
            choice=int(self.choice[index]),
            prompt=int(self.prompt[index]),
            answer=self.text[slice(*self.cuts[index : index + 2])].tobytes().decode(),
            tags=tuple(self.tags[start:stop].tolist()),
            classes=self.classes,
            lost=Lost(int(self.lost[index])),
            missing=int(self.missing[index]),
            rejected=int(self.rejected[index]),
            verdict=None if math.isnan(verdict) else verdict,
        )

    def arrays(self) -> dict[str, NDArray[Any]]:
        """All fields as arrays, for a file."""
        names = ("choices", "classes")
        texts = {n: np.frombuffer(json.dumps(getattr(self, n)).encode(), np.uint8) for n in names}
        return {**vars(self), **texts}

    @staticmethod
    def of(arrays: Mapping[str, NDArray[Any]]) -> "Packed":
        """The packed examples of such arrays: the inverse of `arrays`."""
        values: dict[str, Any] = dict(arrays)
        choices, classes = (
            json_text.parse(values.pop(n).tobytes()) for n in ("choices", "classes")
        )
        return Packed(**values, choices=tuple(map(tuple, choices)), classes=tuple(classes))


@dataclass(frozen=True, eq=False, slots=True)
class Examples(Sequence[Example]):
    """Some packed examples by their places; each is unpacked when it is asked for."""

    packed: Packed
    places: NDArray[np.int32]

    def __len__(self) -> int:
        return len(self.places)

    @overload
    def __getitem__(self, index: int) -> Example: ...
    @overload
    def __getitem__(self, index: slice) -> "Examples": ...
    def __getitem__(self, index: int | slice) -> "Example | Examples":
        if isinstance(index, slice):
            return Examples(self.packed, self.places[index])
        return self.packed.example(int(self.places[index]))

    @property
    def lengths(self) -> list[int]:
        """The number of tokens of each example."""
        starts = self.packed.starts
        sizes: list[int] = (starts[self.places + 1] - starts[self.places]).tolist()
        return sizes


def lengths(examples: Sequence[Any]) -> list[int]:
    """The number of tokens of each example; packed ones are not unpacked."""
    return examples.lengths if isinstance(examples, Examples) else list(map(len, examples))


def lost(examples: Sequence[Any]) -> NDArray[np.uint8]:
    """The parts that each example lacks; packed ones are not unpacked."""
    if isinstance(examples, Examples):
        lacking: NDArray[np.uint8] = examples.packed.lost[examples.places]
        return lacking
    return np.array([example.lost for example in examples], np.uint8)


def missing(examples: Sequence[Any]) -> int:
    """The number of tokens that all examples lack; packed ones are not unpacked."""
    if isinstance(examples, Examples):
        return int(examples.packed.missing[examples.places].sum(dtype=np.int64))
    return sum(example.missing for example in examples)


def pack(examples: Sequence[Example]) -> Packed:
    """Pack examples into arrays; raises ValueError if their choices or classes differ."""
    choices, classes = _shared({(example.choices, example.classes) for example in examples})
    ids = np.array([token for example in examples for token in example.ids], np.uint32)
    labels = np.array([label for example in examples for label in example.labels], np.int64)
    texts = [example.answer.encode() for example in examples]
    starts = _ends(list(map(len, examples)))
    return Packed(
        ids=ids.astype(np.min_scalar_type(ids.max(initial=0))),
        starts=starts,
        learned=_spans(labels != IGNORED, starts),
        choice=np.array([example.choice for example in examples], np.int32),
        prompt=np.array([example.prompt for example in examples], np.int32),
        text=np.frombuffer(b"".join(texts), np.uint8),
        cuts=_ends(list(map(len, texts))),
        tags=np.array([tag for example in examples for tag in example.tags], np.int32),
        lost=np.array([example.lost for example in examples], np.uint8),
        missing=np.array([example.missing for example in examples], np.int32),
        rejected=np.array([example.rejected for example in examples], np.int32),
        verdict=np.array([example.verdict for example in examples], np.float64),
        choices=choices,
        classes=classes,
    )


def join(parts: Sequence[Packed]) -> Packed:
    """Join packed examples, at least one part; raises ValueError if choices or classes differ."""
    choices, classes = _shared({(part.choices, part.classes) for part in parts if len(part)})
    tokens = _ends([len(part.ids) for part in parts])
    letters = _ends([len(part.text) for part in parts])
    starts = [part.starts[:-1] + start for part, start in zip(parts, tokens, strict=False)]
    cuts = [part.cuts[:-1] + start for part, start in zip(parts, letters, strict=False)]
    learned = [part.learned + start for part, start in zip(parts, tokens, strict=False)]
    names = ("ids", "choice", "prompt", "text", "tags", "lost", "missing", "rejected", "verdict")
    joined = {name: np.concatenate([getattr(part, name) for part in parts]) for name in names}
    return Packed(
        **joined,
        starts=np.concatenate([*starts, tokens[-1:]]),
        learned=np.concatenate(learned),
        cuts=np.concatenate([*cuts, letters[-1:]]),
        choices=choices,
        classes=classes,
    )


def _shared(pairs: set[tuple[Choices, tuple[str, ...]]]) -> tuple[Choices, tuple[str, ...]]:
    """The one pair of choices and classes that all examples have."""
    if len(pairs) > 1:
        raise ValueError("examples with different choices or classes cannot be packed together")
    return pairs.pop() if pairs else ((), ())


def _ends(sizes: Sequence[int]) -> Numbers:
    """(sizes + 1,) the begin of each of consecutive pieces, and the end of the last."""
    return np.cumsum([0, *sizes], dtype=np.int64)


def _spans(flags: NDArray[np.bool_], starts: Numbers) -> Numbers:
    """(spans, 2) begin and end of each run of set flags; a run ends with its example."""
    edges = np.zeros(len(flags) + 1, np.bool_)
    edges[starts] = True
    edges[1:-1] |= flags[1:] != flags[:-1]
    places = np.flatnonzero(edges)  # between two of them all flags are equal
    begins = places[:-1][flags[places[:-1]]]
    ends = places[1:][flags[places[:-1]]]
    return np.stack([begins, ends], axis=1)
