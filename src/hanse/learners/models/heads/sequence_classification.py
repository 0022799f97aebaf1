"""One of several classes for a whole text: an encoder with a classification head."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

from torch import Tensor
from transformers import AutoModelForSequenceClassification
from transformers.models.auto.modeling_auto import MODEL_FOR_SEQUENCE_CLASSIFICATION_MAPPING

from hanse.learners.models.head import Head, is_causal, read


@dataclass(frozen=True)
class SequenceClassification(Head):
    """(N, classes) logits, one row of them for each text. The head is new, and always trained."""

    task: ClassVar[str] = "SEQ_CLS"
    auto: ClassVar[type[Any]] = AutoModelForSequenceClassification
    reads: ClassVar[Mapping[str, str]] = {"choices": "classes"}
    lacking: ClassVar[Mapping[str, str]] = {
        "choices": "does not choose between labels; choose an encoder, such as minilm-l6, or a "
        "causal language model, or let objective: sft write the labels"
    }

    classes: int

    @classmethod
    def of(cls, config: Any, classes: int) -> Head | None:
        if is_causal(config) or getattr(config, "is_encoder_decoder", False):
            return None
        return cls(classes) if type(config) in MODEL_FOR_SEQUENCE_CLASSIFICATION_MAPPING else None

    @property
    def options(self) -> dict[str, Any]:
        return {"num_labels": self.classes}

    def logits(self, model: Any, ids: Tensor, at: Tensor, lengths: Tensor) -> Tensor:
        mask = read(ids, lengths)
        found: Tensor = model(input_ids=ids, attention_mask=mask).logits
        return found[at.div(ids.shape[1], rounding_mode="floor")]
