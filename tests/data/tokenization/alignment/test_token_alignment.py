"""Places where two tokenizers have the same token, and the logits that belong to a label."""

import numpy as np

from hanse.data.example import IGNORED, Example
from hanse.data.tokenization.alignment.token_alignment import TokenAlignment
from hanse.data.tokenization.alignment.token_texts import Vocabulary, of_tokens
from hanse.data.tokenization.alignment.vocabulary_map import vocabulary_map

SMALL = of_tokens(["<s>", "Ġwe", "Ġutil", "ize", "Ġit", "we", "Ġcolour"], {"eos": 0})
LARGE = of_tokens(["▁we", "▁utilize", "▁it", "</s>", "▁color"], {"eos": 3})
WE, UTIL, IZE, IT, END = 1, 2, 3, 4, 0


def _alignment(source: Vocabulary = SMALL, target: Vocabulary = LARGE) -> TokenAlignment:
    return TokenAlignment(source, target, vocabulary_map(source, target))


def _example(ids: list[int], front: int = 1) -> Example:
    return Example(tuple(ids), (*[IGNORED] * front, *ids[front:]))


def test_a_place_matches_one_token_that_corresponds() -> None:
    small, large = [WE, UTIL, IZE, IT, END], [0, 1, 2, 3]
    assert _alignment().places([small], [large])[0].tolist() == [0, -1, 3, 4]
    assert _alignment(LARGE, SMALL).places([large], [small])[0].tolist() == [0, 1, -1, 2, 3]


def test_spaces_and_nearest_tokens_correspond() -> None:
    """A first word without a space, and a spelling that is the other's counterpart."""
    assert _alignment().places([[5, 6]], [[0, 4]])[0].tolist() == [0, 1]


def test_equal_tokenizers_match_everywhere() -> None:
    texts = [[WE, UTIL, IZE, IT, END], [], [END, END, 6]]
    for ids, places in zip(texts, _alignment(SMALL, SMALL).places(texts, texts), strict=True):
        assert places.tolist() == list(range(len(ids)))
    cut = _alignment(SMALL, SMALL).places([[WE, UTIL, IZE]], [[WE, UTIL]])
    assert cut[0].tolist() == [0, -1], "its last token is aligned with two"


def test_empty_texts_match_nowhere() -> None:
    places = _alignment().places([[], [WE]], [[0], []])
    assert [part.tolist() for part in places] == [[-1], []]


def test_rows_of_labels_are_counted_over_all_examples() -> None:
    source = [_example([WE, UTIL, IZE, IT, END]), _example([WE, IT, END], front=2)]
    target = [_example([0, 1, 2, 3]), _example([0, 2, 3])]
    rows = _alignment().label_rows(source, target)
    # utilize is two tokens, and the second "it" is not labelled at the source.
    assert rows.tolist() == [-1, 2, 3, -1, 4]
    assert rows.dtype == np.int32
    assert _alignment().label_rows([], []).shape == (0,)


def test_labels_of_equal_tokenizers_have_their_own_rows() -> None:
    examples = [_example([WE, UTIL, IZE, IT, END]), _example([END]), _example([WE, IT], front=0)]
    rows = _alignment(SMALL, SMALL).label_rows(examples, examples)
    np.testing.assert_array_equal(rows, np.arange(6))
