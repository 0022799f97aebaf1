"""The texts of a vocabulary's tokens, written alike for all kinds of tokenizers.

A word's beginning is a space before it, whichever of "Ġ", "▁" and "##" the vocabulary uses, and
tokens of bytes are the characters that the bytes stand for. A byte that is only a part of a
character is a lone surrogate, as in Python's error handler "surrogateescape".
"""

import hashlib
import re
import string
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

BYTES, WORDS, PIECES = "Ġ", "▁", "##"  # of byte-level BPE, SentencePiece and WordPiece
# Roles of special tokens, in the order in which a token with several of them is named.
ROLES = ("eos", "bos", "pad", "unk", "cls", "sep", "mask")

_BYTE = re.compile("<0x([0-9A-F]{2})>")  # SentencePiece's token of one byte
_PUNCTUATION = frozenset(string.punctuation)
# Byte-level BPE writes printable bytes as themselves and the others as letters from 256 on.
_PRINTABLE = (*range(33, 127), *range(161, 173), *range(174, 256))
_OTHERS = (byte for byte in range(256) if byte not in _PRINTABLE)
_ALPHABET = {chr(byte): byte for byte in _PRINTABLE} | {
    chr(256 + place): byte for place, byte in enumerate(_OTHERS)
}


@dataclass(frozen=True)
class Vocabulary:
    """The texts of all tokens, by id.

    texts: "" for an id without a token. A special token with a role has the role's name, such as
        "<eos>", so that the ends of texts are equal whatever the tokenizers call them.
    special: ids of tokens that no text has.
    """

    texts: tuple[str, ...]
    special: frozenset[int] = frozenset()

    def __len__(self) -> int:
        return len(self.texts)

    @cached_property
    def digest(self) -> str:
        """The SHA-256 of the content as hex."""
        content = repr((self.texts, sorted(self.special)))
        return hashlib.sha256(content.encode()).hexdigest()

    @cached_property
    def unspaced(self) -> tuple[str, ...]:
        """The texts without spaces, by which two tokenizations of a text are compared."""
        return tuple(text.replace(" ", "") for text in self.texts)


def of_tokenizer(tokenizer: Any) -> Vocabulary:
    """The vocabulary of a Hugging Face tokenizer, with the tokens that were added to it."""
    ids = tokenizer.get_vocab()
    tokens = [""] * (max(ids.values(), default=-1) + 1)
    for token, index in ids.items():
        tokens[index] = token
    # The role that is named last is the first of ROLES.
    found = {getattr(tokenizer, f"{role}_token_id", None): role for role in reversed(ROLES)}
    roles = {role: index for index, role in found.items() if index is not None}
    return of_tokens(tokens, roles, {*tokenizer.all_special_ids}, {*tokenizer.added_tokens_decoder})


def of_tokens(
    tokens: Sequence[str],
    roles: Mapping[str, int] | None = None,
    special: Collection[int] = (),
    added: Collection[int] = (),
) -> Vocabulary:
    """The vocabulary of tokens as a tokenizer's file has them, by id.

    The kind of tokenizer is that whose marker begins the most tokens; without any, each token is
    its own text.
    roles: the id of each role of ROLES that the tokenizer has.
    special: ids of tokens that no text has. added: ids of tokens that are written as they are.
    """
    verbatim = {*special, *added, *(roles or {}).values()}
    count = Counter(
        marker
        for index, token in enumerate(tokens)
        for marker in (BYTES, WORDS, PIECES)
        if index not in verbatim and token.startswith(marker)
    )
    marker = max(count, key=lambda one: count[one], default="")
    known = frozenset(tokens)
    texts = [
        token if index in verbatim else _text(token, marker, known)
        for index, token in enumerate(tokens)
    ]
    for role, index in (roles or {}).items():
        texts[index] = f"<{role}>"
    return Vocabulary(tuple(texts), frozenset({*special, *(roles or {}).values()}))


def _text(token: str, marker: str, known: Collection[str]) -> str:
    """The text of an ordinary token."""
    if marker == BYTES and all(letter in _ALPHABET for letter in token):
        return bytes(_ALPHABET[letter] for letter in token).decode(errors="surrogateescape")
    if marker == WORDS:
        return _byte(token, known) or token.replace(WORDS, " ")
    if marker == PIECES and token.startswith(PIECES):
        return token.removeprefix(PIECES)
    if marker == PIECES and token and token not in _PUNCTUATION:  # it is always a word of its own
        return " " + token
    return token


def _byte(token: str, known: Collection[str]) -> str:
    """The text of SentencePiece's token of one byte; "" for another one.

    A byte that the vocabulary also has as a letter is never used, and keeps its name.
    """
    match = _BYTE.fullmatch(token)
    text = bytes.fromhex(match[1]).decode(errors="surrogateescape") if match else ""
    return "" if text.replace(" ", WORDS) in known else text
