"""The head of encoders that choose one of several classes for a whole text."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

from torch import Tensor
from transformers import AutoModelForSequenceClassification
from transformers.models.auto.modeling_auto import MODEL_FOR_SEQUENCE_CLASSIFICATION_MAPPING

from hanse.learners.models.head import EncoderHead, LayerOutputs, attention_mask


@dataclass(frozen=True)
class SequenceClassification(EncoderHead):
    """(N, classes) logits, one row for each text."""

    task: ClassVar[str] = "SEQ_CLS"
    auto: ClassVar[type[Any]] = AutoModelForSequenceClassification
    known: ClassVar[Mapping[Any, Any]] = MODEL_FOR_SEQUENCE_CLASSIFICATION_MAPPING
    reads: ClassVar[Mapping[str, str]] = {"label_words": "class_labels"}
    lacking: ClassVar[Mapping[str, str]] = {
        "label_words": "does not choose between labels; choose an encoder, such as minilm-l6, or "
        "a causal language model, or let objective: sft write the labels"
    }

    def logits(self, model: Any, ids: Tensor, at: Tensor, lengths: Tensor) -> Tensor:
        mask = attention_mask(lengths, ids.shape[1])
        logits: Tensor = model(input_ids=ids, attention_mask=mask).logits
        return logits[at.div(ids.shape[1], rounding_mode="floor")]

    def layers(
        self, model: Any, ids: Tensor, at: Tensor, lengths: Tensor, **wanted: bool
    ) -> LayerOutputs:
        mask = attention_mask(lengths, ids.shape[1])
        output = model(input_ids=ids, attention_mask=mask, **wanted)
        # Classifiers read the first token of each row.
        first = at - at.remainder(ids.shape[1])
        return LayerOutputs.of(output, first, ids.shape[1])
