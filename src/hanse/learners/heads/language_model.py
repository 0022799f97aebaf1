"""The next token: what causal language models say."""

from typing import Any, ClassVar

from torch import Tensor
from transformers import AutoModelForCausalLM

from hanse.learners import attention
from hanse.learners.head import Head
from hanse.learners.labelled import labels_only


class LanguageModel(Head):
    """(N, vocabulary) logits, of the places alone whose next token is labelled."""

    task: ClassVar[str] = "CAUSAL_LM"
    auto: ClassVar[type[Any]] = AutoModelForCausalLM
    causal: ClassVar[bool] = True

    def logits(self, model: Any, ids: Tensor, at: Tensor, lengths: Tensor) -> Tensor:
        with labels_only(model, at, ids.shape[1]), attention.unpacked():
            found: Tensor = model(input_ids=ids, use_cache=False).logits
        return found[0]
