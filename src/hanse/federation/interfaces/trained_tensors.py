"""The trained half of a learner: its parameters, by name, and what else decides their effect."""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from pathlib import Path

from torch import Tensor
from torch.nn import Parameter

from hanse.federation.constants import Constants
from hanse.federation.interfaces.results import Memory
from hanse.federation.interfaces.row_protection import RowProtection, Sampling
from hanse.tensors.low_rank import RESIDUAL
from hanse.tensors.named import Tensors, refuse_unlike, strip_prefix
from hanse.tensors.serialization import Numbers

# Numbers by which an instruction asks for a part of the adapter: its layers, counted from the top,
# and the size of what is inside of each, such as LoRA's rank.
DEPTH, WIDTH = "adapter_depth", "adapter_width"
SHARE = "share_of_steps"  # the number by which it asks for a share of a round's steps, at most 1


class TrainedTensors(ABC):
    """The tensors that a learner trains, beside a base that stays as it is."""

    @abstractmethod
    def parameters(self) -> Mapping[str, Parameter]:
        """The trainable parameters by name (the live ones)."""

    @property
    def trained_count(self) -> int:
        """The number of weights that training changes."""
        return sum(parameter.numel() for parameter in self.parameters().values())

    def configure(self, numbers: Numbers) -> None:  # noqa: B027 (most learners ignore them)
        """Configure the adapter by an instruction's numbers (a rank); by default do nothing.

        With DEPTH and WIDTH only this part of it is trained, or all if it has no more. Its initial
        tensors are leading blocks of the whole adapter's. With SHARE fewer steps are made.
        """

    def keep_optimizer_state(self, state: Memory) -> None:  # noqa: B027 (many have none)
        """Let training go on from the optimizer's state of the last round, and update it there."""

    def sampling(self) -> Sampling:
        """The draw of rows in a training that hides each of them."""
        raise TypeError(f"{type(self).__name__} computes no gradients of single rows")

    def protect(self, protection: RowProtection) -> None:
        """Hide each row in the next `fit`, and let nothing else read the training rows."""
        raise TypeError(f"{type(self).__name__} computes no gradients of single rows")

    @property
    def scaling(self) -> float:
        """The factor of a LoRA adapter's products, α/r."""
        return 1.0

    def initial(self) -> Tensors:
        """The trainable tensors before any training; equal settings give equal tensors."""
        raise TypeError(f"{type(self).__name__} has no initial tensors")

    def constants(self) -> Constants:
        """The adapter's constants, the same on all machines; by default none."""
        return Constants()

    def has_constants(self, digest: str) -> bool:
        """True if the learner has the constants with this hash."""
        return not digest

    def put_constants(self, constants: Constants) -> None:
        """Use these constants; raises UserError unless names and shapes are the same."""
        if constants.digest:
            raise TypeError(f"{type(self).__name__} has no constants")

    def freeze(self, tensors: Tensors) -> None:
        """Set some of the parameters and freeze them: they are neither trained nor sent.

        This learner's `parameters`, `tensors` and `load` no longer include them.
        """
        raise TypeError(f"{type(self).__name__} cannot freeze parameters")

    def names_in(self, whole: "TrainedTensors") -> dict[str, str]:
        """The name of each trained tensor in the model that this learner's model is an emulator of.

        By default they are equal. Raises UserError unless `whole` trains the same tensors.
        """
        refuse_unlike(whole.parameters(), self.parameters())
        return {name: name for name in self.parameters()}

    def tensors(self) -> dict[str, Tensor]:
        """Copies of the trainable tensors on the CPU."""
        return {name: p.detach().cpu().clone() for name, p in self.parameters().items()}

    def on_device(self, tensors: Tensors) -> dict[str, Tensor]:
        """These tensors on the parameters' device, for a penalty that needs them in every step."""
        device = next(iter(self.parameters().values())).device
        return {name: tensor.to(device) for name, tensor in tensors.items()}

    def set_residual(self, residual: Tensors) -> None:
        """Add the low-rank update up·down to each frozen layer; it replaces the previous one."""
        if residual:
            raise TypeError(f"{type(self).__name__} cannot change its frozen base")

    def load(self, tensors: Tensors) -> None:
        """Set the parameters in place; raises UserError unless names and shapes are the same.

        Tensors with the prefix RESIDUAL go to `set_residual`; without any the residual is removed.
        """
        live = self.parameters()
        refuse_unlike(live, {n: t for n, t in tensors.items() if not n.startswith(RESIDUAL)})
        for name, parameter in live.items():
            parameter.data.copy_(tensors[name])
        self.set_residual(strip_prefix(tensors, RESIDUAL))

    @abstractmethod
    def save(self, folder: Path) -> None:
        """Save the trained tensors in a form that can be loaded without this package."""
