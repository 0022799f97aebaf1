"""Rows for test and validation: as many as time allows and the silos can spare."""

from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from hanse.data import holdout
from hanse.data.formats.row import Row
from hanse.data.sources import split_files
from hanse.errors import UserError
from hanse.planning.first_experiment.data_summary import Source

TESTING, VALIDATING = 80.0, 20.0  # seconds of a whole run
LOOKS = 4  # about how often the validation rows are scored
TEST, VALIDATION = (0.2, 500), (0.1, 200)  # most rows held out: a share, and a count


@dataclass(frozen=True)
class HeldOut:
    """Rows for test and validation, drawn or from files of their own.

    remaining: rows that are left for the silos.
    """

    test: int
    validation: int
    remaining: int


def hold_out(
    owned: Sequence[tuple[str, Row]],
    silos: int,
    scoring: float,
    held_files: Mapping[str, Source],
) -> HeldOut:
    """Rows for test and validation: those of the files, or else as many as the silos can spare.

    scoring: seconds to score one row.
    """
    most = _most_held_out(len(owned), scoring)
    wanted = {split: 0 if split in held_files else rows for split, rows in most.items()}
    drawn = _spared(owned, silos, wanted[split_files.TEST], wanted[split_files.VALIDATION])
    sizes = dict(zip(most, drawn, strict=True))
    sizes |= {split: len(source.rows) for split, source in held_files.items()}
    return HeldOut(sizes[split_files.TEST], sizes[split_files.VALIDATION], len(owned) - sum(drawn))


def _most_held_out(rows: int, scoring: float) -> dict[str, float]:
    """The rows that may be scored in the time for it; the test is scored twice."""
    return {
        split_files.TEST: min(TEST[0] * rows, TEST[1], TESTING / scoring / 2),
        split_files.VALIDATION: min(
            VALIDATION[0] * rows, VALIDATION[1], VALIDATING / scoring / LOOKS
        ),
    }


def _spared(
    owned: Sequence[tuple[str, Row]], silos: int, test: float, validation: float
) -> tuple[int, int]:
    """At most these numbers of rows, fewer if an owner would lose more than half of its rows."""
    owners = {id(row): name for name, row in owned}
    before = Counter(owners.values())
    for part in (1, 0.5, 0.2, 0.1):
        sizes = _even(test * part), _even(validation * part)
        if _surely_spared(owned, silos, sum(sizes)):
            return sizes
        try:
            train, _, _ = holdout.split([row for _, row in owned], *sizes, seed=0)
        except UserError:  # most rows have the same text
            continue
        after = Counter(owners[id(row)] for row in train)
        if len(train) >= silos and all(after[name] >= before[name] / 2 for name in before):
            return sizes
    return 0, 0


def _surely_spared(owned: Sequence[tuple[str, Row]], silos: int, held: int) -> bool:
    """True if so many distinct rows can be spared whichever they are; draws nothing."""
    largest: defaultdict[str, list[int]] = defaultdict(list)  # equal rows of an owner
    for equal in holdout.equal_rows([row for _, row in owned]):
        for owner, count in Counter(owned[place][0] for place in equal).items():
            largest[owner].append(count)
    lost = {owner: sum(sorted(counts)[-held:] if held else []) for owner, counts in largest.items()}
    spared = all(2 * lost[owner] <= sum(counts) for owner, counts in largest.items())
    return spared and len(owned) - sum(lost.values()) >= silos


def _even(count: float) -> int:
    """The number with two significant digits, rounded down."""
    digits = str(int(count))
    return int(digits[:2].ljust(len(digits), "0"))
