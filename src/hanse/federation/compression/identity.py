"""No codec: tensors travel as they are."""

from dataclasses import dataclass
from typing import ClassVar

from hanse.federation.interfaces.declarations import PAYLOADS
from hanse.federation.interfaces.results import Memory
from hanse.federation.interfaces.transform import Transform
from hanse.federation.messages import Update
from hanse.randomness import RoundContext
from hanse.tensors.named import Tensors


@dataclass(frozen=True)
class Identity(Transform):
    """Tensors travel as they are; a baseline for other codecs."""

    linear: ClassVar[bool] = True
    lossless: ClassVar[bool] = True
    payloads: ClassVar[tuple[str, ...]] = PAYLOADS

    def encode(
        self, update: Update, memory: Memory, state: Tensors, context: RoundContext
    ) -> Update:
        """The update itself."""
        return update

    def decode(self, update: Update, state: Tensors, context: RoundContext) -> Update:
        """The update itself."""
        return update
