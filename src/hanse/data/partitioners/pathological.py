"""Each client holds the same small number of labels.

Li et al. 2022 (Federated Learning on Non-IID Data Silos, arXiv:2102.02079), "#C = k".
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from pydantic import PositiveInt

from hanse.data.formats.row import Row
from hanse.data.partitioning import LABEL, Column, Partitioner, cut, groups, proportional
from hanse.errors import UserError
from hanse.randomness import RoundContext

TRIES = 10_000  # draws of the clients' labels; each takes microseconds


@dataclass(frozen=True)
class Pathological(Partitioner):
    """The rows of a label are dealt evenly to the clients that hold it.

    num_classes_per_partition: the number of labels that each client holds.
    class_assignment_mode: random: any labels; deterministic: the i-th client holds the i-th label
        and those that follow it; first-deterministic: the i-th label and random others, as in the
        paper. Random labels are drawn again until each label has a client.
    """

    num_classes_per_partition: PositiveInt = 2
    class_assignment_mode: Literal["random", "deterministic", "first-deterministic"] = "random"
    partition_by: Column = LABEL

    def assign(
        self, rows: Sequence[Row], num_clients: int, context: RoundContext
    ) -> list[list[int]]:
        """The indices of each client's rows, sorted; raises UserError for rows without label."""
        by_label = groups(rows, self)
        generator = np.random.default_rng(context.derive("partition"))
        held = self._held(list(by_label), num_clients, generator)
        clients: list[list[int]] = [[] for _ in range(num_clients)]
        for label, (value, indices) in enumerate(by_label.items()):
            holders = [client for client, labels in enumerate(held) if label in labels]
            if len(holders) > len(indices):
                raise UserError(
                    f"pathological: {len(holders)} clients are to hold the {self.partition_by} "
                    f"{value!r}, of which there are {len(indices)} rows; ask for fewer clients, or "
                    "lower num_classes_per_partition."
                )
            shares = cut(
                generator.permutation(indices), proportional([1] * len(holders), len(indices))
            )
            for client, share in zip(holders, shares, strict=True):
                clients[client].extend(share)
        return [sorted(client) for client in clients]

    def _held(
        self, values: list[str], num_clients: int, generator: np.random.Generator
    ) -> list[set[int]]:
        """The numbers of the labels that each client holds; every label has a client."""
        if self.num_classes_per_partition > len(values):
            raise UserError(
                f"pathological.num_classes_per_partition is {self.num_classes_per_partition}, but "
                f"{self.partition_by} has {len(values)} values; lower it."
            )
        random = self.class_assignment_mode != "deterministic"
        enough = self.num_classes_per_partition * num_clients >= len(values)
        for _ in range(TRIES if random and enough else 1):
            held = [self._draw(client, len(values), generator) for client in range(num_clients)]
            if len(set.union(*held)) == len(values):
                return held
        unheld = ", ".join(
            repr(value) for label, value in enumerate(values) if label not in set.union(*held)
        )
        raise UserError(
            f"pathological: {num_clients} clients with {self.num_classes_per_partition} of the "
            f"{len(values)} values of {self.partition_by} each leave some without a client "
            f"({unheld:.80}); raise num_classes_per_partition or the number of clients."
        )

    def _draw(self, client: int, labels: int, generator: np.random.Generator) -> set[int]:
        """Draw the numbers of one client's labels."""
        k = self.num_classes_per_partition
        if self.class_assignment_mode == "deterministic":
            return {(client + number) % labels for number in range(k)}
        order = generator.permutation(labels).tolist()
        if self.class_assignment_mode == "first-deterministic":
            order.remove(client % labels)
            order.insert(0, client % labels)
        return set(order[:k])
