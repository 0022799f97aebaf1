"""The reasons of a silo's policy against the differential privacy of a job, by its own account.

The silo computes ε from the settings that it was sent, the rounds that they plan and its own rows.
Clipping at the silo is its own work; whether the server draws noise is the server's word.
"""

from collections.abc import Iterator, Sequence

from hanse.deployment.silo.job import Job
from hanse.deployment.silo.policy import Policy, Privacy
from hanse.errors import UserError, refuse_missing
from hanse.experiment.assembly.method import build_method
from hanse.experiment.assembly.privacy import silos_account
from hanse.experiment.schema import Experiment
from hanse.federation.interfaces.mechanism import Mechanism
from hanse.journal.privacy_record import PrivacyRecord

ASKS = "policy.privacy asks for"


def privacy_refusals(policy: Policy, job: Job) -> Iterator[str]:
    """The reasons that do not depend on rows; none if the policy asks for no privacy."""
    wanted, mechanisms = policy.privacy, _mechanisms(job.experiment)
    if not wanted.figures or job.experiment.rounds > policy.max_rounds:  # which is refused
        return
    if not mechanisms:
        yield _none(wanted)
        return
    yield from _of_clip(wanted, mechanisms)
    if not any(part.protects_rows for part in mechanisms):
        yield from _accounted(wanted, job.experiment, job.cohort, 1)


def row_privacy_refusals(policy: Policy, experiment: Experiment, rows: int) -> Iterator[str]:
    """The reasons against a mechanism that hides rows; rows: that this silo trains on."""
    hiding = any(part.protects_rows for part in _mechanisms(experiment))
    if hiding and policy.privacy.figures and rows and experiment.rounds <= policy.max_rounds:
        yield from _accounted(policy.privacy, experiment, 0, rows)


def _mechanisms(experiment: Experiment) -> Sequence[Mechanism]:
    return build_method(experiment).pipelines.upload.mechanisms


def _none(wanted: Privacy) -> str:
    figures = ", ".join(wanted.figures)
    return f"it asks for differential privacy ({figures}), and the job promises none"


def _accounted(wanted: Privacy, experiment: Experiment, clients: int, rows: int) -> Iterator[str]:
    """Reasons against what all rounds would cost; clients: of a round, 0 as the experiment says."""
    try:
        planned = silos_account(experiment, build_method(experiment), clients, rows)
    except UserError as error:
        yield f"its policy.privacy asks for differential privacy, and here {_sentence(error)}"
        return
    if planned is None:
        yield _none(wanted)
    else:
        yield from _of_account(wanted, planned)


def _sentence(error: UserError) -> str:
    """The reason why there is no account, with a silo's way out if a package is missing."""
    try:
        refuse_missing("the ε of a job", "privacy", ["dp_accounting"], "ask for no privacy")
    except UserError as missing:
        error = missing
    return str(error).removesuffix(".")


def _of_account(wanted: Privacy, planned: PrivacyRecord) -> Iterator[str]:
    """Reasons against the unit, ε, δ and noise of the planned releases."""
    if wanted.unit == "silo" and planned.unit != "silo":
        yield f"{ASKS} privacy of a whole silo, and the job's is that of a {planned.unit}"
    if wanted.epsilon is not None:
        if planned.epsilon is None or planned.epsilon > wanted.epsilon:
            yield f"it would come to {_cost(planned)}, and {ASKS} at most {wanted.epsilon:g}"
        if planned.delta > wanted.delta:
            yield f"its δ is {planned.delta:g}, and {ASKS} at most {wanted.delta:g}"
    least = wanted.noise_multiplier
    if least is not None and planned.noise_multiplier < least:
        yield f"its noise multiplier is below {least:g}, which policy.privacy asks for"


def _cost(planned: PrivacyRecord) -> str:
    """The cost in words; a figure for rows would tell how many there are."""
    return "a larger ε for its rows" if planned.unit == "row" else planned.sentence()


def _of_clip(wanted: Privacy, mechanisms: Sequence[Mechanism]) -> Iterator[str]:
    """Reasons against the clip norms."""
    if wanted.clip is None:
        return
    for mechanism in mechanisms:
        name, clip = type(mechanism).__name__, mechanism.largest_clip
        if clip is None:
            yield f"the clip norm of {name} is not fixed, and {ASKS} at most {wanted.clip:g}"
        elif clip > wanted.clip:
            yield f"the clip norm of {name} is {clip:g}, and {ASKS} at most {wanted.clip:g}"
