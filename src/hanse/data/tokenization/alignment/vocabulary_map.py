"""For each token of one vocabulary, the token of another one with the least edit distance.

This is the minimum edit distance of FedMKT (2406.02224), after FuseLLM (2401.10491). Its reference
code leaves ties to the order of a dictionary; here a rule decides them.
"""

import io
import logging
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from hanse import atomic_files
from hanse.data.tokenization.alignment.edit_distance import EditDistance, codes, padded_codes
from hanse.data.tokenization.alignment.token_texts import Vocabulary

log = logging.getLogger(__name__)

Ids = NDArray[np.int32]

NONE = -1  # in a map: the token has no counterpart
_RULE = "1"  # of the maps that are kept on disk; a new rule makes new ones


def vocabulary_map(source: Vocabulary, target: Vocabulary) -> Ids:
    """The target's token for each of the source's: (len(source),) int32.

    Equal vocabularies give the identity. Else a token with an equal text, the lowest id first, else
    of the tokens with the least edit distance that with the longest common beginning, else of those
    the lowest id. Special tokens only have counterparts of equal text or role: NONE (-1) without
    one, and for an id without a token. A reconstruction where the paper gives no rule.
    """
    if source == target:
        return np.arange(len(source), dtype=np.int32)
    equal: dict[str, int] = {}
    for index, text in enumerate(target.texts):
        equal.setdefault(text, index)
    equal.pop("", None)
    result = np.array([equal.get(text, NONE) for text in source.texts], np.int32)
    missing = [
        index
        for index in np.flatnonzero(result == NONE).tolist()
        if source.texts[index] and index not in source.special
    ]
    result[missing] = _nearest([source.texts[index] for index in missing], target)
    return result


def _nearest(texts: list[str], target: Vocabulary) -> Ids:
    """The ordinary token of least edit distance for each text."""
    ids = [n for n, text in enumerate(target.texts) if text and n not in target.special]
    candidates = [target.texts[index] for index in ids]
    if not candidates:
        return np.full(len(texts), NONE, np.int32)
    distance, letters = EditDistance(candidates), padded_codes(candidates)
    found = np.empty(len(texts), np.intp)
    for n, text in enumerate(texts):
        distances = distance.to(text)
        ties = np.flatnonzero(distances == distances.min())
        if len(ties) > 1:
            own = codes(text)[: letters.shape[1]]
            same = letters[ties, : len(own)] == own
            common = np.logical_and.accumulate(same, axis=1).sum(axis=1)
            ties = ties[common == common.max()]
        found[n] = ties[0]
    return np.array(ids, np.int32)[found]


def cached_map(source: Vocabulary, target: Vocabulary, folder: Path) -> Ids:
    """The map of two vocabularies, kept in a folder from its first use on.

    folder: of all maps; a file's name has the hash of both vocabularies. Raises UserError for a
    file that may not be read.
    """
    file = folder / f"{_RULE}{source.digest[:31]}{target.digest[:32]}.map"
    try:
        content = atomic_files.find_hashed(file)
    except atomic_files.DamagedError as error:
        log.warning("%s; the map of the vocabularies is made again", error)
        content = None
    if content is not None:
        kept: Ids = np.load(io.BytesIO(content), allow_pickle=False)
        return kept
    result, buffer = vocabulary_map(source, target), io.BytesIO()
    np.save(buffer, result)
    atomic_files.write_hashed(file, buffer.getvalue())
    atomic_files.sweep(folder, age=atomic_files.DAY)
    return result
