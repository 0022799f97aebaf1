"""The role of a head: the outputs on top of a transformer."""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

from torch import Tensor
from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES

from hanse import registry
from hanse.errors import UserError
from hanse.learners.models.padding import padding_mask

FOLDER = "learners/models/heads"


class Head(ABC):
    """The way that a base model is loaded, and its outputs where there is a label.

    task: PEFT's name for it. auto: transformers' class that loads such models.
    reads: kinds of examples that objectives and tasks may ask for, and the kind that it then reads.
    lacking: by kind of examples, the end of the message for a model that cannot read them.
    generates_text: the head generates text, and the base model has its weights.
    causal: no token looks to the right, so padding there needs no mask.
    splits: it splits rows in two parts, whose lengths depend on the other rows of the batch.
    """

    task: ClassVar[str]
    auto: ClassVar[type[Any]]
    reads: ClassVar[Mapping[str, str]]
    lacking: ClassVar[Mapping[str, str]] = {}
    generates_text: ClassVar[bool] = False
    causal: ClassVar[bool] = False
    splits: ClassVar[bool] = False

    @classmethod
    @abstractmethod
    def of(cls, config: Any, classes: int) -> "Head | None":
        """This head for a model of this configuration; None if the model cannot have it.

        classes: the number of outputs of a head that has one for each class.
        """

    @property
    def options(self) -> dict[str, Any]:
        """Keyword arguments of transformers' `from_pretrained`."""
        return {}

    @abstractmethod
    def logits(self, model: Any, ids: Tensor, at: Tensor, lengths: Tensor) -> Tensor:
        """(N, classes) outputs.

        ids: (R, T) tokens, padded on the right; at: (N,) flattened (R·T) positions; lengths: (R,)
        tokens of each row.
        """

    @abstractmethod
    def hidden_states(self, model: Any, ids: Tensor, at: Tensor, lengths: Tensor) -> Tensor:
        """(layers + 1, N, width): the first layer's input and each layer's output, for each output.

        The arguments are those of `logits`.
        """


@dataclass(frozen=True)
class EncoderHead(Head):
    """A new head of an encoder, which is always trained: one output for each class.

    known: transformers' models with such a head, by the type of their configuration.
    """

    known: ClassVar[Mapping[Any, Any]]

    classes: int

    @classmethod
    def of(cls, config: Any, classes: int) -> Head | None:
        if is_causal(config) or getattr(config, "is_encoder_decoder", False):
            return None
        return cls(classes) if type(config) in cls.known else None

    @property
    def options(self) -> dict[str, Any]:
        return {"num_labels": self.classes}


def attention_mask(lengths: Tensor, width: int) -> Tensor:
    """(R, width): 1 at the tokens of each row, 0 at its padding.

    A row without tokens is given one: attention to nothing is not finite in bfloat16.
    """
    return padding_mask(lengths.clamp(min=1), width)


def choose(name: str, config: Any, example_kind: str, classes: int) -> Head:
    """The head of the model `name` that reads such examples; raises UserError if it has none.

    example_kind: as objectives declare it, such as "tokens" or "tags".
    """
    parts = [registry.find(FOLDER, part) for part in registry.names(FOLDER)]
    heads = [part for part in parts if issubclass(part, Head) and example_kind in part.reads]
    fitting = next((head for head in (kind.of(config, classes) for kind in heads) if head), None)
    if fitting is None:
        architecture = next(iter(config.architectures or ()), type(config).__name__)
        why = next(head.lacking[example_kind] for head in heads if example_kind in head.lacking)
        raise UserError(f"the model {name} is a {architecture}, which {why}.")
    return fitting


def is_causal(config: Any) -> bool:
    """True if a model predicts the next token, or does not name its architecture."""
    kinds = set(config.architectures or ())
    if not kinds:
        return not getattr(config, "is_encoder_decoder", False)
    return bool(kinds & set(MODEL_FOR_CAUSAL_LM_MAPPING_NAMES.values()))
