"""The account of a silo that protects its rows in training, settled before it trains."""

from collections.abc import Sequence
from dataclasses import replace

from hanse.errors import UserError
from hanse.federation.interfaces.learner import Learner
from hanse.federation.method import Method
from hanse.federation.releases import Mechanisms, ReleaseLog
from hanse.journal import record_files
from hanse.journal.privacy_record import PRIVACY
from hanse.journal.records import Mechanism as Drawn
from hanse.randomness import RoundContext
from hanse.tensors.serialization import Numbers


def admit_training(
    log: ReleaseLog, method: Method, learner: Learner, noise: Mechanisms, context: RoundContext
) -> Mechanisms:
    """Protect the next training, and write privacy.json as it will be after its release.

    noise: the mechanisms that draw noise at the silo; the result has the numbers of the release.
    Raises UserError for a training that would exceed the budget; nothing is written then.
    """
    for mechanism in method.pipelines.upload.mechanisms:
        if not mechanism.protects_rows:
            continue
        name, release = type(mechanism).__name__, mechanism.protect(learner, context)
        spent = _spent(log, name)
        record = mechanism.account([*spent, release], context)
        if record is not None and record.exceeds:
            raise UserError(
                f"training in round {context.round} would bring this silo to {record.sentence()}, "
                f"above its budget of {record.budget:g}, so it does not train; what it has sent in "
                f"{len(spent)} releases stands. End the run, or begin one with a larger epsilon."
            )
        if record is not None:
            record_files.write(log.folder / PRIVACY, record)
        noise = tuple(replace(d, numbers=dict(release)) if d.name == name else d for d in noise)
    return noise


def _spent(log: ReleaseLog, name: str) -> list[Numbers]:
    """The numbers of a mechanism's releases at this silo in this run."""
    drawn: Sequence[Drawn] = [d for record in log.records for d in record.mechanisms]
    return [mechanism.numbers for mechanism in drawn if mechanism.name == name]
