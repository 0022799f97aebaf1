"""What stands on top of a transformer, and what comes out of it: the role of heads."""

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
    """How a base model is loaded, and its outputs where there is a label.

    task: what PEFT calls it. auto: transformers' class that picks the model's own.
    reads: what objectives and tasks may need of it, and as what rows are then rendered.
    lacking: by what is needed, what is to be said of a model that does not have it.
    speaks: whether it generates text; then the base model has its weights, and it is not new.
    causal: whether no token looks to the right, so that padding there needs no mask.
    splits: whether it parts a row in two, whose lengths then depend on the rows beside it.
    """

    task: ClassVar[str]
    auto: ClassVar[type[Any]]
    reads: ClassVar[Mapping[str, str]]
    lacking: ClassVar[Mapping[str, str]] = {}
    speaks: ClassVar[bool] = False
    causal: ClassVar[bool] = False
    splits: ClassVar[bool] = False

    @classmethod
    @abstractmethod
    def of(cls, config: Any, classes: int) -> "Head | None":
        """This head for a model of this configuration; none if that cannot have it.

        classes: how many outputs it has, if their number is not that of the words.
        """

    @property
    def options(self) -> dict[str, Any]:
        """What transformers is told beside the model's place."""
        return {}

    @abstractmethod
    def logits(self, model: Any, ids: Tensor, at: Tensor, lengths: Tensor) -> Tensor:
        """(N, classes) outputs.

        ids: (R, T) tokens, padded on the right; at: (N,) places in the flattened (R·T) positions;
        lengths: (R,) tokens of each row.
        """


@dataclass(frozen=True)
class EncoderHead(Head):
    """A head that is new, and always trained: an encoder's outputs, one for each class.

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
    kinds = [registry.find(FOLDER, own) for own in registry.names(FOLDER)]
    heads = [kind for kind in kinds if issubclass(kind, Head) and example_kind in kind.reads]
    found = next((own for own in (head.of(config, classes) for head in heads) if own), None)
    if found is None:
        kind = next(iter(config.architectures or ()), type(config).__name__)
        said = next(head.lacking[example_kind] for head in heads if example_kind in head.lacking)
        raise UserError(f"the model {name} is a {kind}, which {said}.")
    return found


def is_causal(config: Any) -> bool:
    """Whether a model predicts the next token; one that does not say what it is is taken to."""
    kinds = set(config.architectures or ())
    if not kinds:
        return not getattr(config, "is_encoder_decoder", False)
    return bool(kinds & set(MODEL_FOR_CAUSAL_LM_MAPPING_NAMES.values()))
