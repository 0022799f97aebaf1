"""The labels of a classifier's outputs, matched by the names that the model has for them."""

import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from transformers.models.auto.modeling_auto import (
    MODEL_FOR_SEQUENCE_CLASSIFICATION_MAPPING_NAMES as OF_TEXTS,
)
from transformers.models.auto.modeling_auto import (
    MODEL_FOR_TOKEN_CLASSIFICATION_MAPPING_NAMES as OF_WORDS,
)

from hanse.learners.models import pretrained

CLASSIFIERS: Mapping[str, Mapping[str, Any]] = {"label_words": OF_TEXTS, "tags": OF_WORDS}
UNNAMED = re.compile(r"LABEL_(\d+)")  # transformers' names of outputs without a name

Labels = Mapping[str, str]  # label in the data → its word


def names(model: str, example_kind: str) -> list[str]:
    """A model's names of its outputs, in order; none if it is no classifier of such examples.

    example_kind: as objectives declare it: "label_words" for whole texts, "tags" for words.
    """
    config = pretrained.find(model).config
    if not set(config.architectures or ()) & set(CLASSIFIERS.get(example_kind, {}).values()):
        return []
    return [str(config.id2label[place]) for place in range(config.num_labels)]


def ordered(labels: Labels, known: Labels) -> dict[str, str] | None:
    """The labels in the order of outputs, with those that no row has; None if one has no output.

    known: the label in other data, and the word, of each output. Names match if they are equal, or
        equal but for case; LABEL_1 matches 1 if there are as many labels as outputs.
    """
    forms: list[Callable[[str], str]] = [str, str.casefold]
    forms += [_numbered] if len(labels) == len(known) else []
    for form in forms:
        for ours in (list(labels), list(labels.values())):
            for theirs in (list(known), list(known.values())):
                if (places := _places(ours, theirs, form)) is not None:
                    by_place = dict(zip(places, labels.items(), strict=True))
                    return dict(by_place.get(n, item) for n, item in enumerate(known.items()))
    return None


def _places(
    ours: Sequence[str], theirs: Sequence[str], form: Callable[[str], str]
) -> list[int] | None:
    """The index of each of our names among theirs; None unless the match is one to one."""
    index = {form(name): n for n, name in enumerate(theirs)}
    matches = [index[form(name)] for name in ours if form(name) in index]
    unique = len(matches) == len(ours) == len(set(matches)) and len(index) == len(theirs)
    return matches if unique else None


def _numbered(name: str) -> str:
    unnamed = UNNAMED.fullmatch(name)
    return unnamed[1] if unnamed else name


def listed(labels: Labels, most: int = 12) -> str:
    """A line of text with each output and its word: 0 negative, 1 positive."""
    words = [f"{n} {word}" for n, word in enumerate(labels.values())]
    return ", ".join(words[:most]) + (f" and {len(words) - most} more" if len(words) > most else "")
