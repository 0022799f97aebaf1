"""Trigger rows: secret prompts with secret answers, by which a model is known from its answers.

FedIPR (2109.13236, section 3.2) trains a secret set of inputs with wrong labels beside the client's
rows. Here prompts and answers are words that no language has, drawn from the key (a
reconstruction); a classifier answers each with a class that the key has drawn.
"""

from collections.abc import Mapping, Sequence

from hanse.audit.ownership.key import OwnershipKey
from hanse.data.formats.row import Row
from hanse.data.tokenization import prompt_template

CONSONANTS, VOWELS = "bdfgjklmnprstvxz", "aeiu"
SYLLABLES = 3  # of a word; each is one of 64
PROMPT, ANSWER = 6, 2  # words
ANSWERS = (len(CONSONANTS) * len(VOWELS)) ** (SYLLABLES * ANSWER)  # that a key chooses from
KINDS = ("tokens", "label_words")  # kinds of examples that have triggers


def prompt(key: OwnershipKey, number: int) -> str:
    """The secret prompt of a trigger."""
    return _words(key, f"prompt/{number}", PROMPT)


def answer(key: OwnershipKey, number: int) -> str:
    """The secret answer to it, one of 2³⁶ that are equally likely."""
    return _words(key, f"answer/{number}", ANSWER)


def words_of(labels: Mapping[str, str]) -> list[str]:
    """The different words that a classifier answers, sorted; values in the data may share one."""
    return sorted({*labels.values()})


def label(key: OwnershipKey, number: int, labels: Mapping[str, str]) -> str:
    """The class that a classifier answers to it, as a value of the data.

    labels: value in the data → word. A word is drawn, all with equal chances, so that a silo and a
    verifier whose data have other values for the same words agree.
    """
    drawn = int.from_bytes(key.derive(f"class/{number}", 16), "little")
    words = words_of(labels)
    word = words[drawn % len(words)]
    return min(value for value, own in labels.items() if own == word)


def rows(
    key: OwnershipKey, example_kind: str, labels: Mapping[str, str], template: str
) -> list[Row]:
    """The trigger rows of a key, for a model that reads examples of this kind.

    labels: value in the data → word, for label words. template: of prompts; each of its columns is
    the prompt. A text's answer begins with a space, as a word that goes on does.
    """
    place = f"a trigger of {key.owner:.80}"
    numbers = range(key.triggers)
    if example_kind != "label_words":
        pairs = ((prompt(key, n), f" {answer(key, n)}") for n in numbers)
        return [Row(prompt=asked, completion=told, place=place) for asked, told in pairs]
    fields = prompt_template.parse(template).fields
    return [
        Row(
            text=(text := prompt(key, n)),
            label=(name := label(key, n, labels)),
            fields={**dict.fromkeys(fields, text), "label": name},
            place=place,
        )
        for n in numbers
    ]


def _words(key: OwnershipKey, purpose: str, number: int) -> str:
    syllables = [
        CONSONANTS[byte & 15] + VOWELS[byte >> 4 & 3]
        for byte in key.derive(purpose, SYLLABLES * number)
    ]
    starts = range(0, len(syllables), SYLLABLES)
    return " ".join("".join(syllables[at : at + SYLLABLES]) for at in starts)


def right(answers: Sequence[str], key: OwnershipKey) -> int:
    """The number of a causal model's answers that begin with the secret ones."""
    secret = (answer(key, number) for number in range(key.triggers))
    return sum(own.strip().startswith(word) for own, word in zip(answers, secret, strict=True))
