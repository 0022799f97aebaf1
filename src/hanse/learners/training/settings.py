"""Settings of local training."""

import math
from dataclasses import dataclass
from typing import Annotated, Literal

from pydantic import ConfigDict, Field, NonNegativeFloat, NonNegativeInt, PositiveFloat, PositiveInt

from hanse.federation.interfaces.row_protection import Sampling

LARGEST_BATCH = 1_000_000  # examples of one optimizer step


@dataclass(frozen=True)
class TrainingSettings:
    """Settings of a client's training in each round, named as in Hugging Face's trainer.

    A round is `max_steps` optimizer steps, or `num_train_epochs` passes (a fraction is allowed)
    over the client's examples; the learning rate's schedule runs over all rounds.
    """

    __pydantic_config__ = ConfigDict(extra="forbid", allow_inf_nan=False)

    learning_rate: PositiveFloat = 1e-3
    per_device_train_batch_size: PositiveInt = 8
    gradient_accumulation_steps: PositiveInt = 1
    max_steps: PositiveInt | None = None  # optimizer steps a round
    num_train_epochs: PositiveFloat | None = None  # passes a round; 1 if neither is given
    optim: Literal["adamw", "sgd"] = "adamw"
    weight_decay: NonNegativeFloat = 0.0
    momentum: Annotated[float, Field(ge=0, lt=1)] = 0.0  # sgd only
    max_grad_norm: NonNegativeFloat = 1.0  # 0 for no clipping
    lr_scheduler_type: Literal["constant", "linear", "cosine"] = "constant"
    warmup_ratio: Annotated[float, Field(ge=0, lt=1)] = 0.0  # share of all steps of all rounds
    # A client's steps of all rounds, instead of warmup_ratio; below 1: a share, as warmup_ratio.
    warmup_steps: NonNegativeInt | Annotated[float, Field(ge=0, lt=1)] = 0
    optimizer_state: Literal["reset", "keep"] = "reset"  # between rounds
    # Rows of a batch hold several examples, up to model.max_length tokens, that do not see each
    # other; the sizes of batches are then in rows.
    packing: bool = False

    def __post_init__(self) -> None:
        if self.batch > LARGEST_BATCH:
            raise ValueError(
                f"train asks for {self.batch:,} examples in a step; lower "
                "per_device_train_batch_size or gradient_accumulation_steps, whose product may be "
                f"{LARGEST_BATCH:,}."
            )
        if self.momentum and self.optim != "sgd":
            raise ValueError(
                f"train.momentum is {self.momentum}, but {self.optim} has none to set; set "
                "train.momentum=0, or train.optim=sgd."
            )

        if self.warmup_steps and self.warmup_ratio:
            raise ValueError(
                f"train has both warmup_steps: {self.warmup_steps} and warmup_ratio: "
                f"{self.warmup_ratio}; leave one of them out."
            )

    def steps(self, examples: int) -> int:
        """Optimizer steps of one round for a client with so many examples."""
        return math.ceil(self.examples_per_round(examples) / self.batch)

    def examples_per_round(self, examples: int) -> int:
        """Examples that a client with so many trains on in one round; repetitions count."""
        if self.max_steps is not None:
            return self.max_steps * self.batch
        return max(1, round(examples * (self.num_train_epochs or 1.0)))

    def most_examples(self, examples: int) -> int:
        """The most examples that a client with so many may train on in one round."""
        rows = self.examples_per_round(examples)
        return rows * examples if self.packing and self.max_steps is not None else rows

    @property
    def batch(self) -> int:
        """Examples of one optimizer step; rows, with packing."""
        return self.per_device_train_batch_size * self.gradient_accumulation_steps

    def sampling(self, rows: int) -> Sampling:
        """The draw of rows in a round that hides each of them: the batch is its size on average."""
        return Sampling(rows, min(1.0, self.batch / rows), self.steps(rows))

    @property
    def optimizer(self) -> str:
        """The optimizer as algorithms name it: "adamw", "momentum" (SGD with it) or "sgd"."""
        return "momentum" if self.momentum else self.optim

    @property
    def sums_gradients(self) -> bool:
        """True if a round's change is −Σ aᵢgᵢ over its own gradients, as `sum_a` assumes."""
        # A momentum that is kept holds gradients of earlier rounds, too.
        earlier = self.momentum > 0 and self.optimizer_state == "keep"
        return self.optim == "sgd" and not earlier

    def warmup(self, steps: float) -> float:
        """The share of so many steps, those of all rounds, in which the learning rate rises."""
        share = self.warmup_steps / steps if self.warmup_steps >= 1 else self.warmup_steps
        return min(share or self.warmup_ratio, 1.0)

    def rate(self, progress: float, steps: float = math.inf) -> float:
        """The learning rate when the share `progress` of all steps of all rounds is done.

        steps: the number of these steps, which only `warmup_steps` needs.
        """
        warmup = self.warmup(steps)
        if progress < warmup:
            return self.learning_rate * progress / warmup
        decay = (progress - warmup) / (1 - warmup)
        if self.lr_scheduler_type == "linear":
            return self.learning_rate * (1 - decay)
        if self.lr_scheduler_type == "cosine":
            return self.learning_rate * (1 + math.cos(math.pi * decay)) / 2
        return self.learning_rate
