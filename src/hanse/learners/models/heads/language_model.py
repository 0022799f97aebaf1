"""The head of causal language models: logits of the next token."""

from collections.abc import Mapping
from typing import Any, ClassVar

from torch import Tensor
from transformers import AutoModelForCausalLM

from hanse.learners.kernels.unpadded import without_text_search
from hanse.learners.models.head import Head, LayerOutputs, is_causal
from hanse.learners.models.label_logits import labels_only


class LanguageModel(Head):
    """(N, vocabulary) logits, only at the positions whose next token has a label."""

    task: ClassVar[str] = "CAUSAL_LM"
    auto: ClassVar[type[Any]] = AutoModelForCausalLM
    reads: ClassVar[Mapping[str, str]] = {
        kind: kind for kind in ("tokens", "label_words", "answer_pairs", "verdicts")
    }
    lacking: ClassVar[Mapping[str, str]] = {
        "tokens": "does not generate text; choose a causal language model, such as smollm2-135m, "
        "or objective: classify",
        **dict.fromkeys(
            ("answer_pairs", "verdicts"),
            "does not judge answers; choose a causal language model, such as smollm2-135m",
        ),
    }
    generates_text: ClassVar[bool] = True
    causal: ClassVar[bool] = True

    @classmethod
    def of(cls, config: Any, classes: int) -> Head | None:
        return cls() if is_causal(config) else None

    def logits(self, model: Any, ids: Tensor, at: Tensor, lengths: Tensor) -> Tensor:
        with labels_only(model, at, ids.shape[1]), without_text_search():
            logits: Tensor = model(input_ids=ids, use_cache=False).logits
        return logits[0]

    def layers(
        self, model: Any, ids: Tensor, at: Tensor, lengths: Tensor, **wanted: bool
    ) -> LayerOutputs:
        with labels_only(model, at, ids.shape[1]), without_text_search():
            output = model(input_ids=ids, use_cache=False, **wanted)
        return LayerOutputs.of(output, at, ids.shape[1])
