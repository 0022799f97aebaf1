"""Places in texts at which two models with different tokenizers predict the same token."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hanse.data.example import IGNORED, Example
from hanse.data.tokenization.alignment.sequences import align
from hanse.data.tokenization.alignment.token_texts import Vocabulary, of_tokenizer
from hanse.data.tokenization.alignment.vocabulary_map import NONE, Ids, cached_map


@dataclass(frozen=True, eq=False)
class TokenAlignment:
    """From the tokens of one model, the source, to those of another one, the target.

    mapping: the target's token for each of the source's, or NONE; see `vocabulary_map`.
    """

    source: Vocabulary
    target: Vocabulary
    mapping: Ids

    def places(
        self, source: Sequence[Sequence[int]], target: Sequence[Sequence[int]]
    ) -> list[NDArray[np.int32]]:
        """For each token of the target's tokenization of each text, its place in the source's.

        source, target: the ids of the same texts. NONE (-1) where several of the source's tokens,
        or one that does not correspond, are aligned with the token: tokens correspond if one is the
        other's counterpart in `mapping`, or if they are equal but for spaces (the reference code of
        FedMKT, which forgives spaces at a text's beginning only).
        """
        same = self.source == self.target
        result = [np.arange(len(ids), dtype=np.int32) for ids in target]
        open_texts = [
            n
            for n, (one, other) in enumerate(zip(source, target, strict=True))
            if not same or tuple(one) != tuple(other)
        ]
        paths = align(
            [[self.source.texts[token] for token in source[n]] for n in open_texts],
            [[self.target.texts[token] for token in target[n]] for n in open_texts],
        )
        for n, path in zip(open_texts, paths, strict=True):
            result[n] = self._corresponding(path, source[n], target[n])
        return result

    def _corresponding(
        self, path: NDArray[np.int32], source: Sequence[int], target: Sequence[int]
    ) -> NDArray[np.int32]:
        """The places of one text: (len(target),)."""
        result = np.full(len(target), NONE, np.int32)
        aligned = np.bincount(path[:, 1], minlength=len(target))
        for place, at in path[aligned[path[:, 1]] == 1].tolist():
            one, other = source[place], target[at]
            if self.mapping[one] == other or self._equal(one, other):
                result[at] = place
        return result

    def _equal(self, one: int, other: int) -> bool:
        text = self.source.unspaced[one]
        return bool(text) and text == self.target.unspaced[other]

    def label_rows(self, source: Sequence[Example], target: Sequence[Example]) -> Ids:
        """For each label of the target's examples, the source's logits of the same token.

        source, target: examples of the same texts in the same order. Labels are counted in the
        order of the examples and of their tokens, as are rows of logits; NONE (-1) for a label
        whose token the source does not predict as one token, or has no label of.
        """
        places = self.places([one.ids for one in source], [one.ids for one in target])
        rows, before = [], 0
        for one, other, own in zip(source, target, places, strict=True):
            labelled = np.array(one.labels, np.int64) != IGNORED
            numbers = np.where(labelled, before + np.cumsum(labelled) - 1, NONE)
            before += int(labelled.sum())
            wanted = own[np.array(other.labels, np.int64) != IGNORED]
            found = np.full(len(wanted), NONE, np.int32)
            found[wanted != NONE] = numbers[wanted[wanted != NONE]]
            rows.append(found)
        return np.concatenate(rows) if rows else np.empty(0, np.int32)


def between(source: Any, target: Any, folder: Path) -> TokenAlignment:
    """The alignment of two Hugging Face tokenizers; folder: of the maps kept on disk."""
    one, other = of_tokenizer(source), of_tokenizer(target)
    return TokenAlignment(one, other, cached_map(one, other, folder))
