"""Bounds on the draw of rows in a client's trainings, whose exact number of rows may be unknown."""

from dataclasses import dataclass, replace

from hanse.federation.interfaces.row_protection import Sampling


@dataclass(frozen=True)
class SamplingBounds:
    """The dearest and the cheapest training that a client with a rounded number of rows may have.

    dearest: with the largest probability of each row, and the most steps; no training that the
        client may have costs more privacy with the same noise. cheapest: the opposite, which needs
        the least noise for the same privacy. Both are the client's own if its number is exact.
    """

    dearest: Sampling
    cheapest: Sampling

    @classmethod
    def between(cls, fewest: Sampling, most: Sampling) -> "SamplingBounds":
        """The bounds on the trainings between those on the fewest rows and on the most."""
        return cls(replace(fewest, steps=most.steps), replace(most, steps=fewest.steps))

    @property
    def exact(self) -> bool:
        """True if there is one training only."""
        return self.dearest == self.cheapest


def exactly(sampling: Sampling) -> SamplingBounds:
    """The bounds on a training that is known."""
    return SamplingBounds(sampling, sampling)
