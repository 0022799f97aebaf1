"""A round without a federation: rows of a matrix as the updates of clients, and a rule for them."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor

from hanse.federation.algorithms.fedavg import FedAvg
from hanse.federation.interfaces.aggregator import Aggregator
from hanse.federation.interfaces.algorithm import Algorithm
from hanse.federation.interfaces.results import Aggregate
from hanse.federation.messages import ClientProfile, Instruction, Update
from hanse.tensors.named import Layout, Tensors

# Settings that the defaults of a rule lack.
SETTINGS: dict[str, dict[str, Any]] = {"fltrust": {"root": "c0"}}
ODD = (3, 7)  # the shape of a row's second tensor


@dataclass
class CollectedRound:
    """The `Exchange` of a round whose updates are there; a rule that reads updates needs no more.

    asked: the number of clients that were asked, if not all of them have answered.
    """

    answers: Mapping[str, Update]
    algorithm: Algorithm = field(default_factory=FedAvg)
    asked: int = 0
    numbers: Mapping[str, Mapping[str, float]] = field(default_factory=dict)
    round: int = 1

    @property
    def profiles(self) -> dict[str, ClientProfile]:
        silent = [f"silent{index}" for index in range(self.asked - len(self.answers))]
        return {
            name: ClientProfile(name, 100, self.numbers.get(name, {}))
            for name in (*self.answers, *silent)
        }

    def updates(
        self, notes: Mapping[str, Instruction] | None = None
    ) -> Iterator[tuple[ClientProfile, Update]]:
        return ((self.profiles[name], update) for name, update in self.answers.items())

    def sealed(self, notes: Mapping[str, Instruction] | None = None) -> Iterator[object]:
        raise NotImplementedError

    def mean(self, total: Tensors, clients: Sequence[str]) -> Aggregate:
        raise NotImplementedError

    def ask(self, *arguments: object, **more: object) -> Iterator[object]:
        raise NotImplementedError

    def digest(self) -> bytes:
        raise NotImplementedError

    def weight_bound(self) -> float:
        raise NotImplementedError

    def summand_layout(self) -> Layout:
        raise NotImplementedError


def round_of(
    rows: np.ndarray,
    weights: Sequence[float] | None = None,
    asked: int = 0,
    order: Sequence[int] | None = None,
) -> CollectedRound:
    """A round of clients c0, c1, … whose updates are the rows; order: in which they come."""
    weights = weights or [1.0] * len(rows)
    updates = {
        f"c{place}": Update(tensors(row), {"loss": float(place)}, weight)
        for place, (row, weight) in enumerate(zip(rows, weights, strict=True))
    }
    names = [f"c{place}" for place in (range(len(rows)) if order is None else order)]
    return CollectedRound({name: updates[name] for name in names}, asked=asked)


def tensors(row: np.ndarray) -> dict[str, Tensor]:
    """A row as two tensors; the second one has the shape ODD."""
    values = torch.tensor(row, dtype=torch.float32)
    odd = ODD[0] * ODD[1]
    return {"first": values[:-odd].clone(), "second": values[-odd:].reshape(ODD).clone()}


def combined(
    rule: Aggregator, rows: np.ndarray, weights: Sequence[float] | None = None
) -> np.ndarray:
    """The rule's result for these rows, as one row."""
    return row_of(rule.aggregate(round_of(rows, weights)))  # type: ignore[arg-type]


def row_of(aggregate: Aggregate) -> np.ndarray:
    """An aggregate of `tensors` as a row in float64."""
    both = [aggregate.tensors[name].flatten() for name in ("first", "second")]
    return torch.cat(both).double().numpy()


def honest(clients: int, seed: int = 0, size: int = 40, spread: float = 1.0) -> np.ndarray:
    """(clients, size) rows around a common one, as float32 has them."""
    draw = np.random.default_rng(seed)
    rows = draw.normal(size=size) + spread * draw.normal(size=(clients, size))
    return rows.astype(np.float32).astype(np.float64)


def attacked(rows: np.ndarray, attackers: int, size: float = 1e6, seed: int = 9) -> np.ndarray:
    """The rows with the last ones replaced by ones of this norm, all in one direction."""
    direction = np.random.default_rng(seed).normal(size=rows.shape[1])
    hostile = size * direction / np.linalg.norm(direction)
    kept = rows[: len(rows) - attackers]
    return np.concatenate([kept, np.tile(hostile, (attackers, 1))]).astype(np.float32)
