"""Saved adapters are merged into the weights of their base model."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from peft import PeftConfig, PeftModel
from torch import Tensor
from torch.nn import Parameter

from hanse.errors import UserError
from hanse.learners.injection.adapter import BOTTLENECK

TOKENS = 16  # of the text on which the models are compared
NEAR = {torch.float32: 1e-3}  # of the largest output: the error that rounding may bring about
NEAR_SHORT = 5e-2  # the same for bfloat16 and float16


def refuse_unmergeable(adapters: Sequence[Path]) -> None:
    """Raise UserError for adapters that are no change of the base model's weights."""
    for adapter in adapters:
        config = PeftConfig.from_pretrained(str(adapter))
        kind = str(getattr(config.peft_type, "value", config.peft_type))
        if config.is_prompt_learning or kind == BOTTLENECK:
            part = "layers" if kind == BOTTLENECK else "virtual tokens"
            raise UserError(
                f"an adapter of the kind {kind.lower()} adds {part} to the model, which no plain "
                f"model folder has; load {adapter} with PEFT instead, as its README.md shows."
            )


@torch.no_grad()
def merged(model: Any, adapters: Sequence[Path]) -> Any:
    """The model with all adapters in its weights, innermost first.

    Raises UserError if the merged model computes something else than base model and adapters.
    """
    tied = _untied(model)
    for adapter in adapters:
        adapted = PeftModel.from_pretrained(model.eval(), str(adapter)).eval()
        wanted = _outputs(adapted.get_base_model())
        try:
            model = adapted.merge_and_unload(safe_merge=True)
        except (AttributeError, NotImplementedError, TypeError, ValueError) as error:
            kind = str(getattr(adapted.active_peft_config.peft_type, "value", ""))
            raise UserError(
                f"PEFT cannot merge an adapter of the kind {kind.lower()} ({error}); load "
                f"{adapter} with PEFT instead, as its README.md shows."
            ) from error
        near = NEAR.get(model.dtype, NEAR_SHORT) * float(wanted.abs().max())
        difference = float((_outputs(model) - wanted).abs().max())
        if not difference <= near:
            raise UserError(
                f"merged into the weights, {adapter} does not compute what it computes beside them "
                f"(outputs differ by {difference:.2g}); load it with PEFT instead, as its "
                "README.md shows."
            )
    if tied:
        _tie_equal(model)
    return model


def _outputs(model: Any) -> Tensor:
    """The outputs of a model for some tokens."""
    ids = torch.arange(TOKENS)[None] % model.get_input_embeddings().weight.shape[0]
    second = {"decoder_input_ids": ids} if model.config.is_encoder_decoder else {}
    outputs: Tensor = model(input_ids=ids, **second).logits.float()
    return outputs


def _untied(model: Any) -> bool:
    """Give the output layer a copy of weights that it shares with the embeddings.

    An adapter may change one of the two alone. Returns false if they share none.
    """
    output, embeddings = model.get_output_embeddings(), model.get_input_embeddings()
    if output is None or output.weight is not embeddings.weight:
        return False
    output.weight = Parameter(output.weight.detach().clone(), requires_grad=False)
    return True


def _tie_equal(model: Any) -> None:
    """Let output layer and embeddings share weights again, unless an adapter made them unequal."""
    output, embeddings = model.get_output_embeddings(), model.get_input_embeddings()
    equal = torch.equal(output.weight, embeddings.weight)
    if equal:
        output.weight = embeddings.weight
    for config in (model.config, model.config.get_text_config()):
        config.tie_word_embeddings = equal  # PEFT has written that they are not tied
