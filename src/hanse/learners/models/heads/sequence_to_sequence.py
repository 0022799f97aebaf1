"""An answer to a text: an encoder reads the one, and a decoder writes the other."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

from torch import Tensor
from transformers import AutoModelForSeq2SeqLM
from transformers.models.auto.modeling_auto import MODEL_FOR_SEQ_TO_SEQ_CAUSAL_LM_MAPPING

from hanse.learners.models.head import Head, is_causal
from hanse.learners.models.label_logits import labels_only
from hanse.learners.models.padding import padding_mask


@dataclass(frozen=True)
class SequenceToSequence(Head):
    """(N, vocabulary) logits of the answers' tokens.

    A row is what is read, and behind it the answer, of which every token is labelled.
    start: the token before an answer's first one.
    """

    task: ClassVar[str] = "SEQ_2_SEQ_LM"
    auto: ClassVar[type[Any]] = AutoModelForSeq2SeqLM
    reads: ClassVar[Mapping[str, str]] = {"tokens": "prompt_answer"}
    speaks: ClassVar[bool] = True
    splits: ClassVar[bool] = True

    start: int

    @classmethod
    def of(cls, config: Any, classes: int) -> Head | None:
        # Some models of two halves are causal language models by the name of their decoder.
        if type(config) not in MODEL_FOR_SEQ_TO_SEQ_CAUSAL_LM_MAPPING or is_causal(config):
            return None
        start = getattr(config, "decoder_start_token_id", None)
        return cls(config.pad_token_id or 0 if start is None else start)

    def logits(self, model: Any, ids: Tensor, at: Tensor, lengths: Tensor) -> Tensor:
        rows = at.div(ids.shape[1], rounding_mode="floor")  # (N,) in order
        read, mask, inputs, places = self._halves(ids, at - rows * ids.shape[1], rows)
        with labels_only(model, places, inputs.shape[1]):
            found: Tensor = model(
                input_ids=read, attention_mask=mask, decoder_input_ids=inputs, use_cache=False
            ).logits
        return found[0]

    def _halves(
        self, ids: Tensor, column: Tensor, rows: Tensor
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """What is read and its mask, what the decoder is given, and where its outputs are wanted.

        column: (N,) the place before each labelled token in its row; rows: (N,) which row that is.
        Returned are (R, S), (R, S), (R, D), and (N,) places in the flattened (R·D) positions.
        """
        count = ids.new_ones(len(ids))  # tokens that are read; rows that only fill up have one
        count.scatter_reduce_(0, rows, column + 1, "amin", include_self=False)
        size, step = int(count.max()), column + 1 - count[rows]  # (N,) places in the answers
        mask = padding_mask(count, size)
        inputs = ids.new_zeros(len(ids), int(step.max()) + 1)
        # Each token of an answer is given where the next one is wanted.
        inputs[rows, step] = ids[rows, column]
        inputs[:, 0] = self.start
        return ids[:, :size] * mask, mask, inputs, rows * inputs.shape[1] + step
