"""Which output of a classifier is which label: by their names, where the model has any."""

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
UNNAMED = re.compile(r"LABEL_(\d+)")  # what transformers calls outputs that nobody has named

Labels = Mapping[str, str]  # label in the data → its word


def names(model: str, example_kind: str) -> list[str]:
    """What a model calls its outputs, in order; none if it is no classifier yet, or another one.

    example_kind: as objectives declare it: "label_words" for whole texts, "tags" for words.
    """
    config = pretrained.find(model).config
    if not set(config.architectures or ()) & set(CLASSIFIERS.get(example_kind, {}).values()):
        return []
    return [str(config.id2label[place]) for place in range(config.num_labels)]


def ordered(labels: Labels, known: Labels) -> dict[str, str] | None:
    """The labels in the order of outputs, with those that no row has; None if one has no output.

    known: what each output is called: its label in other data, and its word. Names are alike if
        they are equal, else if they are in all but case; LABEL_1 is 1 where as many are known.
    """
    forms: list[Callable[[str], str]] = [str, str.casefold]
    forms += [_numbered] if len(labels) == len(known) else []
    for form in forms:
        for ours in (list(labels), list(labels.values())):
            for theirs in (list(known), list(known.values())):
                if (found := _placed(ours, theirs, form)) is not None:
                    mine = dict(zip(found, labels.items(), strict=True))
                    return dict(mine.get(at, own) for at, own in enumerate(known.items()))
    return None


def _placed(
    ours: Sequence[str], theirs: Sequence[str], form: Callable[[str], str]
) -> list[int] | None:
    """The place of each of our names among theirs; None unless all have one of their own."""
    places = {form(name): at for at, name in enumerate(theirs)}
    found = [places.get(form(name)) for name in ours]
    there = [at for at in found if at is not None]
    whole = len(there) == len(ours) == len(set(there)) and len(places) == len(theirs)
    return there if whole else None


def _numbered(name: str) -> str:
    unnamed = UNNAMED.fullmatch(name)
    return unnamed[1] if unnamed else name


def listed(labels: Labels, most: int = 12) -> str:
    """Outputs and their words for a line of text: 0 negative, 1 positive."""
    said = [f"{at} {word}" for at, word in enumerate(labels.values())]
    return ", ".join(said[:most]) + (f" and {len(said) - most} more" if len(said) > most else "")
