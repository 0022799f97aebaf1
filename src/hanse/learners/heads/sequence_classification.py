"""One of several classes for a whole text: an encoder with a classification head."""

from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor
from transformers import AutoModelForSequenceClassification

from hanse.learners.head import Head


@dataclass(frozen=True)
class SequenceClassification(Head):
    """(N, classes) logits, one row of them for each text. The head is new, and always trained."""

    task: ClassVar[str] = "SEQ_CLS"
    auto: ClassVar[type[Any]] = AutoModelForSequenceClassification

    classes: int

    @property
    def options(self) -> dict[str, Any]:
        return {"num_labels": self.classes}

    def logits(self, model: Any, ids: Tensor, at: Tensor, lengths: Tensor) -> Tensor:
        mask = (torch.arange(ids.shape[1], device=ids.device) < lengths[:, None]).long()
        found: Tensor = model(input_ids=ids, attention_mask=mask).logits
        return found[at.div(ids.shape[1], rounding_mode="floor")]
