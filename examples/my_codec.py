"""A codec that lives outside the package; in an experiment:

compression: [{examples/my_codec.py:Grid: {levels: 7}}]
"""

from dataclasses import dataclass, replace
from typing import Annotated

import torch
from pydantic import Field

from hanse.federation.interfaces.results import Memory
from hanse.federation.interfaces.transform import Transform
from hanse.federation.messages import Update
from hanse.randomness import RoundContext
from hanse.tensors.named import Layout, Tensors

STEP = "#step"  # behind a tensor's name: the distance of its grid points


@dataclass(frozen=True)
class Grid(Transform):
    """Each tensor as one byte a number: the nearest of 2·levels + 1 points of a grid."""

    levels: Annotated[int, Field(ge=1, le=127)] = 127

    def layout(self, expected: Layout, state: Tensors) -> Layout:
        """The names, shapes and types of what `encode` returns."""
        points = {name: torch.empty_like(t, dtype=torch.int8) for name, t in expected.items()}
        return points | {name + STEP: torch.empty((), device="meta") for name in expected}

    def encode(
        self, update: Update, memory: Memory, state: Tensors, context: RoundContext
    ) -> Update:
        """At the client: the number of the nearest point, for every number of every tensor."""
        steps = {n: t.abs().max() / self.levels + 1e-30 for n, t in update.tensors.items()}
        points = {n: (t / steps[n]).round().to(torch.int8) for n, t in update.tensors.items()}
        return replace(update, tensors=points | {n + STEP: step for n, step in steps.items()})

    def decode(self, update: Update, state: Tensors, context: RoundContext) -> Update:
        """At the server: the points, for the rule that combines updates."""
        names = [name for name in update.tensors if not name.endswith(STEP)]
        points = {n: update.tensors[n] * update.tensors[n + STEP] for n in names}
        return replace(update, tensors=points)
