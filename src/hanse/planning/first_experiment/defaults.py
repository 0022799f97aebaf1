"""Settings that suit the user's data and a few minutes of a laptop's processor."""

import math
import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from itertools import permutations

from hanse.data.formats.row import Row
from hanse.errors import UserError
from hanse.planning.first_experiment.data_summary import (
    Source,
    label_counts,
    parts,
    tag_counts,
)
from hanse.planning.first_experiment.held_out import LOOKS, HeldOut, hold_out
from hanse.planning.first_experiment.owners import client_names, owner
from hanse.planning.first_experiment.token_lengths import (
    Measure,
    TokenLengths,
    measure,
    sample,
    token_lengths,
)

# Seconds of SmolLM2-135M on two cores for a step of 4 × 128 tokens, forward and backward.
STEP, BATCH, STEP_TOKENS = 1.1, 4, 128
FIXED = 0.2  # share of a step's time that does not depend on the length of its rows
FORWARD = 3  # a step takes this many times as long as its forward pass alone
TRAINING = 150.0  # seconds of a whole run
PASSES = 3.0  # most passes over the rows in all rounds together
LABELS = 20  # most labels to choose between
SHORT = 48  # most tokens of an answer that is worth generating
MANY = 20  # silos; with more, a part of them takes part in each round
PLAIN = re.compile(r"\w[\w -]*")  # a column's name that a prompt may contain


@dataclass(frozen=True)
class Schedule:
    """The rounds of a run.

    passes: how often each row is seen in all rounds together.
    fraction: share of the silos that take part in a round.
    """

    rounds: int
    passes: float
    fraction: float

    @property
    def epochs(self) -> float:
        """Passes over a silo's rows in a round in which it takes part."""
        return _rounded(self.passes / self.rounds / self.fraction)


@dataclass(frozen=True)
class Plan:
    """The settings of an experiment, and what is worth a comment in it.

    labels: for each label the word that is its answer, in the order of the choices, or for each tag
        its name; empty for the objective sft.
    counts: rows of each label, or words of each tag.
    template: the prompt of a labelled row; empty for other rows.
    owner: the column whose values are the silos, if there is one.
    names: the silos' names, if they are after the column's values; else empty.
    answer: most tokens of a generated answer; 0 if answers are too long to generate.
    client_test: share of its rows that each silo holds out.
    """

    silos: int
    rows: int
    kinds: Sequence[str]
    labels: Mapping[str, str]
    counts: Mapping[str, int]
    template: str
    owner: str | None
    names: Sequence[str]
    lengths: TokenLengths
    held_out: HeldOut
    client_test: float
    answer: int
    schedule: Schedule

    @property
    def objective(self) -> str:
        """The name of the objective."""
        if self.tagged:
            return "tag"
        return "classify" if self.labels else "sft"

    @property
    def tagged(self) -> bool:
        """True if the rows are words with tags, which an encoder learns."""
        return list(self.kinds) == ["tagged"]

    @property
    def closed(self) -> bool:
        """True if label words end in a sign, since one label begins like another."""
        return any(word != label for label, word in self.labels.items())

    @property
    def seconds(self) -> float:
        """Seconds of the whole run, by rule of thumb."""
        scored = 2 * self.held_out.test + LOOKS * self.held_out.validation
        trained = self.schedule.passes * self.held_out.remaining
        return step_seconds(self.lengths) / BATCH * trained + scoring_seconds(self.lengths) * scored


def step_seconds(lengths: TokenLengths) -> float:
    """Seconds of a training step, by rule of thumb."""
    return STEP * (FIXED + (1 - FIXED) * lengths.mean / STEP_TOKENS)


def scoring_seconds(lengths: TokenLengths) -> float:
    """Seconds to score one row, by rule of thumb."""
    return step_seconds(lengths) / BATCH / FORWARD


def plan(
    sources: Mapping[str, Source],
    silos: int,
    model: str,
    held_files: Mapping[str, Source] | None = None,
) -> Plan:
    """The settings for one source that is divided, or for a source at each silo.

    model: the one whose tokenizer counts the tokens.
    held_files: rows in files of their own, by the split (test, validation).
    Raises UserError if there are too few rows.
    """
    held_files = held_files or {}
    rows = _rows(sources)
    _refuse_few(len(rows), silos)
    kinds = {row.kind for row in rows}
    labels, counts = _labels(kinds, [*rows, *_rows(held_files)])
    template = _template(next(iter(sources.values()))) if kinds == {"labelled"} else ""
    counting = measure(model, rows, _example_kind(kinds, labels), labels, template or "{text}")
    lengths = token_lengths(rows, rows[0].kind, counting)
    column = owner(next(iter(sources.values())), silos) if len(sources) == 1 else None
    held_out = hold_out(_owned(sources, column), silos, scoring_seconds(lengths), held_files)
    return Plan(
        silos=silos,
        rows=len(rows),
        kinds=sorted(kinds),
        labels=labels,
        counts=counts,
        template=template,
        owner=column,
        names=client_names(next(iter(sources.values())), column) if column else [],
        lengths=lengths,
        held_out=held_out,
        client_test=_client_test(held_out.remaining / silos, silos),
        answer=0 if labels or not held_out.test else _answer(rows, counting),
        schedule=_schedule(
            round(held_out.remaining * lengths.examples), silos, step_seconds(lengths)
        ),
    )


def _rows(sources: Mapping[str, Source]) -> list[Row]:
    return [row for source in sources.values() for row in source.rows]


def _refuse_few(rows: int, silos: int) -> None:
    if rows < silos:
        raise UserError(
            f"{rows} rows cannot be divided among {silos} silos, which need at least one each; ask "
            "for fewer silos, or give more data."
        )


def label_words(labels: Sequence[str]) -> dict[str, str]:
    """The word of each label: the label, with a sign at its end if one label begins like another.

    Words are scored by their tokens, and " 1" would always win against " 10".
    """
    clash = any(long.startswith(short) for short, long in permutations(labels, 2))
    unused = (sign for sign in ".;!|#" if not any(sign in label for label in labels))
    sign = next(unused, "\N{END OF PROOF}") if clash else ""
    return {label: f"{label}{sign}" for label in labels}


def _labels(
    kinds: Collection[str], rows: Sequence[Row]
) -> tuple[Mapping[str, str], Mapping[str, int]]:
    """The word of each label or the name of each tag, and their counts.

    rows: held-out ones too, since a rare tag may be in them alone.
    """
    if kinds == {"tagged"}:
        counts = tag_counts(rows)
        return {tag: tag for tag in counts}, counts
    counts = label_counts(rows) if kinds == {"labelled"} else {}
    few = 2 <= len(counts) <= LABELS and sum(counts.values()) >= 2 * len(counts)
    return (label_words(list(counts)) if few else {}), counts


def _example_kind(kinds: Collection[str], labels: Mapping[str, str]) -> str:
    """The kind of examples that the chosen objective learns from."""
    if kinds == {"tagged"}:
        return "tags"
    return "label_words" if labels else "tokens"


def _template(source: Source) -> str:
    """The prompt of a labelled row: its text, and the name of its label."""
    column = source.reading.columns.get("label", "label")
    name = column if PLAIN.fullmatch(column) else "label"
    if source.reading.format != "pair":
        return f"{{text}}\n{_title(name)}:"
    columns = [source.reading.columns[part] for part in ("text", "text_pair")]
    if not all(map(PLAIN.fullmatch, columns)):
        return f"{{text}}\n{{text_pair}}\n{_title(name)}:"
    texts = "".join(f"{_title(column)}: {{{column}}}\n" for column in columns)
    return f"{texts}{_title(name)}:"


def _title(name: str) -> str:
    """The name of a column as it stands before a value."""
    return f"{name[:1].upper()}{name[1:].replace('_', ' ')}"


def _answer(rows: Sequence[Row], measure: Measure) -> int:
    """Most tokens of a generated answer, if every row has a prompt and answers are short."""
    if not all(part.strip() for row in rows for part in parts(row)):
        return 0
    lengths = sorted(measure.texts([parts(row)[1] for row in sample(rows)[0]]))
    usual = lengths[len(lengths) * 19 // 20]
    return 0 if usual > SHORT else 2 ** math.ceil(math.log2(1.25 * usual + 8))


def _owned(sources: Mapping[str, Source], column: str | None) -> list[tuple[str, Row]]:
    """Every row with its owner: the name of its source, or its value in a column."""
    return [
        (name if column is None else row.fields[column], row)
        for name, source in sources.items()
        for row in source.rows
    ]


def _client_test(rows: float, silos: int) -> float:
    """The share of its rows that a silo holds out; none if rows are few, or silos many."""
    return 0.0 if rows < 10 or silos > MANY else _rounded(min(0.1, 25 / rows))


def _schedule(rows: int, silos: int, step: float) -> Schedule:
    """As many passes as the time for training allows; step: seconds of one."""
    return Schedule(
        rounds=6 if rows >= 16 * silos else 3,
        passes=min(PASSES, TRAINING / step * BATCH / rows),
        fraction=1.0 if silos <= MANY else _rounded(MANY / 2 / silos),
    )


def _rounded(value: float) -> float:
    """The number with two significant digits."""
    return float(f"{value:.2g}")
