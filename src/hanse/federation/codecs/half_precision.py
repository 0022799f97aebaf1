"""The common half of codecs that send floats in a format of two bytes."""

from collections.abc import Mapping
from dataclasses import replace
from typing import ClassVar

import torch
from torch import Tensor

from hanse.federation.interfaces.declarations import PAYLOADS, Stage
from hanse.federation.interfaces.results import Memory
from hanse.federation.interfaces.transform import Transform
from hanse.federation.messages import Update
from hanse.randomness import RoundContext
from hanse.tensors.lazy import Lazy
from hanse.tensors.named import Bounded, Layout, Tensors, largest
from hanse.tensors.serialization import MessageError
from hanse.tensors.table import Form, Table, floats, join


class HalfPrecision(Transform):
    """A codec that rounds float32 and float64 to nearest even, in a format of two bytes.

    Tensors of integers, and of floats with two bytes or fewer, travel as they are. All tensors
    arrive in the dtype that they had. A table names the dtypes of float64 tensors and of those that
    had the format before; other tensors of the format arrive as float32.
    """

    linear: ClassVar[bool] = False
    stage: ClassVar[Stage | None] = "quantize"
    payloads: ClassVar[tuple[str, ...]] = PAYLOADS
    format: ClassVar[torch.dtype]

    def layout(self, expected: Layout, state: Tensors) -> Layout:
        """The same names and shapes with two bytes for each float, and the table if any."""
        forms: dict[str, Tensor | Bounded] = {}
        for name, form in expected.items():
            narrow = self._narrowed(largest(form))
            forms[name] = Bounded(narrow) if isinstance(form, Bounded) else narrow
        named = self._named(expected)
        return join(forms, {self._table: Table.form(named)}) if named else forms

    def encode(
        self, update: Update, memory: Memory, state: Tensors, context: RoundContext
    ) -> Update:
        """The update with rounded tensors."""
        tensors = {name: self._narrowed(tensor) for name, tensor in update.tensors.items()}
        if named := self._named(update.tensors):
            tensors = join(tensors, {self._table: Table.of(named).to_tensor()})
        return replace(update, tensors=tensors)

    def decode(self, update: Update, state: Tensors, context: RoundContext) -> Update:
        """The update with its dtypes again; raises MessageError for a table of other tensors."""
        tensors = update.tensors
        entries = Table.read(tensors[self._table]).entries if self._table in tensors else {}
        names = [name for name in tensors if name != self._table]
        if unknown := sorted(entries.keys() - {*names}):
            raise MessageError(f"{unknown[0]!r:.80} is in {self._table}, and did not come")

        def widened(name: str) -> Tensor:
            tensor = tensors[name]
            if tensor.dtype != self.format:
                return tensor
            return tensor.to(entries[name].dtype if name in entries else torch.float32)

        return replace(update, tensors=Lazy(names, widened))

    @property
    def _table(self) -> str:
        return f"{type(self).__name__.lower()}.table"

    def _narrowed(self, tensor: Tensor) -> Tensor:
        """The numbers in the format, unless they are integers or short floats."""
        is_long = tensor.is_floating_point() and tensor.itemsize > 2
        return tensor.to(self.format) if is_long else tensor

    def _named(self, tensors: Mapping[str, Form]) -> dict[str, Form]:
        """The tensors whose dtype the receiver could not tell without a table."""
        dtypes = (self.format, torch.float64)
        return {n: form for n, form in floats(tensors).items() if largest(form).dtype in dtypes}
