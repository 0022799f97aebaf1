"""Finds the two texts of a pair by the names that data sets of pairs give their columns."""

from collections.abc import Mapping
from typing import Any

PAIRS = (  # natural language inference, paraphrases, questions about passages
    *(("premise", "hypothesis"), ("sentence1", "sentence2"), ("sentence_1", "sentence_2")),
    *(("question1", "question2"), ("text_a", "text_b"), ("text1", "text2"), ("text_1", "text_2")),
    *(("sentence_a", "sentence_b"), ("question", "passage"), ("question", "sentence")),
    *(("claim", "evidence"), ("text", "text_pair")),
)
LABELS = ("gold_label", "is_duplicate", "is_paraphrase")  # names of their labels in such data sets


def pair(names: Mapping[str, str]) -> dict[str, str]:
    """The columns of the parts text, text_pair and perhaps label; {} without two such texts.

    names: the columns by their names in lower case, with _ between words.
    """
    for first, second in PAIRS:
        if first in names and second in names:
            columns = {"text": names[first], "text_pair": names[second]}
            label = next((names[name] for name in LABELS if name in names), "")
            return columns | ({"label": label} if label and "label" not in names else {})
    return {}


def unlabelled(columns: Mapping[str, str], record: Mapping[str, Any]) -> str:
    """The error message for a pair of texts without a label; "" for a record that is no pair.

    columns: those of the pair, as `pair` finds them.
    """
    if not columns:
        return ""
    other = next((name for name in record if name not in columns.values()), "…")
    return (
        f"the columns {columns['text']!r} and {columns['text_pair']!r} are a pair of texts, and "
        f"their label is missing; name its column, such as data.columns: {{label: {other}}}."
    )
