"""Texts that two models learn, compared by their letters whatever the tokenizers.

Tokenizers change capitals, accents, spaces and some punctuation. A text may be cut at its end, and
a conversation may lack its first turns.
"""

import re
import unicodedata
from collections.abc import Sequence
from itertools import product

from hanse.data.example import IGNORED, Example
from hanse.data.tokenization.alignment.token_texts import Vocabulary

_NO_BYTES = re.compile("[\ud800-\udc7f\udd00-\udfff]")  # surrogates that stand for nothing
UNKNOWN = "<unk>"  # the text of a token for what a vocabulary does not have


def first_difference(
    one: Vocabulary, source: Sequence[Example], two: Vocabulary, target: Sequence[Example]
) -> int | None:
    """The place of the first example whose text is not the same; None without any.

    one, two: the vocabularies of the ids of source and target, which are as many. A text has the
    tokens with labels. The shorter one must be the beginning or the end of the other, as far as
    both vocabularies know the letters.
    """
    for place, (mine, theirs) in enumerate(zip(source, target, strict=True)):
        if not _same(_learned(one, mine), _learned(two, theirs)):
            return place
    return None


def learned_text(vocabulary: Vocabulary, example: Example) -> str:
    """The text of an example's labels, for a message."""
    labels = [token for token in example.labels if token != IGNORED]
    return _whole("".join(vocabulary.texts[t] for t in labels if t not in vocabulary.special))


def _learned(vocabulary: Vocabulary, example: Example) -> list[str]:
    """The letters of the labels, with the first token, and then without it if it may have none.

    No model predicts the first token, so it may be a part of the text without a label.
    """
    tokens = [token for token in example.labels[1:] if token != IGNORED]
    without = _letters(vocabulary, tokens)
    if example.labels[1:2] == (IGNORED,):
        return [without]
    whole = _letters(vocabulary, [*example.ids[:1], *tokens])
    return [whole, without] if without else [whole]  # nothing would be like everything


def _letters(vocabulary: Vocabulary, tokens: Sequence[int]) -> str:
    """Letters and digits in small form, without accents, up to the first unknown one."""
    texts = []
    for token in tokens:
        if vocabulary.texts[token] == UNKNOWN:
            break
        if token not in vocabulary.special:
            texts.append(vocabulary.texts[token])
    text = unicodedata.normalize("NFKD", _whole("".join(texts)).casefold())
    return "".join(letter for letter in text if letter.isalnum())


def _whole(text: str) -> str:
    """The text without bytes that are a part of a character only."""
    return _NO_BYTES.sub("", text).encode(errors="surrogateescape").decode(errors="ignore")


def _same(one: Sequence[str], other: Sequence[str]) -> bool:
    """True if the shorter text is the beginning of the other, or, as a whole, its end."""
    pairs = [tuple(sorted(pair, key=len)) for pair in product(one, other)]
    short, long = pairs[0]
    return long.endswith(short) or any(b.startswith(a) for a, b in pairs)
