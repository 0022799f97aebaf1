"""The head of encoders that choose one of several classes for each word of a text."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

from torch import Tensor
from transformers import AutoModelForTokenClassification
from transformers.models.auto.modeling_auto import MODEL_FOR_TOKEN_CLASSIFICATION_MAPPING

from hanse.learners.models.head import EncoderHead, LayerOutputs, attention_mask
from hanse.learners.models.label_logits import selected


@dataclass(frozen=True)
class TokenClassification(EncoderHead):
    """(N, classes) logits at the first tokens of words."""

    task: ClassVar[str] = "TOKEN_CLS"
    auto: ClassVar[type[Any]] = AutoModelForTokenClassification
    known: ClassVar[Mapping[Any, Any]] = MODEL_FOR_TOKEN_CLASSIFICATION_MAPPING
    reads: ClassVar[Mapping[str, str]] = {"tags": "tags"}
    lacking: ClassVar[Mapping[str, str]] = {
        "tags": "has no output for each word of a text that it has read whole; choose an encoder, "
        "such as minilm-l6, or an objective other than tag"
    }

    def logits(self, model: Any, ids: Tensor, at: Tensor, lengths: Tensor) -> Tensor:
        mask = attention_mask(lengths, ids.shape[1])
        logits: Tensor = model(input_ids=ids, attention_mask=mask).logits
        return selected(logits, at, ids.shape[1])

    def layers(
        self, model: Any, ids: Tensor, at: Tensor, lengths: Tensor, **wanted: bool
    ) -> LayerOutputs:
        mask = attention_mask(lengths, ids.shape[1])
        output = model(input_ids=ids, attention_mask=mask, **wanted)
        return LayerOutputs.of(output, at, ids.shape[1])
