"""Where in a model the clients of a cohort have something of their own, and of which kind it is."""

from collections.abc import Iterator, Sequence
from typing import Any

from peft import PeftModel, PeftModelForCausalLM
from peft.tuners.ia3 import IA3Layer
from peft.tuners.lora import LoraLayer
from peft.tuners.p_tuning import PromptEncoder
from peft.tuners.prefix_tuning import PrefixEncoder
from peft.tuners.prompt_tuning import PromptEmbedding
from peft.utils import ModulesToSaveWrapper
from torch.nn import Linear

from hanse.factors import A, B
from hanse.learners.attached import PROMPT
from hanse.learners.pieces import (
    BIAS,
    NARROW,
    VECTOR,
    WEIGHT,
    Core,
    LowRank,
    Narrow,
    Piece,
    Scaled,
    Whole,
)
from hanse.learners.prompts import MADE, MadePrompt, Past, Prompt
from hanse.learners.tuners.bottleneck import BottleneckLayer
from hanse.learners.tuners.lora_xs import CORE, LinearWithCore
from hanse.tensors import Tensors


def found(model: PeftModel, starts: Sequence[Tensors]) -> list[Piece] | None:
    """The adapted layers in the order of the model; None if a cohort cannot apply all of them.

    starts: the clients' tensors, all of the same names.
    """
    pieces = [
        piece(name, base, _shapes(name, suffixes, starts), *more)
        for name, base, piece, suffixes, *more in _candidates(model)
        if name + suffixes[0] in starts[0]
    ]
    output = model.get_output_embeddings()  # it sees labelled places only
    known = {name for piece in pieces for name in piece.names.values()}
    if starts[0].keys() - known or any(piece.base is output for piece in pieces):
        return None
    return pieces


def _candidates(model: PeftModel) -> Iterator[tuple[Any, ...]]:
    """Layers that may be adapted: name, frozen layer, kind of piece, suffixes of its tensors."""
    for encoder in list(getattr(model, "prompt_encoder", {}).values())[-1:]:
        if type(encoder) is PromptEmbedding:
            yield "", model, Prompt, (PROMPT,)
        elif type(encoder) is PromptEncoder and encoder.encoder_type == "MLP":
            yield "", model, MadePrompt, MADE
        elif type(encoder) is PrefixEncoder and isinstance(model, PeftModelForCausalLM):
            yield "", model, Past, (PROMPT,)
    for name, module in model.named_modules():
        if isinstance(module, LoraLayer):
            yield name, module.get_base_layer(), LowRank, (A, B)
        elif isinstance(module, IA3Layer):
            yield name, module.get_base_layer(), Scaled, (VECTOR,)
        elif isinstance(module, BottleneckLayer):
            bend = module.bends[[*module.bottleneck_down][-1]]  # clients have the same
            yield name, module.get_base_layer(), Narrow, NARROW, bend
        elif isinstance(module, LinearWithCore):
            adapter = [*module.core_r][-1]
            fixed = module.factors(adapter)
            up = fixed.up * module.scaling[adapter]
            yield name, module.get_base_layer(), Core, (CORE,), up, fixed.down
        elif isinstance(module, ModulesToSaveWrapper):
            for inner, layer in module.original_module.named_modules(prefix=name):
                if isinstance(layer, Linear):
                    yield inner, layer, Whole, (WEIGHT, *([] if layer.bias is None else [BIAS]))


def _shapes(
    name: str, suffixes: Sequence[str], starts: Sequence[Tensors]
) -> dict[str, tuple[int, ...]]:
    """The largest of the clients' tensors, by suffix."""
    return {
        suffix: tuple(map(max, zip(*(own[name + suffix].shape for own in starts), strict=True)))
        for suffix in suffixes
    }
