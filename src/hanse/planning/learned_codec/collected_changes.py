"""The changes that a run has collected, as scaled blocks of fit and held-out clients."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from hanse.errors import UserError
from hanse.journal import updates
from hanse.journal.updates import CollectedUpdate
from hanse.tensors import autoencoder
from hanse.tensors.named import Tensors
from hanse.tensors.table import Table, floats

# In memory: 1 GiB, and up to as much again if some blocks are empty. Beyond it only some blocks of
# each change are kept.
MOST_NUMBERS = 2**28


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
        """All blocks that are not empty, (n, B); a view if these are all."""
        blocks = self.unit.flatten(0, 1)
        filled = blocks.any(1)
        return blocks if bool(filled.all()) else blocks[filled]

    def values(self, change: int, unit: Tensor) -> Tensor:
        """Scaled blocks (blocks, B) as the numbers (n,) of a change with these scales."""
        return (unit * autoencoder.scales(self.exponents[change])).reshape(-1)


def read(folder: Path, block: int, held_out: float, seed: int) -> tuple[Changes, Changes]:
    """The changes of the clients to fit, and of held-out clients, drawn by seed.

    held_out: the share of the clients that is held out, at least one.
    Raises UserError where there is nothing to fit.
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
    blocks = autoencoder.count(_table(collected[0].read()).numbers, block)
    stride = max(1, -(-blocks * block * len(collected) // MOST_NUMBERS))
    groups = [[u for u in collected if (u.client in held) == side] for side in (False, True)]
    fit, others = (changes(group, block, stride) for group in groups)
    if not fit.unit.any():
        raise UserError(
            f"all updates in {folder} of the clients to fit are zeros; run its experiment with a "
            "higher train.learning_rate, or with codecs that lose less."
        )
    return fit, others


def changes(collected: Sequence[CollectedUpdate], block: int, stride: int = 1) -> Changes:
    """These updates in blocks; stride: 1 for all blocks, 2 for every other one."""
    table = _table(collected[0].read())
    shape = len(collected), -(-autoencoder.count(table.numbers, block) // stride)
    unit, exponents = torch.empty(*shape, block), torch.empty(shape, dtype=torch.int8)
    for change, update in enumerate(collected):
        tensors = update.read()
        if (other := _table(tensors)) != table:
            raise UserError(
                f"{update.file} has {other.numbers:,} numbers in other tensors than the first "
                "update; a codec is fitted on clients whose adapters have one layout."
            )
        blocks = autoencoder.split(table.flatten(tensors), block)[::stride]
        exponents[change] = autoencoder.exponents(blocks)
        torch.div(blocks, autoencoder.scales(exponents[change]), out=unit[change])
    return Changes(unit, exponents)


def _table(tensors: Tensors) -> Table:
    return Table.of(floats(tensors))
