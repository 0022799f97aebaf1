"""The role of a head: the outputs on top of a transformer."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

from torch import Tensor
from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES

from hanse import registry
from hanse.errors import UserError
from hanse.learners.models import attention_weights
from hanse.learners.models.label_logits import selected_states
from hanse.learners.models.padding import padding_mask

FOLDER = "learners/models/heads"
# A method of a head that reads something for each output, by the arguments of `logits`.
Reading = Callable[[Any, Tensor, Tensor, Tensor], Tensor]


@dataclass(frozen=True)
class LayerOutputs:
    """Outputs of all layers of a model, empty where they were not asked for.

    hidden_states: (R, T, width) each. attentions: (R, heads, T, T) each.
    at: (N,) flattened (R·width) positions of the tokens that outputs are made of.
    width: the tokens of a row, without virtual ones, which may precede them.
    """

    hidden_states: Sequence[Tensor]
    attentions: Sequence[Tensor]
    at: Tensor
    width: int

    @classmethod
    def of(cls, output: Any, at: Tensor, width: int, part: str = "") -> "LayerOutputs":
        """Those in an output of transformers; part: the prefix of their names there."""
        states, weights = (
            getattr(output, f"{part}{name}", None) or () for name in ("hidden_states", "attentions")
        )
        return cls(states, weights, at, width)


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

    def hidden_states(self, model: Any, ids: Tensor, at: Tensor, lengths: Tensor) -> Tensor:
        """(layers + 1, N, width): the first layer's input and each layer's output, for each output.

        The arguments are those of `logits`.
        """
        found = self.layers(model, ids, at, lengths, output_hidden_states=True)
        return selected_states(found.hidden_states, found.at, found.width)

    def attentions(self, model: Any, ids: Tensor, at: Tensor, lengths: Tensor) -> Tensor:
        """(layers, N, heads, T): each token's weight in the attention of each output's token.

        The arguments are those of `logits`. Raises UserError for a model without such weights.
        """
        with attention_weights.computed(model):
            found = self.layers(model, ids, at, lengths, output_attentions=True)
        return attention_weights.selected_weights(found.attentions, found.at, found.width)

    @abstractmethod
    def layers(
        self, model: Any, ids: Tensor, at: Tensor, lengths: Tensor, **wanted: bool
    ) -> LayerOutputs:
        """The outputs of the layers, such as transformers returns them.

        The arguments are those of `logits`. wanted: output_hidden_states, output_attentions.
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
