"""The second stage of FedPipe (2404.06448): ranks, batch size and bits of the base for each silo.

Reconstruction: the paper has no published code, and of its program only the description was read.
The stage decides which matrices get an adapter anywhere, and for each silo m the rank r of each
matrix l and one form o of training (bits of the base and batch size). With score s_l of a matrix,
its share f(r) of what a full adapter would gain, and the weight p_m of a silo's rows, it maximizes

    Σ_m p_m·(v_mo + Σ_l s_l·f(r_ml))

subject to the memory and the seconds of a round at each silo, and to the number of matrices. Each
silo has one adapter at least: without any it could not train. Gains, bytes and seconds come with
the choices, so this module knows no model of cost.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Choice:
    """One of several ways: what it gains, and what it takes of a silo's machine.

    name: for the plan, such as "rank 8" or "nf4, 4 rows". memory: bytes. seconds: of a round.
    depth: of a form, the number of upper layers that gradients flow through, below which there are
        no adapters; None: all layers.
    """

    name: str
    gain: float
    memory: float
    seconds: float
    depth: int | None = None


NOTHING = Choice("none", 0.0, 0.0, 0.0)


@dataclass(frozen=True)
class SiloChoices:
    """The choices of one silo, and the bounds of its machine.

    weight: p_m, its share of all rows. memory: bytes that it may use. forms: bits of the base and
    batch size, one of which it takes. ranks: for each matrix, in the same order for all silos, the
    ranks that an adapter may have there, smallest first; the silo takes one or none.
    """

    name: str
    weight: float
    memory: float
    forms: tuple[Choice, ...]
    ranks: tuple[tuple[Choice, ...], ...]


@dataclass(frozen=True)
class Problem:
    """All silos, the bound on a round's seconds, and the most matrices that get an adapter.

    matrices: None: as many as there are.
    depths: of each matrix, the number of upper layers that gradients flow through if it has an
        adapter; empty: any form reaches all.
    """

    silos: tuple[SiloChoices, ...]
    seconds: float
    matrices: int | None = None
    depths: tuple[int, ...] = ()

    def __post_init__(self) -> None:
        if len({len(silo.ranks) for silo in self.silos}) != 1:
            raise ValueError("silos choose ranks for different numbers of matrices")
        if len(self.depths) not in (0, self.count):
            raise ValueError("depths are those of all matrices, or of none")

    def reaches(self, form: Choice, matrix: int) -> bool:
        """True if a matrix may have an adapter in a form of training."""
        return form.depth is None or not self.depths or self.depths[matrix] <= form.depth

    @property
    def count(self) -> int:
        """The number of matrices that may get an adapter."""
        return len(self.silos[0].ranks)

    @property
    def most(self) -> int:
        """The most of them that get one."""
        return self.count if self.matrices is None else min(self.matrices, self.count)


@dataclass(frozen=True)
class SiloPlan:
    """The plan of one silo: the places of its form and of each rank; None: no adapter there."""

    form: int
    ranks: tuple[int | None, ...]

    @property
    def trains(self) -> bool:
        """True if the silo has any adapter; without one it could not take part."""
        return any(rank is not None for rank in self.ranks)


@dataclass(frozen=True)
class Allocation:
    """A plan for all silos, in their order.

    gap: how far its gain may be below the best one's, as a share of that; None: not known.
    """

    silos: tuple[SiloPlan, ...]
    gap: float | None = None


def chosen(silo: SiloChoices, plan: SiloPlan) -> Iterator[Choice]:
    """All that a silo has chosen: its form, then the ranks."""
    yield silo.forms[plan.form]
    for ranks, place in zip(silo.ranks, plan.ranks, strict=True):
        if place is not None:
            yield ranks[place]


def memory(silo: SiloChoices, plan: SiloPlan) -> float:
    """The bytes that a silo's plan takes."""
    return sum(choice.memory for choice in chosen(silo, plan))


def seconds(silo: SiloChoices, plan: SiloPlan) -> float:
    """The seconds of a round that a silo's plan takes."""
    return sum(choice.seconds for choice in chosen(silo, plan))


def gain(problem: Problem, plans: Sequence[SiloPlan]) -> float:
    """The gain of a plan for all silos."""
    pairs = zip(problem.silos, plans, strict=True)
    return sum(silo.weight * sum(c.gain for c in chosen(silo, plan)) for silo, plan in pairs)


def fits(problem: Problem, plans: Sequence[SiloPlan]) -> bool:
    """True if a plan for all silos is within all bounds."""
    used = {place for plan in plans for place, rank in enumerate(plan.ranks) if rank is not None}
    pairs = zip(problem.silos, plans, strict=True)
    return len(used) <= problem.most and all(holds(problem, silo, plan) for silo, plan in pairs)


def holds(problem: Problem, silo: SiloChoices, plan: SiloPlan) -> bool:
    """True if a silo's plan is within its memory and the round, and its form reaches all ranks."""
    form = silo.forms[plan.form]
    reached = (problem.reaches(form, m) for m, rank in enumerate(plan.ranks) if rank is not None)
    return (
        all(reached)
        and memory(silo, plan) <= silo.memory
        and seconds(silo, plan) <= problem.seconds
    )
