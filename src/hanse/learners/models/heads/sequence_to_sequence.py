"""The head of encoder-decoders: an encoder reads a text, and a decoder writes the answer."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

from torch import Tensor
from transformers import AutoModelForSeq2SeqLM
from transformers.models.auto.modeling_auto import MODEL_FOR_SEQ_TO_SEQ_CAUSAL_LM_MAPPING

from hanse.learners.models.head import Head, LayerOutputs, is_causal
from hanse.learners.models.label_logits import labels_only
from hanse.learners.models.padding import padding_mask


@dataclass(frozen=True)
class SequenceToSequence(Head):
    """(N, vocabulary) logits of the answers' tokens.

    A row is the text and behind it the answer, whose tokens all have labels.
    start: the decoder's first input, before the answer's first token.
    """

    task: ClassVar[str] = "SEQ_2_SEQ_LM"
    auto: ClassVar[type[Any]] = AutoModelForSeq2SeqLM
    reads: ClassVar[Mapping[str, str]] = {"tokens": "prompt_answer"}
    generates_text: ClassVar[bool] = True
    splits: ClassVar[bool] = True

    start: int

    @classmethod
    def of(cls, config: Any, classes: int) -> Head | None:
        # Some encoder-decoders are causal language models by the name of their decoder.
        if type(config) not in MODEL_FOR_SEQ_TO_SEQ_CAUSAL_LM_MAPPING or is_causal(config):
            return None
        start = getattr(config, "decoder_start_token_id", None)
        return cls(config.pad_token_id or 0 if start is None else start)

    def logits(self, model: Any, ids: Tensor, at: Tensor, lengths: Tensor) -> Tensor:
        rows = at.div(ids.shape[1], rounding_mode="floor")  # (N,) in order
        text, mask, inputs, positions = self._split(ids, at - rows * ids.shape[1], rows)
        with labels_only(model, positions, inputs.shape[1]):
            logits: Tensor = model(
                input_ids=text, attention_mask=mask, decoder_input_ids=inputs, use_cache=False
            ).logits
        return logits[0]

    def layers(
        self, model: Any, ids: Tensor, at: Tensor, lengths: Tensor, **wanted: bool
    ) -> LayerOutputs:
        """Those of the decoder."""
        rows = at.div(ids.shape[1], rounding_mode="floor")
        text, mask, inputs, positions = self._split(ids, at - rows * ids.shape[1], rows)
        with labels_only(model, positions, inputs.shape[1]):
            output = model(
                input_ids=text,
                attention_mask=mask,
                decoder_input_ids=inputs,
                use_cache=False,
                **wanted,
            )
        return LayerOutputs.of(output, positions, inputs.shape[1], part="decoder_")

    def _split(
        self, ids: Tensor, column: Tensor, rows: Tensor
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """The texts and their mask, the decoder's inputs, and the positions of its logits.

        column: (N,) the position before each labelled token in its row; rows: (N,) that row.
        Returns (R, S), (R, S), (R, D), and (N,) flattened (R·D) positions.
        """
        count = ids.new_ones(len(ids))  # tokens of each text; rows that only fill up have one
        count.scatter_reduce_(0, rows, column + 1, "amin", include_self=False)
        size, step = int(count.max()), column + 1 - count[rows]  # (N,) positions in the answers
        mask = padding_mask(count, size)
        inputs = ids.new_zeros(len(ids), int(step.max()) + 1)
        # Each token of an answer is the input for the next one.
        inputs[rows, step] = ids[rows, column]
        inputs[:, 0] = self.start
        return ids[:, :size] * mask, mask, inputs, rows * inputs.shape[1] + step
