"""The role of a compressor: it makes the middle of a model smaller, for an emulator."""

from abc import ABC, abstractmethod
from typing import TYPE_CHECKING, Any, ClassVar

if TYPE_CHECKING:
    from torch.nn import Module

FOLDER = "learners/models/emulators/compressors"


class Compressor(ABC):
    """A way to make a middle smaller: a frozen dataclass whose fields are its settings.

    trains: the smaller middle has weights that distillation can train.
    replaces: no matrix of the middle is kept as it is.
    discloses: words for what the middle has of the whole model's, for those who make or send it.
    """

    trains: ClassVar[bool] = True
    replaces: ClassVar[bool] = True
    discloses: ClassVar[str]

    @abstractmethod
    def kept(self, layers: int) -> list[int]:
        """The positions of the middle's layers that are kept, of so many."""

    def compressed(self, layer: "Module") -> "tuple[Module, int]":
        """A module in place of one linear layer of the middle, and its size for `hollow`.

        Size 0: the module is an ordinary linear layer. By default it is the layer itself.
        """
        return layer, 0

    def hollow(self, layer: "Module", size: int) -> "Module":
        """The module in place of a linear layer, whose tensors are yet to be loaded."""
        raise TypeError(f"{type(self).__name__} keeps linear layers as they are")

    def describe(self) -> dict[str, Any]:
        """Its name and settings as plain values, as `registry.build` takes them."""
        return {type(self).__module__.rpartition(".")[2]: dict(vars(self))}
