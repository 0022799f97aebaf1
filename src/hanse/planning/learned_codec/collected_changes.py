"""The changes that a run has collected, as standardized blocks of fit and held-out clients."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from hanse.errors import UserError
from hanse.journal import updates
from hanse.journal.updates import CollectedUpdate
from hanse.tensors import autoencoder
from hanse.tensors.table import Table, floats

MOST_NUMBERS = 2**28  # in memory: 1 GiB; beyond it only some blocks of each change are read


@dataclass(frozen=True)
class Changes:
    """Changes of the model, each by one client in one round, in blocks.

    unit: (changes, blocks, B) numbers, divided by the scale of their block.
    exponents: (changes, blocks) of these scales.
    """

    unit: Tensor
    exponents: Tensor

    @property
    def blocks(self) -> Tensor:
        """All blocks with anything in them, (n, B)."""
        blocks = self.unit.flatten(0, 1)
        return blocks[blocks.any(1)]

    def values(self, change: int, unit: Tensor) -> Tensor:
        """Standardized blocks (blocks, B) as the numbers (n,) of a change with these scales."""
        return (unit * autoencoder.scales(self.exponents[change])).reshape(-1)


def read(folder: Path, block: int, held_out: float, seed: int) -> tuple[Changes, Changes]:
    """The changes of the clients to fit, and of held-out clients, drawn by seed.

    held_out: the share of the clients that is held out, at least one.
    """
    collected = updates.listed(folder)
    if not collected:
        raise UserError(
            f"{folder} has no updates of single clients; run its experiment with "
            "compression.collect: true and another output_dir."
        )
    clients = sorted({update.client for update in collected})
    if len(clients) < 2:
        raise UserError(
            f"only {clients[0]} has sent updates in {folder}, and one client is held out of the "
            "fit; let 2 clients or more take part."
        )
    order = torch.randperm(len(clients), generator=torch.Generator().manual_seed(seed)).tolist()
    most = min(len(clients) - 1, max(1, round(held_out * len(clients))))
    held = {clients[place] for place in order[:most]}
    blocks = autoencoder.count(_table(collected[0]).numbers, block)
    stride = -(-blocks * block * len(collected) // MOST_NUMBERS)
    groups = [[u for u in collected if (u.client in held) == side] for side in (False, True)]
    fit, others = (changes(group, block, stride) for group in groups)
    return fit, others


def changes(collected: Sequence[CollectedUpdate], block: int, stride: int = 1) -> Changes:
    """These updates in blocks; stride: 1 for all blocks, 2 for every other one."""
    table, unit, exponents = _table(collected[0]), [], []
    for update in collected:
        if (other := _table(update)) != table:
            raise UserError(
                f"{update.file} has {other.numbers:,} numbers in other tensors than the first "
                "update; a codec is fitted on clients whose adapters have one layout."
            )
        blocks = autoencoder.split(table.flatten(update.read()), block)[::stride]
        exponents.append(autoencoder.exponents(blocks))
        unit.append(blocks / autoencoder.scales(exponents[-1]))
    return Changes(torch.stack(unit), torch.stack(exponents))


def _table(update: CollectedUpdate) -> Table:
    return Table.of(floats(update.read()))
