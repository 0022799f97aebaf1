"""The account of a run's differential privacy, which is settled before a round is asked."""

from collections.abc import Sequence

from hanse.errors import UserError
from hanse.federation.interfaces.declarations import AT_SERVER
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


def admit_round(run: Run, round: int, states: TransformStates) -> None:
    """Write privacy.json as it will be after this round, before any client is asked for it.

    So neither a crash nor a round that is paused leaves it below what was released.

    Raises UserError for a round that would exceed the budget; nothing is written then.
    """
    context, folder = run.context(round), run.journal.folder
    for place, mechanism in at_server(run.method).items():
        spent = _spent(read_releases(folder), mechanism)
        next_one = mechanism.released(states.get(place, {}), context)
        record = mechanism.account([*spent, next_one], context)
        if record is None:
            continue
        if record.exceeds:
            raise UserError(
                f"round {round} would bring the run to {record.sentence()}, above its budget of "
                f"{record.budget:g}: it is not begun, and the model after {len(spent)} releases "
                f"stands. Set rounds={round - 1} to end here, or begin a new run with a larger "
                "epsilon."
            )
        record_files.write(folder / PRIVACY, record)


def planned(method: Method, context: RoundContext) -> PrivacyRecord | None:
    """What the run will have cost after all of its rounds; None if nothing is promised.

    context: with the numbers of rounds and of clients.
    """
    for mechanism in at_server(method).values():
        release = mechanism.released(mechanism.init({}), context)
        return mechanism.account([release] * context.rounds, context)
    return None


def at_server(method: Method) -> dict[str, Mechanism]:
    """The mechanisms that draw noise at the server, by place."""
    upload = method.pipelines.upload
    return {
        upload.place(index): mechanism
        for index, mechanism in enumerate(upload.mechanisms)
        if mechanism.noise & AT_SERVER
    }


def _spent(records: Sequence[ReleaseRecord], mechanism: Mechanism) -> list[Numbers]:
    """The numbers of a mechanism's releases so far, whether or not their rounds were committed."""
    name = type(mechanism).__name__
    return [drawn.numbers for r in records for drawn in r.mechanisms if drawn.name == name]
