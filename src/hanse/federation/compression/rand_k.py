"""Rand-k: numbers of an update at random places, which are the same for all clients."""

import zlib
from dataclasses import dataclass, replace
from typing import Annotated, ClassVar

import torch
from pydantic import Field
from torch import Tensor

from hanse.errors import UserError
from hanse.federation.interfaces.declarations import Stage
from hanse.federation.interfaces.results import Memory
from hanse.federation.interfaces.transform import Transform
from hanse.federation.messages import Update
from hanse.randomness import RoundContext
from hanse.tensors import sparse
from hanse.tensors.named import Layout, Tensors, drop, from_bytes, largest, to_bytes
from hanse.tensors.serialization import MessageError
from hanse.tensors.table import MOST_BYTES, Table, floats, join, required

VALUES = "rand_k.values"
TABLE = "table"  # in the state that every request carries


@dataclass(frozen=True)
class RandK(Transform):
    """A share of the numbers of an update, drawn anew each round; all others become zeros.

    All clients and the server draw the same places from the run's seed and the round, so that
    values travel alone: four bytes each, and sums of messages are messages. Tensors of integers
    travel as they are. The request carries the names and shapes of the tensors, compressed.

    share: of the numbers of all float tensors together; at least one number is sent.
    unbiased: numbers are multiplied by 1/share, so that their mean over rounds is the update
        (Wangni et al. 2018, 1710.09854). Without it, use error feedback, which then sends what was
        left out before (Stich et al. 2018, 1809.07599).
    """

    linear: ClassVar[bool] = True
    stage: ClassVar[Stage | None] = "reduce"
    share: Annotated[float, Field(gt=0, le=1)] = 0.01
    unbiased: bool = False

    @property
    def contractive(self) -> bool:
        """False for numbers that are multiplied: the loss is 1/share - 1 times the update."""
        return not self.unbiased

    def init(self, expected: Layout) -> Tensors:
        """The table of the tensors, compressed."""
        table = Table.of(floats(expected)).to_tensor()
        return {TABLE: from_bytes(zlib.compress(to_bytes(table)))}

    def layout(self, expected: Layout, state: Tensors) -> Layout:
        """The values, and tensors of integers; raises UserError for tensors unlike the table's."""
        table = _table_for(expected, state)
        values = torch.empty(sparse.kept(self.share, table.numbers), device="meta")
        return join(drop(expected, table.entries), {VALUES: values})

    def encode(
        self, update: Update, memory: Memory, state: Tensors, context: RoundContext
    ) -> Update:
        """The update with the numbers at this round's places in place of its float tensors."""
        table = _table_for(update.tensors, state)
        values = table.flatten(update.tensors)[self._places(table, context)]
        others = drop(update.tensors, table.entries)
        return replace(update, tensors=join(others, {VALUES: values}))

    def decoded_bytes(self, update: Update, state: Tensors) -> int:
        """The bytes of the tensors in the table."""
        return _table(state).bytes

    def decode(self, update: Update, state: Tensors, context: RoundContext) -> Update:
        """The update with its float tensors, in which all numbers that were not sent are zeros."""
        values, table = required(update.tensors, VALUES), _table(state)
        places = self._places(table, context)
        if values.shape != places.shape or not values.is_floating_point():
            raise MessageError(f"{len(places):,} places came with {tuple(values.shape)} values")
        flat = values.new_zeros(table.numbers)
        flat[places] = values * (table.numbers / max(1, len(places))) if self.unbiased else values
        return replace(update, tensors={**drop(update.tensors, {VALUES}), **table.split(flat)})

    def _places(self, table: Table, context: RoundContext) -> Tensor:
        """The places of this round, the same for all clients."""
        seed = replace(context, client="").derive("rand_k")
        return sparse.random_places(seed, table.numbers, sparse.kept(self.share, table.numbers))


def _table_for(tensors: Layout, state: Tensors) -> Table:
    """The table in the server's state; raises UserError unless these are its tensors.

    Under a rule that sees sums only, all have the dtype of sums.
    """
    table = _table(state)
    shapes = {name: tuple(largest(form).shape) for name, form in tensors.items()}
    unlike = [name for name, entry in table.entries.items() if shapes.get(name) != entry.shape]
    if unlike:
        known = table.entries.keys() & shapes.keys()  # powersgd finds matrices by their names, too
        raise UserError(
            "rand_k needs updates of the same tensors from all clients in all rounds, "
            f"and one lacks {unlike[0]}, since its client trains others or the algorithm sends "
            f"others in this round; name {'powersgd in its place, or ' if known else ''}top_k if "
            "the aggregator sees each update, or leave it out of compression."
        )
    return table


def _table(state: Tensors) -> Table:
    """The table in the server's state; raises MessageError for a state without one."""
    stream = zlib.decompressobj()
    try:
        data = stream.decompress(to_bytes(required(state, TABLE)), MOST_BYTES + 1)
    except zlib.error as error:
        raise MessageError(f"the table of rand_k cannot be inflated: {error}") from None
    return Table.read(from_bytes(data))
