"""The account of a run's differential privacy, which is settled before a round is asked."""

import math
from collections.abc import Collection, Iterable, Sequence
from dataclasses import replace

from hanse.errors import UserError
from hanse.federation.accounting.sampling_bounds import SamplingBounds
from hanse.federation.interfaces.declarations import IN_AGGREGATE
from hanse.federation.interfaces.mechanism import Mechanism
from hanse.federation.method import Method
from hanse.federation.pipeline import TransformStates
from hanse.federation.run import Run
from hanse.journal import record_files
from hanse.journal.privacy_record import PRIVACY, PrivacyRecord
from hanse.journal.records import ReleaseRecord
from hanse.journal.run_folder import read_releases
from hanse.randomness import RoundContext
from hanse.tensors.serialization import Numbers

ROUNDED = (
    "Silos declare rounded numbers of rows: the figure holds for each number that is rounded so, "
    "and for a silo that trains as far as its budget allows."
)


def admit_round(run: Run, round: int, states: TransformStates) -> None:
    """Write privacy.json as it will be after this round, before any client is asked for it.

    So neither a crash nor a round that is paused leaves it below what was released.

    Raises UserError for a round that would exceed the budget; nothing is written then.
    """
    context, folder = run.context(round), run.journal.folder
    for place, mechanism in accounted(run.method).items():
        spent = _spent(read_releases(folder), mechanism)
        next_one = mechanism.released(states.get(place, {}), context)
        record = mechanism.account([*spent, next_one], context)
        if record is None:
            continue
        if record.exceeds:
            raise _beyond(round, record, len(spent))
        record_files.write(folder / PRIVACY, record)
    for mechanism in run.method.pipelines.upload.mechanisms:
        if mechanism.protects_rows and (record := at_silos(run, round, mechanism)):
            if record.exceeds:
                raise _beyond(round, record, round - 1)
            record_files.write(folder / PRIVACY, record)


def _beyond(round: int, record: PrivacyRecord, spent: int) -> UserError:
    """The refusal of a round that would exceed the budget; spent: releases before it."""
    return UserError(
        f"round {round} would bring the run to {record.sentence()}, above its budget of "
        f"{record.budget:g}: it is not begun, and the model after {spent} releases stands. Set "
        f"rounds={round - 1} to end here, or begin a new run with a larger epsilon."
    )


def at_silos(run: Run, rounds: int, mechanism: Mechanism) -> PrivacyRecord | None:
    """The largest account of a silo that has trained in so many rounds."""
    samplings = {run.sampling(profile) for profile in run.profiles().values()}
    return worst(mechanism, samplings, rounds, run.context(rounds))


def worst(
    mechanism: Mechanism, samplings: Iterable[SamplingBounds], rounds: int, context: RoundContext
) -> PrivacyRecord | None:
    """The largest account of silos with these samplings after so many rounds; None without any."""
    accounts = (_of_silo(mechanism, sampling, rounds, context) for sampling in samplings)
    known = [record for record in accounts if record is not None]
    return max(known, key=lambda r: math.inf if r.epsilon is None else r.epsilon, default=None)


def _of_silo(
    mechanism: Mechanism, sampling: SamplingBounds, rounds: int, context: RoundContext
) -> PrivacyRecord | None:
    """The account of one silo, or one that is not below it where its rows are not known."""
    release = mechanism.training(sampling.dearest, context, sampling.cheapest)
    record = mechanism.account([release] * rounds, context)
    if record is None or sampling.exact:
        return record
    spent = record.epsilon
    if record.exceeds:  # the silo counts its rows, and does not train beyond its budget
        spent = record.budget
    return replace(record, epsilon=spent, assumptions=(*record.assumptions, ROUNDED))


def planned(
    method: Method, context: RoundContext, samplings: Collection[SamplingBounds] = ()
) -> PrivacyRecord | None:
    """The cost of the run after all of its rounds; None if nothing is promised.

    context: with the numbers of rounds and of clients. samplings: of silos; the largest account
        counts, if the mechanism protects their rows.
    """
    for mechanism in accounted(method).values():
        release = mechanism.released(mechanism.init({}), context)
        return mechanism.account([release] * context.rounds, context)
    for mechanism in method.pipelines.upload.mechanisms:
        if mechanism.protects_rows:
            return worst(mechanism, samplings, context.rounds, context)
    return None


def accounted(method: Method) -> dict[str, Mechanism]:
    """The mechanisms whose noise is in a round's aggregate, by place."""
    upload = method.pipelines.upload
    return {
        upload.place(index): mechanism
        for index, mechanism in enumerate(upload.mechanisms)
        if mechanism.noise & IN_AGGREGATE
    }


def _spent(records: Sequence[ReleaseRecord], mechanism: Mechanism) -> list[Numbers]:
    """The numbers of a mechanism's releases so far, whether or not their rounds were committed."""
    name = type(mechanism).__name__
    return [drawn.numbers for r in records for drawn in r.mechanisms if drawn.name == name]
