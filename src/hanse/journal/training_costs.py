"""The costs of one client's training in a round: seconds, speed, and energy.

G = T_comp / T_comm and the MFU are those of "Federated fine-tuning on the very edge" (2310.03150).
"""

from dataclasses import dataclass, fields
from typing import NamedTuple

from hanse.journal.journey import Amount, Journey

LARGEST = 1e30  # of an `Amount`: a larger one could not be read again


@dataclass(frozen=True, kw_only=True)
class TrainingCosts:
    """The costs of a client's training; None: not measured, or not predicted.

    computing: T_comp, seconds of local training. communicating: T_comm, seconds of the request and
    its reply on their way. granularity: G = T_comp / T_comm. tokens_per_second: trained tokens of a
    second of T_comp. mfu: the share of the machine's peak in matrix products that training reached.
    joules: of the training.
    """

    computing: Amount | None = None
    communicating: Amount | None = None
    granularity: Amount | None = None
    tokens_per_second: Amount | None = None
    mfu: Amount | None = None
    joules: Amount | None = None

    @property
    def is_empty(self) -> bool:
        """True if nothing is known."""
        return all(getattr(self, field.name) is None for field in fields(self))


class Arithmetic(NamedTuple):
    """The operations of training a token, and the operations a second that a machine reaches."""

    train_flops_per_token: float | None
    peak_flops: float | None

    def mfu(self, tokens_per_second: float | None) -> float | None:
        """The share of the peak at this speed; None if something of it is not known."""
        each, peak = self
        if tokens_per_second is None or each is None or not peak:
            return None
        return _amount(each * tokens_per_second / peak)


def measured(
    seconds: float | None,
    tokens: float | None,
    joules: float | None,
    elapsed: float | None,
    arithmetic: Arithmetic,
) -> TrainingCosts:
    """The measured costs.

    seconds, tokens, joules: as the client reports them. elapsed: seconds from the sending of the
        request to its reply over a real network; None: there is none. A client that claims more
        seconds than have passed has no seconds on the way.
    arithmetic: of the client's model and machine.
    """
    way = None if elapsed is None or seconds is None else elapsed - seconds
    speed = _ratio(tokens, seconds)
    return TrainingCosts(
        computing=seconds,
        communicating=way if way is not None and way >= 0 else None,
        granularity=_ratio(seconds, way),
        tokens_per_second=speed,
        mfu=arithmetic.mfu(speed),
        joules=joules,
    )


def predicted(
    journey: Journey | None, expected: float | None, tokens: float | None
) -> TrainingCosts | None:
    """The costs by the models of links and devices, or by a plan; None without any of them.

    journey: of a simulation. expected: seconds of training in the plan, where the simulation counts
        none: one with links alone, without seconds for a step, has no seconds of training.
    tokens: trained, as the client reports them.
    """
    if journey is None and expected is None:
        return None
    computing = expected if journey is None or not journey.training else journey.training
    way = None if journey is None else journey.down + journey.up
    return TrainingCosts(
        computing=computing,
        communicating=way,
        granularity=_ratio(computing, way),
        tokens_per_second=_ratio(tokens, computing),
        mfu=None if journey is None else journey.mfu,
        joules=None if journey is None else journey.joules,
    )


def _ratio(part: float | None, whole: float | None) -> float | None:
    """part / whole; None if one is not known, or the whole is nothing."""
    if part is None or whole is None or whole <= 0:
        return None
    return _amount(part / whole)


def _amount(value: float) -> float | None:
    return value if 0 <= value <= LARGEST else None
