"""One of several classes for a whole text: an encoder with a classification head."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor
from transformers import AutoModelForSequenceClassification
from transformers.models.auto.modeling_auto import MODEL_FOR_SEQUENCE_CLASSIFICATION_MAPPING

from hanse.learners.head import Head, is_causal


@dataclass(frozen=True)
class SequenceClassification(Head):
    """(N, classes) logits, one row of them for each text. The head is new, and always trained."""

    task: ClassVar[str] = "SEQ_CLS"
    auto: ClassVar[type[Any]] = AutoModelForSequenceClassification
    reads: ClassVar[Mapping[str, str]] = {"choices": "classes"}

    classes: int

    @classmethod
    def of(cls, config: Any, classes: int) -> Head | None:
        able = type(config) in MODEL_FOR_SEQUENCE_CLASSIFICATION_MAPPING
        return cls(classes) if able and classes and not is_causal(config) else None

    @property
    def options(self) -> dict[str, Any]:
        return {"num_labels": self.classes}

    def logits(self, model: Any, ids: Tensor, at: Tensor, lengths: Tensor) -> Tensor:
        mask = (torch.arange(ids.shape[1], device=ids.device) < lengths[:, None]).long()
        found: Tensor = model(input_ids=ids, attention_mask=mask).logits
        return found[at.div(ids.shape[1], rounding_mode="floor")]
