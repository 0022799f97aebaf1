"""The account of a silo that draws noise itself, settled before it trains.

A silo counts what it has released: with rows hidden in training each update is a release, and with
shares of noise each sum may be one. The server can ask for more trainings than the job has rounds,
and begin another job under the name of the run, so the plan of a job does not bound this.
"""

import math
from collections.abc import Sequence
from dataclasses import replace

from hanse.errors import UserError
from hanse.federation.interfaces.aggregator import RefusalError
from hanse.federation.interfaces.algorithm import Client
from hanse.federation.interfaces.mechanism import Mechanism
from hanse.federation.method import Method
from hanse.federation.releases import Mechanisms, ReleaseLog
from hanse.journal import record_files
from hanse.journal.privacy_record import PRIVACY, PrivacyRecord
from hanse.journal.records import Mechanism as Drawn
from hanse.randomness import RoundContext
from hanse.tensors.serialization import Numbers


def admit_training(
    log: ReleaseLog, method: Method, client: Client, noise: Mechanisms, limit: float | None = None
) -> Mechanisms:
    """Protect the next training, and write privacy.json as it will be after its release.

    noise: the mechanisms that draw noise at the silo; the result has the numbers of the release.
    limit: the largest ε that the silo's owner accepts for the run; None: any.
    Raises UserError for a training that would exceed the budget, and RefusalError for one beyond
    the limit; nothing is written then.
    """
    context = client.context
    drawn: Sequence[Drawn] = [d for record in log.records for d in record.mechanisms]
    if limit is not None:
        _refuse_unknown(drawn, method, context)
    numbers = {part.name: part.numbers for part in noise}
    for mechanism in method.pipelines.upload.mechanisms:
        name = type(mechanism).__name__
        if mechanism.protects_rows:
            numbers[name] = dict(mechanism.protect(client.learner, context))
        elif name not in numbers or limit is None:  # the server alone counts what it draws
            continue
        spent = [part.numbers for part in drawn if part.name == name]
        record = mechanism.account([*spent, numbers[name]], context)
        _refuse_beyond(mechanism, record, spent, context, limit)
        if mechanism.protects_rows and record is not None:
            record_files.write(log.folder / PRIVACY, record)
    return tuple(replace(part, numbers=numbers[part.name]) for part in noise)


def _refuse_beyond(
    mechanism: Mechanism,
    record: PrivacyRecord | None,
    spent: Sequence[Numbers],
    context: RoundContext,
    limit: float | None,
) -> None:
    """Raise an error for a training beyond the silo's limit, or beyond the budget of the job."""
    cost = math.inf if record is None or record.epsilon is None else record.epsilon
    if limit is not None and cost > limit:  # a figure for rows would tell how many there are
        raise RefusalError(
            f"training in round {context.round} would cost more than the largest ε of {limit:g} "
            f"that policy.privacy accepts here, since this silo has made {len(spent)} releases of "
            "the run before; let the server ask for fewer trainings, or raise the noise."
        )
    if mechanism.protects_rows and record is not None and record.exceeds:
        raise UserError(
            f"training in round {context.round} would bring this silo to {record.sentence()}, "
            f"above its budget of {record.budget:g}, so it does not train; what it has sent in "
            f"{len(spent)} releases stands. End the run, or begin one with a larger epsilon."
        )


def _refuse_unknown(drawn: Sequence[Drawn], method: Method, context: RoundContext) -> None:
    """Raise RefusalError if an earlier job of the run drew noise that no part here can count."""
    known = {type(transform).__name__ for transform in method.pipelines.upload.transforms}
    if unknown := sorted({part.name for part in drawn} - known):
        raise RefusalError(
            f"this silo has released updates of the run with the noise of {', '.join(unknown)}, "
            f"which this job lacks, so it cannot add up the ε of training in round "
            f"{context.round} for its policy.privacy; begin a new run."
        )
