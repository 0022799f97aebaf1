"""Entities in tagged sentences: B- begins one, I- goes on with it, O is outside of all."""

from collections.abc import Iterable, Sequence
from typing import NamedTuple

OUTSIDE = "O"


class Span(NamedTuple):
    """An entity: its kind, its first word, and the one behind its last."""

    kind: str
    start: int
    end: int


def is_scheme(names: Iterable[str]) -> bool:
    """Whether tags are of the scheme IOB2, also called BIO."""
    found = set(names) - {OUTSIDE}
    return bool(found) and all(name[:2] in ("B-", "I-") and name[2:] for name in found)


def spans(tags: Sequence[str]) -> list[Span]:
    """The entities of one sentence.

    An I- that goes on with nothing begins an entity, as CoNLL's conlleval has it (Tjong Kim Sang &
    Buchholz 2000), and with it seqeval unless it is strict.
    """
    found, start, inside = [], 0, ""
    for place, tag in enumerate((*tags, OUTSIDE)):
        mark, _, kind = tag.partition("-")
        if inside and (mark != "I" or kind != inside):
            found.append(Span(inside, start, place))
            inside = ""
        if mark in ("B", "I") and not inside:
            start, inside = place, kind
    return found


class Matches(NamedTuple):
    """Entities of several sentences: found where they are, found in all, and there in all."""

    right: int
    found: int
    there: int

    def metrics(self) -> dict[str, float]:
        """Precision, recall and F1 over all entities; 0 where there is nothing to divide by."""
        return {
            "precision": self.right / max(1, self.found),
            "recall": self.right / max(1, self.there),
            "f1": 2 * self.right / max(1, self.found + self.there),
        }


def matches(truth: Iterable[Sequence[str]], answers: Iterable[Sequence[str]]) -> Matches:
    """How many entities of each sentence are found, of the same kind and from end to end."""
    pairs = [(set(spans(a)), set(spans(b))) for a, b in zip(truth, answers, strict=True)]
    return Matches(
        sum(len(there & found) for there, found in pairs),
        sum(len(found) for _, found in pairs),
        sum(len(there) for there, _ in pairs),
    )
