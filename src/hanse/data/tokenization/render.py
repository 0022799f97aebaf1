"""Turns rows into examples: tokens, and a label for each that is learned."""

from collections.abc import Mapping, Sequence
from itertools import groupby

from hanse.data.example import IGNORED, Example, Lost
from hanse.data.formats.columns import parts_of
from hanse.data.formats.row import ANSWERED, Row
from hanse.data.tokenization import prompt_template
from hanse.data.tokenization.answer_pairs import pairs
from hanse.data.tokenization.class_labels import classed
from hanse.data.tokenization.label_words import (
    answers,
    label_words,
    prompts,
    refuse_ambiguous,
    refuse_unknown,
)
from hanse.data.tokenization.prompt_answer import paired
from hanse.data.tokenization.tags import refuse_names, tag_names, tagged
from hanse.data.tokenization.tags import refuse_unknown as refuse_unknown_tags
from hanse.data.tokenization.text import passages
from hanse.data.tokenization.tokenizer import Tokenizer, targets
from hanse.data.tokenization.verdicts import judged, verdict
from hanse.errors import UserError

KINDS = (  # what rows become
    *("tokens", "prompt_answer", "label_words", "class_labels", "tags", "answer_pairs"),
    "verdicts",
)


def render(
    rows: Sequence[Row],
    tokenizer: Tokenizer,
    example_kind: str,
    labels: Mapping[str, str],
    template: str,
    max_length: int,
) -> list[Example]:
    """The examples of rows, in their order.

    example_kind: "tokens", to learn to write the text; "prompt_answer", to read a prompt and write
        its answer; "label_words", to answer with one of the label words; "class_labels", to choose
        one of a model's outputs, where the template is not used; "tags", to choose one for each
        word; "answer_pairs", to compare two answers to a prompt; "verdicts", to read an answer with
        a verdict on it.
    labels: the word of each label; if empty, the labels of these rows, sorted, are the words.
    template: holds {text}, or columns in braces; a label word follows it after a space.
    max_length: most tokens of an example, with its answer. Conversations lose their earlier turns,
        other prompts their beginning, texts and answers their end.
    Raises UserError for rows that do not fit, with their place.
    """
    refuse_unfit(rows, example_kind, labels, template)
    if example_kind == "tags":
        return tagged(rows, tokenizer, tag_names(rows, labels), max_length)
    if example_kind == "prompt_answer":
        return paired(rows, tokenizer, labels, template, max_length)
    if example_kind == "answer_pairs":
        return pairs(rows, tokenizer, max_length)
    if example_kind == "verdicts":
        return judged(rows, tokenizer, max_length)
    labelled = [index for index, row in enumerate(rows) if row.kind == "labelled"]
    other = [index for index, row in enumerate(rows) if row.kind != "labelled"]
    chosen = [rows[index] for index in labelled]
    examples = []
    if chosen:
        examples = _labelled(chosen, tokenizer, example_kind, labels, template, max_length)
    examples += passages([rows[index] for index in other], tokenizer, max_length)
    placed = dict(zip(labelled + other, examples, strict=True))
    return [placed[index] for index in range(len(rows))]


def refuse_unfit(
    rows: Sequence[Row], example_kind: str, labels: Mapping[str, str], template: str
) -> None:
    """Raise UserError for rows that do not fit, as far as it is known without a tokenizer."""
    if example_kind not in KINDS:
        raise ValueError(f"rows become {', '.join(KINDS)}, not {example_kind!r}")
    _refuse_preferences(rows, example_kind)
    _refuse_verdicts(rows, example_kind)
    _refuse_tagged(rows, example_kind, labels)
    labelled = [row for row in rows if row.kind == "labelled"]
    chosen = example_kind in ("label_words", "class_labels")
    if chosen and len(labelled) < len(rows):
        other = next(row for row in rows if row.kind != "labelled")
        raise UserError(
            f"objective classify needs text and label, but {other.place} has "
            f"{other.parts}; use objective: sft."
        )
    if not labelled:
        return
    words = label_words(labelled, labels)
    if chosen and len(words) < 2:
        raise UserError(
            "objective classify chooses between labels, but there is only "
            f"{', '.join(words)!r}; name all labels in `labels`, or use objective: sft."
        )
    refuse_unknown(labelled, words)
    if example_kind == "class_labels":  # where the template is not used
        prompt_template.parse(template)
    else:
        prompt_template.refuse_unfit(labelled, template)


def show(example: Example, tokenizer: Tokenizer) -> list[tuple[str, bool]]:
    """The example as pieces of text, each with True if it is learned."""
    if example.tags:
        return _shown_tags(example, tokenizer)
    if example.rejected:
        return _shown_pair(example, tokenizer)
    ids = list(example.ids)
    learned = [label != IGNORED for label in example.labels]
    if example.choices and not example.answer:
        ids += example.choices[example.choice]
        learned += [True] * len(example.choices[example.choice])
    pieces, start, shown = [], 0, ""
    for flag, run in groupby(learned):
        start += len(list(run))
        # Decode from the beginning: some tokenizers drop the space before a text's first word.
        text = tokenizer.decode(ids[:start], clean_up_tokenization_spaces=False)
        pieces.append((text[len(shown) :], flag))
        shown = text
    if example.choices and example.answer:
        pieces.append((f" → {example.answer}", True))
    if example.verdict is not None:
        pieces.append((f"\n[verdict {example.verdict:g}]", False))
    return pieces


def _shown_pair(example: Example, tokenizer: Tokenizer) -> list[tuple[str, bool]]:
    """The prompt with the chosen answer, and below it the rejected one."""
    chosen, rejected = (
        Example(example.ids[part], example.labels[part])
        for part in (slice(example.rejected), slice(example.rejected, None))
    )
    other = [text for text, learned in show(rejected, tokenizer) if learned]
    return [*show(chosen, tokenizer), (f"\n[rejected] {''.join(other).lstrip()}", False)]


def _shown_tags(example: Example, tokenizer: Tokenizer) -> list[tuple[str, bool]]:
    """The text with each tag before the first token of its word."""
    pieces, shown = [], ""
    for place, tag in enumerate(example.tags):
        text = tokenizer.decode(example.ids[: place + 1], clean_up_tokenization_spaces=False)
        if tag != IGNORED:
            pieces.append((f" {example.classes[tag]}:", True))
        pieces.append((text[len(shown) :], False))
        shown = text
    return pieces


def _refuse_tagged(rows: Sequence[Row], example_kind: str, labels: Mapping[str, str]) -> None:
    """Raise UserError if words with tags meet another objective, or `tag` meets other rows."""
    row = next((row for row in rows if (row.kind == "tagged") != (example_kind == "tags")), None)
    if row is not None and example_kind == "tags":
        objective = "classify" if row.kind == "labelled" else "sft"
        raise UserError(
            f"objective tag needs {parts_of('tagged')}, but {row.place} has {row.parts}; "
            f"name their columns in data.columns, or use objective: {objective}."
        )
    if row is not None:
        raise UserError(
            f"{row.place} has {row.parts}, which only objective: tag learns from, with an "
            "encoder, such as minilm-l6; use it, or name another column in data.columns."
        )
    if example_kind == "tags" and rows:
        names = tag_names(rows, labels)
        refuse_names(names)
        refuse_unknown_tags(rows, names)


def _refuse_preferences(rows: Sequence[Row], example_kind: str) -> None:
    """Raise UserError if preferences meet another objective, or its rows are no preferences."""
    needed = example_kind == "answer_pairs"
    row = next((row for row in rows if (row.kind == "preference") != needed), None)
    if row is not None and needed:
        raise UserError(
            f"{row.place} has {row.parts}, but this objective or task compares two "
            f"answers, {parts_of('preference')}; name their columns in data.columns, or choose "
            "another one, such as objective: sft."
        )
    if row is not None:
        part = "completion" if row.prompt or row.messages else "text"
        raise UserError(
            f"{row.place} holds a preference (chosen, rejected), and this objective or task does "
            f"not learn from preferences; to learn the chosen answers alone, write data.columns: "
            f"{{{part}: chosen}}."
        )


def _refuse_verdicts(rows: Sequence[Row], example_kind: str) -> None:
    """Raise UserError for answers without a verdict, or for bad ones that would be learned."""
    if example_kind != "verdicts":
        row = next((row for row in rows if row.verdict.lower() == "false"), None)
        if row is not None:
            raise UserError(
                f"{row.place} marks its answer as a bad one, and a part of this run learns from "
                "good ones alone; let objective and tasks take verdicts, or give the part a file "
                "of its own (data.test, data.validation)."
            )
        return
    for row in rows:
        if row.kind not in ANSWERED:
            raise UserError(
                f"{row.place} has {row.parts}, but this objective or task learns from "
                "verdicts on answers; give prompt, completion and label, or choose another one."
            )
        verdict(row)


def _labelled(
    rows: Sequence[Row],
    tokenizer: Tokenizer,
    example_kind: str,
    labels: Mapping[str, str],
    template: str,
    max_length: int,
) -> list[Example]:
    """The examples of labelled rows: a prompt whose answer is a label word or a class."""
    words = label_words(rows, labels)
    if example_kind == "class_labels":
        return classed(rows, tokenizer, words, max_length)
    tokens = answers(tokenizer, words)
    if example_kind == "label_words":
        refuse_ambiguous(words, tokens)
    choices = tuple(tokens.values())
    longest = max(map(len, choices))
    filled, missing = prompts(rows, tokenizer, template, max_length - longest)
    if example_kind == "label_words":
        places = {label: index for index, label in enumerate(words)}
        right = [places[str(row.label)] for row in rows]
        return [
            Example(
                tuple(ids),
                (IGNORED,) * len(ids),
                choices,
                index,
                lost=Lost.TEXT if count else Lost.NOTHING,
                missing=count,
            )
            for ids, index, count in zip(filled, right, missing, strict=True)
        ]
    labels_of_rows = [str(row.label) for row in rows]
    return [
        _answered(ids, tokens[label], words[label], count)
        for ids, label, count in zip(filled, labels_of_rows, missing, strict=True)
    ]


def _answered(prompt: Sequence[int], answer: Sequence[int], word: str, missing: int) -> Example:
    """A prompt whose answer, a label word, is learned; missing: the tokens cut from the prompt."""
    ids = (*prompt, *answer)
    labels = targets(ids, [False] * len(prompt) + [True] * len(answer))
    lost = Lost.TEXT if missing else Lost.NOTHING
    return Example(ids, labels, prompt=len(prompt), answer=word, lost=lost, missing=missing)
