"""The map has the least edit distance, by the rule for ties, and is kept on disk."""

import random
from itertools import takewhile
from pathlib import Path

import numpy as np
import pytest

from hanse.data.tokenization.alignment import vocabulary_map as module
from hanse.data.tokenization.alignment.token_texts import Vocabulary, of_tokens
from hanse.data.tokenization.alignment.vocabulary_map import cached_map, vocabulary_map
from recursions import levenshtein


def _drawn(draw: random.Random, alphabet: str, size: int) -> Vocabulary:
    texts = {"".join(draw.choices(alphabet, k=draw.randint(1, 20))) for _ in range(size)}
    return Vocabulary(tuple(draw.sample(sorted(texts), len(texts))))


def _by_the_rule(text: str, target: Vocabulary) -> int:
    def rank(index: int) -> tuple[int, int, int]:
        other = target.texts[index]
        common = sum(takewhile(bool, (a == b for a, b in zip(text, other, strict=False))))
        return levenshtein(text, other), -common, index

    return min(range(len(target)), key=rank)


@pytest.mark.parametrize("alphabet", ["ab", "abcde ", "aä中😀\udcc3"])
def test_every_token_gets_the_nearest_by_the_rule(alphabet: str) -> None:
    draw = random.Random(len(alphabet))
    source, target = _drawn(draw, alphabet, 60), _drawn(draw, alphabet, 40)
    expected = [_by_the_rule(text, target) for text in source.texts]
    assert vocabulary_map(source, target).tolist() == expected
    assert vocabulary_map(source, target).dtype == np.int32


def test_ties_go_to_the_longest_common_beginning_then_to_the_lowest_id() -> None:
    target = Vocabulary(("xtil", "utix", "utiy"))
    assert vocabulary_map(Vocabulary(("util",)), target).tolist() == [1]
    assert vocabulary_map(Vocabulary(("z",)), Vocabulary(("ab", "a", "b"))).tolist() == [1]


def test_equal_vocabularies_give_the_identity() -> None:
    vocabulary = of_tokens(["(", "##(", "the", "##ize", "", "[SEP]"], {"sep": 5})
    assert vocabulary_map(vocabulary, vocabulary).tolist() == [0, 1, 2, 3, 4, 5]


def test_equal_texts_match_whatever_the_marker_and_the_lowest_id_first() -> None:
    source = of_tokens(["Ġthe", "ize", "Ġutil", "("])
    target = of_tokens(["##ize", "util", "(", "##(", "the"])
    assert vocabulary_map(source, target).tolist() == [4, 0, 1, 2]


def test_special_tokens_only_have_counterparts_of_their_role_or_text() -> None:
    source = of_tokens(["<s>", "</s>", "<user>", "a", ""], {"bos": 0, "eos": 1}, special=[2])
    target = of_tokens(["<end>", "ab", "<user>", "<s"], {"eos": 0}, special=[2])
    assert vocabulary_map(source, target).tolist() == [-1, 0, 2, 1, -1]
    nothing = of_tokens(["<end>"], {"eos": 0})
    assert vocabulary_map(source, nothing).tolist() == [-1, 0, -1, -1, -1]
    assert vocabulary_map(Vocabulary(()), target).shape == (0,)


def test_the_map_is_kept_for_the_pair(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source, target = Vocabulary(("a", "bc")), Vocabulary(("bd", "e", "a"))
    first = cached_map(source, target, tmp_path / "maps")
    with monkeypatch.context() as patch:
        patch.setattr(module, "vocabulary_map", None)
        np.testing.assert_array_equal(cached_map(source, target, tmp_path / "maps"), first)
    assert first.tolist() == [2, 0]
    assert cached_map(target, source, tmp_path / "maps").tolist() == [1, 0, 0]
    assert len(list((tmp_path / "maps").iterdir())) == 2


def test_a_damaged_file_is_made_again(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    source, target = Vocabulary(("a", "bc")), Vocabulary(("bd", "e", "a"))
    first = cached_map(source, target, tmp_path)
    [file] = tmp_path.iterdir()
    content = file.read_bytes()
    file.write_bytes(content[:-1] + b"\1")
    np.testing.assert_array_equal(cached_map(source, target, tmp_path), first)
    assert "made again" in caplog.text
    assert file.read_bytes() == content
