"""Settings that suit somebody's data and a few minutes of a laptop's processor."""

import math
import statistics
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import permutations

from hanse.data import holdout
from hanse.data.formats.row import Row
from hanse.data.sources import split_files
from hanse.errors import UserError
from hanse.planning.first_experiment.data_summary import (
    Source,
    label_counts,
    owner,
    parts,
    tag_counts,
    tokens,
)

# What SmolLM2-135M takes on two cores for a step of 4 × 128 tokens, forward and back (seconds).
STEP, BATCH, STEP_TOKENS = 1.1, 4, 128
FIXED = 0.2  # of it, however short the rows are
FORWARD = 3  # times as long takes forward and back as forward alone
LOOKS = 4  # about so often the validation rows are scored
TRAINING, TESTING, VALIDATING = 150.0, 80.0, 20.0  # seconds of a whole run
TEST, VALIDATION = (0.2, 500), (0.1, 200)  # most rows held out: a share, and a count
PASSES = 3.0  # most passes over the rows in all rounds together
LENGTHS = (64, 128, 256, 512)  # of which the shortest is taken that holds most rows whole
TURN, GREETING = 8, 30  # tokens that a chat template adds to each turn, and to a conversation
LABELS, READ = 20, 256  # most labels to choose between; most tokens of what is classified
SHORT = 48  # tokens of an answer that is quickly generated
LOOKED_AT = 2000  # rows whose lengths are taken for those of all
MANY = 20  # silos, of which a part is enough in each round


@dataclass(frozen=True)
class Plan:
    """What is written into an experiment, and what of it is worth a comment.

    labels: label → the word that is its answer, in the order of the choices, or tag → its name;
        empty for sft.
    counts: rows of each label, if there are labels; words of each tag, if there are tags.
    owner: the column whose values are the silos, if there is one.
    cut: share of the rows that are longer than max_length.
    answer: most tokens of a generated answer; 0 if answers are too long to generate.
    passes: how often each row is seen in all rounds together.
    seconds: of the whole run, by rule of thumb.
    """

    silos: int
    rows: int
    kinds: Sequence[str]
    labels: Mapping[str, str]
    counts: Mapping[str, int]
    owner: str | None
    max_length: int
    cut: float
    answer: int
    test: int
    validation: int
    client_test: float
    rounds: int
    epochs: float
    passes: float
    fraction: float
    seconds: float

    @property
    def objective(self) -> str:
        """What the clients minimize."""
        if self.tagged:
            return "tag"
        return "classify" if self.labels else "sft"

    @property
    def tagged(self) -> bool:
        """Whether rows are words with tags, which are for an encoder."""
        return list(self.kinds) == ["tagged"]

    @property
    def closed(self) -> bool:
        """Whether the label words end in a sign, to tell one from another that begins with it."""
        return any(word != label for label, word in self.labels.items())


def plan(
    sources: Mapping[str, Source], silos: int, given: Mapping[str, Source] | None = None
) -> Plan:
    """The settings for one source that is divided, or for a source at each silo.

    given: what files of their own hold for test or validation.
    Raises UserError if there are too few rows.
    """
    given = given or {}
    rows = [row for source in sources.values() for row in source.rows]
    every = [*rows, *(row for source in given.values() for row in source.rows)]
    _refuse_few(len(rows), silos)
    kinds = {row.kind for row in rows}
    counts = label_counts(every) if kinds == {"labelled"} else {}
    labels = _classes(counts)
    if kinds == {"tagged"}:
        # All of them, since a rare one may be in rows alone that are held out.
        counts = tag_counts(every)
        labels = {tag: tag for tag in counts}
    lengths = list(map(_length, _some(rows)))
    max_length = _max_length(lengths, READ if kinds == {"labelled"} else LENGTHS[-1])
    step = _step_seconds([min(length, max_length) for length in lengths])
    column = owner(next(iter(sources.values())), silos) if len(sources) == 1 else None
    sizes = {split: len(source.rows) for split, source in given.items()}
    drawn = _held_out(_owned(sources, column), silos, step / BATCH / FORWARD, sizes)
    left = len(rows) - sum(drawn)
    test = sizes.get(split_files.TEST, drawn[0])
    validation = sizes.get(split_files.VALIDATION, drawn[1])
    passes = min(PASSES, TRAINING / step * BATCH / left)
    rounds = 6 if left >= 16 * silos else 3
    fraction = 1.0 if silos <= MANY else _rounded(MANY / 2 / silos)
    return Plan(
        silos=silos,
        rows=len(rows),
        kinds=sorted(kinds),
        labels=labels,
        counts=counts,
        owner=column,
        max_length=max_length,
        cut=sum(length > max_length for length in lengths) / len(lengths),
        answer=0 if labels or not test else _answer(rows),
        test=test,
        validation=validation,
        client_test=_client_test(left / silos, silos),
        rounds=rounds,
        epochs=_rounded(passes / rounds / fraction),
        passes=passes,
        fraction=fraction,
        seconds=step / BATCH * (passes * left + (2 * test + LOOKS * validation) / FORWARD),
    )


def _refuse_few(rows: int, silos: int) -> None:
    if rows < silos:
        raise UserError(
            f"{rows} rows cannot be dealt to {silos} silos, of which each needs at least one; ask "
            "for fewer silos, or give more data."
        )


def label_words(labels: Sequence[str]) -> dict[str, str]:
    """The word of each label: itself, with a sign at its end if one begins another.

    Words are told apart by their tokens, and " 1" would always win against " 10".
    """
    clash = any(long.startswith(short) for short, long in permutations(labels, 2))
    unused = (sign for sign in ".;!|#" if not any(sign in label for label in labels))
    sign = next(unused, "\N{END OF PROOF}") if clash else ""
    return {label: f"{label}{sign}" for label in labels}


def _classes(counts: Mapping[str, int]) -> dict[str, str]:
    """The words to choose between, if the labels are few enough for that."""
    few = 2 <= len(counts) <= LABELS and sum(counts.values()) >= 2 * len(counts)
    return label_words(list(counts)) if few else {}


def _some(rows: Sequence[Row]) -> Sequence[Row]:
    """Rows from all over, as many as it takes to know their lengths."""
    return rows[:: max(1, len(rows) // LOOKED_AT)]


def _length(row: Row) -> float:
    """About how many tokens a row is to the model."""
    asked, answer = parts(row)
    frame = GREETING + TURN * len(row.messages) if row.messages else TURN
    return tokens(asked) + tokens(answer) + frame


def _max_length(lengths: Sequence[float], most: int) -> int:
    """The shortest of the usual lengths that holds 19 of 20 rows whole, but not over `most`."""
    wanted = sorted(lengths)[len(lengths) * 19 // 20]
    return next((length for length in LENGTHS if length >= wanted or length >= most), most)


def _step_seconds(lengths: Sequence[float]) -> float:
    """About how long a step takes on rows of these lengths."""
    return STEP * (FIXED + (1 - FIXED) * statistics.fmean(lengths) / STEP_TOKENS)


def _answer(rows: Sequence[Row]) -> int:
    """Most tokens of a generated answer, if every row asks something and answers are short."""
    if not all(part.strip() for row in rows for part in parts(row)):
        return 0
    lengths = sorted(tokens(parts(row)[1]) for row in _some(rows))
    usual = lengths[len(lengths) * 19 // 20]
    return 0 if usual > SHORT else 2 ** math.ceil(math.log2(1.25 * usual + 8))


def _owned(sources: Mapping[str, Source], column: str | None) -> list[tuple[str, Row]]:
    """Every row and whose it is: its source's, or its value's in a column."""
    return [
        (name if column is None else row.fields[column], row)
        for name, source in sources.items()
        for row in source.rows
    ]


def _held_out(
    owned: Sequence[tuple[str, Row]], silos: int, score: float, given: Mapping[str, int]
) -> tuple[int, int]:
    """Rows for test and validation, of which every silo can spare its part.

    score: seconds to score one row; the test is scored twice. given: what files of their own hold.
    """
    share, most = TEST
    test = 0 if split_files.TEST in given else min(share * len(owned), most, TESTING / score / 2)
    share, most = VALIDATION
    validation = min(share * len(owned), most, VALIDATING / score / LOOKS)
    validation = 0 if split_files.VALIDATION in given else validation
    names = {id(row): name for name, row in owned}
    had = Counter(names.values())
    for part in (1, 0.5, 0.2, 0.1):
        sizes = _even(test * part), _even(validation * part)
        try:
            train, _, _ = holdout.split([row for _, row in owned], *sizes, seed=0)
        except UserError:  # most rows say the same
            continue
        has = Counter(names[id(row)] for row in train)
        if len(train) >= silos and all(has[name] >= had[name] / 2 for name in had):
            return sizes
    return 0, 0


def _client_test(rows: float, silos: int) -> float:
    """The share of its rows that a silo holds out; none if rows are few, or silos many."""
    return 0.0 if rows < 10 or silos > MANY else _rounded(min(0.1, 25 / rows))


def _even(count: float) -> int:
    """A whole number of at most this size, with two digits that count."""
    digits = str(int(count))
    return int(digits[:2].ljust(len(digits), "0"))


def _rounded(value: float) -> float:
    """A number with two digits that count."""
    return float(f"{value:.2g}")
