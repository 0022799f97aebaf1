"""Entities in tagged sentences: B- begins one, I- continues it, O is outside of all."""

from collections.abc import Iterable, Sequence
from typing import NamedTuple

OUTSIDE = "O"


class Span(NamedTuple):
    """An entity: its kind, the index of its first word, and that behind its last word."""

    kind: str
    start: int
    end: int


def is_scheme(names: Iterable[str]) -> bool:
    """True if tags are of the scheme IOB2, also called BIO."""
    tags = set(names) - {OUTSIDE}
    return bool(tags) and all(tag[:2] in ("B-", "I-") and tag[2:] for tag in tags)


def spans(tags: Sequence[str]) -> list[Span]:
    """The entities of one sentence.

    An I- that continues no entity begins one, as in CoNLL's conlleval (Tjong Kim Sang & Buchholz
    2000) and in seqeval's default mode.
    """
    entities, start, inside = [], 0, ""
    for place, tag in enumerate((*tags, OUTSIDE)):
        mark, _, kind = tag.partition("-")
        if inside and (mark != "I" or kind != inside):
            entities.append(Span(inside, start, place))
            inside = ""
        if mark in ("B", "I") and not inside:
            start, inside = place, kind
    return entities


class Matches(NamedTuple):
    """Numbers of entities of several sentences: right ones, predicted ones, and true ones."""

    right: int
    predicted: int
    true: int

    def metrics(self) -> dict[str, float]:
        """Precision, recall and F1 over all entities; 0 if there are no entities."""
        return {
            "precision": self.right / max(1, self.predicted),
            "recall": self.right / max(1, self.true),
            "f1": 2 * self.right / max(1, self.predicted + self.true),
        }


def matches(truth: Iterable[Sequence[str]], answers: Iterable[Sequence[str]]) -> Matches:
    """Count the entities of all sentences; one is right if its kind and both its ends are."""
    pairs = [(set(spans(a)), set(spans(b))) for a, b in zip(truth, answers, strict=True)]
    return Matches(
        sum(len(true & predicted) for true, predicted in pairs),
        sum(len(predicted) for _, predicted in pairs),
        sum(len(true) for true, _ in pairs),
    )
