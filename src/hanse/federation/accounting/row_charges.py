"""The cost of silos' trainings in a run, by a log that is written before they are asked.

Settings may change when a run is resumed, and silos may leave. So each round keeps the noise, the
sampling and the silos that it was asked with.
"""

import hashlib
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace

from hanse.federation.interfaces.mechanism import Mechanism
from hanse.federation.messages import ClientProfile
from hanse.federation.run import Run
from hanse.federation.server_state import ServerState
from hanse.journal import record_files
from hanse.journal.privacy_record import CHARGES, PRIVACY, PrivacyRecord, RowCharges
from hanse.journal.records import Metrics
from hanse.randomness import RoundContext
from hanse.tensors.named import digest

ROUNDED = (
    "Silos declare rounded numbers of rows: the figure holds for each number that is rounded so, "
    "and for a silo that trains as far as its budget allows."
)


def charged(
    run: Run,
    round: int,
    mechanism: Mechanism,
    before: ServerState,
    profiles: Mapping[str, ClientProfile],
) -> tuple[PrivacyRecord | None, RowCharges | None]:
    """The largest account of a silo after a round, and the round's line, unless the log has it.

    before: the state with which the round begins. A round that is asked again with the same one
        costs nothing, since a silo sends the same update; with another one it costs again.
    profiles: of the clients that may be asked.
    """
    folder, context = run.journal.folder, run.context(round)
    lines = record_files.read_lines(folder / CHARGES, RowCharges)
    new = _charges(run, mechanism, before, profiles, context)
    known = lines if new in lines else [*lines, new]
    own = [line for line in known if line.mechanism == new.mechanism]
    reported = record_files.read(folder / PRIVACY, PrivacyRecord)
    records = [_of_silo(name, own, mechanism, context, reported) for name in _silos(own)]
    largest = largest_of(records)
    if largest is not None and not {*range(1, round)} <= {line.round for line in own}:
        largest = replace(largest, epsilon=None)  # nothing is known of a round without a line
    return largest, None if new in lines else new


def largest_of(records: Iterable[PrivacyRecord | None]) -> PrivacyRecord | None:
    """The record with the largest ε; None if there is none."""
    known = [record for record in records if record is not None]
    return max(known, key=lambda r: math.inf if r.epsilon is None else r.epsilon, default=None)


def of_rounded(record: PrivacyRecord, reported: float | None = 0.0) -> PrivacyRecord:
    """The account of a silo whose number of rows is not known exactly.

    The silo counts its rows, and does not train beyond its budget; so its ε is at most that, or
    what it was before. reported: ε of the run before; None if it was not bounded.
    """
    spent = record.epsilon
    if record.exceeds and record.budget is not None and reported is not None:
        spent = min(math.inf if spent is None else spent, max(record.budget, reported))
    return replace(record, epsilon=spent, assumptions=(*record.assumptions, ROUNDED))


def _charges(
    run: Run,
    mechanism: Mechanism,
    before: ServerState,
    profiles: Mapping[str, ClientProfile],
    context: RoundContext,
) -> RowCharges:
    """The line of a round."""
    silos, rounded = dict[str, Metrics](), list[str]()
    for name, profile in profiles.items():
        bounds = run.sampling(profile)
        silos[name] = dict(mechanism.training(bounds.dearest, context, bounds.cheapest))
        rounded += [] if bounds.exact else [name]
    groups = {**before.algorithm_state, **before.transform_states}
    parts = [f"{name}:{digest(tensors)}" for name, tensors in sorted(groups.items())]
    parts += [f"{name}:{last}" for name, last in sorted(before.last_counted_rounds.items())]
    start = hashlib.sha256("\n".join(parts).encode()).hexdigest()
    kind = type(mechanism).__name__
    return RowCharges(
        round=context.round, mechanism=kind, start=start, silos=silos, rounded=tuple(rounded)
    )


def _silos(lines: Sequence[RowCharges]) -> list[str]:
    """One silo for each history of charges; many silos have the same one."""
    names = dict.fromkeys(name for line in lines for name in line.silos)
    histories = {
        repr([(line.silos.get(name), name in line.rounded) for line in lines]): name
        for name in names
    }
    return [*histories.values()]


def _of_silo(
    name: str,
    lines: Sequence[RowCharges],
    mechanism: Mechanism,
    context: RoundContext,
    reported: PrivacyRecord | None,
) -> PrivacyRecord | None:
    """The account of one silo by its lines."""
    own = [line for line in lines if name in line.silos]
    record = mechanism.account([line.silos[name] for line in own], context)
    if record is None or not any(name in line.rounded for line in own):
        return record
    return of_rounded(record, 0.0 if reported is None else reported.epsilon)
