"""Texts of unequal tokenizers are the same ones; other texts, and other parts of one, are not."""

import pytest

from hanse.data.example import IGNORED, Example
from hanse.data.tokenization.alignment.same_texts import first_difference, learned_text
from hanse.data.tokenization.alignment.token_texts import Vocabulary

BOS = "<bos>"


def example(tokens: str, labels: int | None = None) -> tuple[Vocabulary, list[Example]]:
    """Tokens between bars, of which the last ones have labels; None: all of them."""
    texts = tokens.split("|")
    ids = tuple(range(len(texts)))
    kept = len(texts) if labels is None else labels
    learned = tuple(n if n >= len(ids) - kept else IGNORED for n in ids)
    vocabulary = Vocabulary(tuple(texts), frozenset(n for n in ids if texts[n] == BOS))
    return vocabulary, [Example(ids, learned)]


def same(one: str, other: str, labels: tuple[int | None, int | None] = (None, None)) -> bool:
    return first_difference(*example(one, labels[0]), *example(other, labels[1])) is None


@pytest.mark.parametrize(
    "other",
    [
        *("A great| film, 1999.", "A| gr|eat| film|,| 1999|.", f"{BOS}|A great| film,| 1999"),
        *(" a| great| film| ,| 1999| .", "A great| fi", "A great|<unk>|plot", "A|"),
    ],
)
def test_another_way_to_write_a_text_is_the_same_text(other: str) -> None:
    text = f"{BOS}|A| great| film|,| 1999|."
    assert same(text, other) and same(other, text)


def test_characters_of_several_bytes_and_accents_are_compared_as_letters() -> None:
    e_acute = "\udcc3|\udca9"  # as two tokens of bytes
    for other in (
        "caf\u00e9| au| lait",
        "caf|e|\u0301| au",
        "cafe| au| lait",
        "CAFE AU L|AIT|\udcc3",
    ):
        assert same(f"caf|{e_acute}| au| lait", other)
    assert not same(f"caf|{e_acute}| au| lait", "cafo| au| lait")
    assert same("a|\ud800|b", "a|b"), "what no tokenizer makes is no letter"


@pytest.mark.parametrize(
    "other", ["film|!| 1999| no", "A poor| film", f"{BOS}|film|, 199", "A great| plan"]
)
def test_other_texts_and_later_parts_of_a_text_are_other_ones(other: str) -> None:
    text = f"{BOS}|A| great| film|,| 1999|."
    assert not same(text, other) and not same(other, text)


def test_only_what_is_learned_is_compared() -> None:
    """Models may have chat templates of their own."""
    assert same("User:| good?|yes", "<|u|>| good| ?|y|es", (1, 2))
    assert not same("User:| good?|yes", "User:| good?|no", (1, 1))


def test_a_conversation_may_lack_its_first_turns() -> None:
    assert same("User:| good?|yes| why?|no|well", "User:| why|?|no|well", (3, 2))


def test_the_first_token_may_be_without_a_label() -> None:
    assert same("A| great| film", "A great| film|!", (2, 2))
    assert not same("A| great| film", "A poor| film|!", (2, 3))


def test_a_message_has_the_text_of_the_labels() -> None:
    vocabulary, [one] = example(f"{BOS}|A|\udcc3|\udca9| film")
    assert learned_text(vocabulary, one) == "A\u00e9 film"
