"""All clients hold the same mixture of labels and the same number of rows, give or take one."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from hanse.data.formats.row import Row
from hanse.data.partitioning import Partitioner
from hanse.randomness import RoundContext


@dataclass(frozen=True)
class Iid(Partitioner):
    """Rows are shuffled, and dealt to the clients in turn."""

    def assign(
        self, rows: Sequence[Row], num_clients: int, context: RoundContext
    ) -> list[list[int]]:
        """The indices of each client's rows, sorted."""
        order = torch.randperm(len(rows), generator=context.generator("partition")).tolist()
        return [sorted(order[client::num_clients]) for client in range(num_clients)]
