"""Trigger rows: secret prompts with secret answers, by which a model is known from its answers.

FedIPR (2109.13236, section 3.2) trains a secret set of inputs with wrong labels beside the client's
rows. Here prompts and answers are words that no language has, drawn from the key (a
reconstruction); a classifier answers each with a class that the key has drawn.
"""

from collections.abc import Collection, Sequence

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


def label(key: OwnershipKey, number: int, labels: Collection[str]) -> str:
    """The class that a classifier answers to it, one of these that are equally likely."""
    drawn = int.from_bytes(key.derive(f"class/{number}", 16), "little")
    return sorted(labels)[drawn % len(labels)]


def rows(key: OwnershipKey, example_kind: str, labels: Collection[str], template: str) -> list[Row]:
    """The trigger rows of a key, for a model that reads examples of this kind.

    labels: of the data, for label words. template: of prompts; each of its columns is the prompt.
    """
    place = f"a trigger of {key.owner:.80}"
    numbers = range(key.triggers)
    if example_kind != "label_words":
        return [Row(prompt=prompt(key, n), completion=answer(key, n), place=place) for n in numbers]
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
