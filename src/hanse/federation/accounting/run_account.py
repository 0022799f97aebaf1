"""The account of a run's differential privacy, which is settled before a round is asked."""

from collections.abc import Collection, Iterable, Mapping, Sequence

from hanse.errors import UserError
from hanse.federation.accounting.row_charges import charged, largest_of, of_rounded
from hanse.federation.accounting.sampling_bounds import SamplingBounds
from hanse.federation.interfaces.declarations import IN_AGGREGATE
from hanse.federation.interfaces.mechanism import Mechanism
from hanse.federation.messages import ClientProfile
from hanse.federation.method import Method
from hanse.federation.run import Run
from hanse.federation.server_state import ServerState
from hanse.journal import record_files
from hanse.journal.privacy_record import CHARGES, PRIVACY, PrivacyRecord
from hanse.journal.records import ReleaseRecord
from hanse.journal.run_folder import read_releases
from hanse.randomness import RoundContext
from hanse.tensors.serialization import Numbers


def admit_round(
    run: Run, round: int, before: ServerState, profiles: Mapping[str, ClientProfile]
) -> None:
    """Write privacy.json as it will be after this round, before any client is asked for it.

    So neither a crash nor a round that is paused leaves it below what was released.

    before: the server's state with which the round begins. profiles: of all that it may ask.
    Raises UserError for a round that would exceed the budget; nothing is written then.
    """
    context, folder, states = run.context(round), run.journal.folder, before.transform_states
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
        if mechanism.protects_rows:
            record, new = charged(run, round, mechanism, before, profiles)
            if record is not None and record.exceeds:
                raise _beyond(round, record, round - 1)
            if new is not None:
                record_files.append(folder / CHARGES, new)
            if record is not None:
                record_files.write(folder / PRIVACY, record)


def _beyond(round: int, record: PrivacyRecord, spent: int) -> UserError:
    """The refusal of a round that would exceed the budget; spent: releases before it."""
    return UserError(
        f"round {round} would bring the run to {record.sentence()}, above its budget of "
        f"{record.budget:g}: it is not begun, and the model after {spent} releases stands. Set "
        f"rounds={round - 1} to end here, or begin a new run with a larger epsilon."
    )


def worst(
    mechanism: Mechanism, samplings: Iterable[SamplingBounds], rounds: int, context: RoundContext
) -> PrivacyRecord | None:
    """The largest account of silos with these samplings after so many rounds; None without any."""
    return largest_of(_of_silo(mechanism, sampling, rounds, context) for sampling in samplings)


def _of_silo(
    mechanism: Mechanism, sampling: SamplingBounds, rounds: int, context: RoundContext
) -> PrivacyRecord | None:
    """The account of one silo, or one that is not below it where its rows are not known."""
    release = mechanism.training(sampling.dearest, context, sampling.cheapest)
    record = mechanism.account([release] * rounds, context)
    return record if record is None or sampling.exact else of_rounded(record)


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
