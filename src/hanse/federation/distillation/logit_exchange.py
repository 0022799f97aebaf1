"""The settings and declarations of algorithms whose clients send logits of public rows."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
from pydantic import PositiveInt
from torch import Tensor

from hanse.errors import UserError
from hanse.federation.distillation.public_logits import DTYPES, PUBLIC, SentForm
from hanse.federation.interfaces.algorithm import Algorithm, Client
from hanse.federation.interfaces.declarations import Difference
from hanse.federation.interfaces.model_requirements import ModelFacts
from hanse.federation.messages import ClientProfile, Instruction
from hanse.tensors import top_k
from hanse.tensors.named import Tensors, drop, largest
from hanse.tensors.serialization import MessageError

USUAL_K = 128  # of a vocabulary
MOST = 1.0  # of a logit: all that is sent is log p, which a codec may round


@dataclass(frozen=True)
class LogitExchange(Algorithm):
    """Clients with models of their own send the k largest logits of each public row.

    What a client has learned stays in its memory, and no parameter travels. N rows of logits take
    N·(k·(e + 4) + e) bytes, with e bytes for a number.

    classes: the noun for a row's classes in messages.
    """

    payload: ClassVar[str] = "logits"
    instruction_payload: ClassVar[str] = "logits"
    clients_may_differ: ClassVar[Difference] = "model"
    needs_public: ClassVar[tuple[str, ...]] = ("server", "clients")
    replaces_loss: ClassVar[tuple[str, ...]] = (PUBLIC,)
    classes: ClassVar[str] = "classes"

    k: PositiveInt | None = (
        None  # None: 128 words of a vocabulary, or all classes if there are less
    )
    dtype: Literal["float32", "float16"] = "float32"  # of the logits that are sent
    batch_size: PositiveInt = 8  # public rows of a forward pass without training

    def require(self, trained: ModelFacts, beside: Mapping[str, ModelFacts]) -> None:
        if None not in (self.k, trained.classes):
            self.refuse_more(self.k or 0, trained.classes or 0, trained.name)

    def max_weight(self, profile: ClientProfile) -> float:
        return 1.0

    def measured(self, tensors: Tensors) -> Mapping[str, Tensors]:
        """No part, since a row is learned as a distribution, and `check` bounds its logits."""
        return {}

    def personalized(self, instruction: Instruction, client: Client) -> Tensors:
        return dict(client.memory) or client.learner.initial()

    def kept(self, classes: int) -> int:
        """The classes of a row that are sent."""
        return min(USUAL_K, classes) if self.k is None else self.k

    def form(self, k: int, temperature: float = 1.0) -> SentForm:
        """The form of predictions with k logits of a row."""
        return SentForm(k, temperature, self.dtype, self.batch_size)

    def logits_layout(self, rows: int, classes: int) -> dict[str, Tensor]:
        """The layout of all rows' predictions, which are as many as the server's."""
        parts = top_k.layout(rows, self.kept(classes), classes, DTYPES[self.dtype])
        return {name: largest(part) for name, part in parts.items()}

    def any_logits(self, rows: int, classes: int) -> dict[str, Tensor]:
        """Predictions that nobody has made, in the form in which those of so many rows are sent."""
        draw, kept = torch.Generator().manual_seed(0), self.kept(classes)
        step = classes // kept  # no class twice in a row
        return {
            name: torch.rand(form.shape, generator=draw).to(form.dtype)
            if form.is_floating_point()
            else torch.randint(step, form.shape, generator=draw, dtype=form.dtype)
            + step * torch.arange(kept, dtype=form.dtype)
            for name, form in self.logits_layout(rows, classes).items()
        }

    def check(self, parts: Tensors, classes: int) -> None:
        """Raise MessageError unless these are logarithms of probabilities over so many classes."""
        top_k.check(parts, classes)
        if any(
            part.numel() and float(part.max()) > MOST
            for part in drop(parts, {top_k.INDICES}).values()
        ):
            raise MessageError("logits are above those of any probability")

    def refuse_more(self, k: int, classes: int, model: str) -> None:
        """Raise UserError for more classes of a row than a model has. model: as in a sentence."""
        name = type(self).__name__.lower()
        if k > classes:
            raise UserError(
                f"{name}.k is {k:,}, but {model} has {classes:,} {self.classes}; set "
                f"algorithm.{name}.k to {classes:,} at most, or leave it out."
            )


def refuse_unusable(tensors: Tensors, rows: int, classes: int) -> None:
    """Raise UserError, at a client, unless these are a server's predictions of so many rows."""
    try:
        top_k.check(tensors, classes)
        if (found := len(tensors[top_k.VALUES])) != rows:
            raise MessageError(f"there are logits of {found:,} rows, but {rows:,} public ones")
    except MessageError as error:
        raise UserError(
            f"the server's predictions cannot be used: {error}; update the server or this silo to "
            "the same version of hanse, or start again with a lower train.learning_rate."
        ) from None
