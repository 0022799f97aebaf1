"""Where in a model the clients of a cohort have something of their own, and of which kind it is."""

from collections.abc import Iterator, Sequence
from typing import Any

from peft import PeftModel, PeftModelForCausalLM
from peft.tuners.ia3 import IA3Layer
from peft.tuners.lora import LoraLayer
from peft.tuners.lora.layer import ParamWrapper
from peft.tuners.p_tuning import PromptEncoder
from peft.tuners.prefix_tuning import PrefixEncoder
from peft.tuners.prompt_tuning import PromptEmbedding
from peft.tuners.tuners_utils import BaseTunerLayer
from peft.utils import ModulesToSaveWrapper
from torch.nn import Linear

from hanse.learners.batched_clients.batched_layers import (
    BIAS,
    NARROW,
    VECTOR,
    WEIGHT,
    BatchedBottleneck,
    BatchedIA3,
    BatchedLayer,
    BatchedLinear,
    BatchedLora,
    BatchedLoraXS,
)
from hanse.learners.batched_clients.prompts import MADE, BatchedPrefix, MadePrompt, Prompt
from hanse.learners.injection.attached_adapter import PROMPT, AttachedAdapter
from hanse.learners.injection.target_modules import innermost, is_linear
from hanse.learners.injection.tuners.bottleneck import BottleneckLayer
from hanse.learners.injection.tuners.lora_xs import CORE, LinearWithCore
from hanse.tensors.low_rank import A, B
from hanse.tensors.named import Tensors


def found(
    model: PeftModel, attached: AttachedAdapter, starts: Sequence[Tensors]
) -> list[BatchedLayer] | None:
    """The adapted layers in the order of the model; None if a cohort cannot apply all of them.

    attached: the adapter of one of the clients; those of the others are in the same layers.
    starts: the clients' tensors, all of the same names.
    """
    names = {id(parameter): name for name, parameter in attached.parameters.items()}
    pieces = []
    for tensor, base, piece, suffixes, *more in _candidates(model, attached.name):
        name = names.get(id(tensor), "")
        place = name.removesuffix(suffixes[0])
        # An expert sees some rows' tokens, and nobody knows whose they are.
        if place != name and name in starts[0] and "experts" not in place.split("."):
            pieces.append(piece(place, base, _shapes(place, suffixes, starts), *more))
    output = innermost(model.get_output_embeddings())  # it sees labelled places only
    known = {name for piece in pieces for name in piece.names.values()}
    if starts[0].keys() - known or any(innermost(piece.base) is output for piece in pieces):
        return None
    return pieces


def _candidates(model: PeftModel, adapter: str) -> Iterator[tuple[Any, ...]]:
    """Layers that an adapter is in: its first tensor there, the layer, the kind, the suffixes.

    The layer is the one that PEFT has put there. Where there are two adapters in one layer, one of
    them is around the other, and each piece works at its own.
    """
    encoder = dict(getattr(model, "prompt_encoder", {})).get(adapter)
    if type(encoder) is PromptEmbedding:
        yield encoder.embedding.weight, model, Prompt, (PROMPT,)
    elif type(encoder) is PromptEncoder and encoder.encoder_type == "MLP":
        yield encoder.embedding.weight, model, MadePrompt, MADE
    elif type(encoder) is PrefixEncoder and isinstance(model, PeftModelForCausalLM):
        yield encoder.embedding.weight, model, BatchedPrefix, (PROMPT,)
    for module in model.modules():
        if isinstance(module, ModulesToSaveWrapper):
            yield from _copied(module, adapter)
        elif isinstance(module, BaseTunerLayer) and is_linear(module.get_base_layer()):
            yield from _beside(module, adapter)


def _beside(layer: Any, adapter: str) -> Iterator[tuple[Any, ...]]:
    """What of an adapter is in a linear layer."""
    if isinstance(layer, LoraLayer) and adapter in layer.lora_A:
        # A wrapped parameter is not a layer with an input, and variants compute something else.
        if not isinstance(layer, ParamWrapper) and adapter not in layer.lora_variant:
            yield layer.lora_A[adapter].weight, layer, BatchedLora, (A, B)
    elif isinstance(layer, IA3Layer) and adapter in layer.ia3_l:
        yield layer.ia3_l[adapter], layer, BatchedIA3, (VECTOR,)
    elif isinstance(layer, BottleneckLayer) and adapter in layer.bends:
        down = layer.bottleneck_down[adapter]
        yield down.weight, layer, BatchedBottleneck, NARROW, layer.bends[adapter]
    elif isinstance(layer, LinearWithCore) and adapter in layer.core_r:
        fixed = layer.factors(adapter)
        up = fixed.up * layer.scaling[adapter]
        yield layer.core_r[adapter], layer, BatchedLoraXS, (CORE,), up, fixed.down


def _copied(wrapper: Any, adapter: str) -> Iterator[tuple[Any, ...]]:
    """The linear layers in a module of which an adapter has its own copy."""
    if adapter in wrapper.modules_to_save:
        for name, layer in wrapper.original_module.named_modules():
            own = wrapper.modules_to_save[adapter].get_submodule(name)
            if isinstance(layer, Linear):
                yield (
                    own.weight,
                    layer,
                    BatchedLinear,
                    (WEIGHT, *([] if layer.bias is None else [BIAS])),
                )


def _shapes(
    name: str, suffixes: Sequence[str], starts: Sequence[Tensors]
) -> dict[str, tuple[int, ...]]:
    """The largest of the clients' tensors, by suffix."""
    return {
        suffix: tuple(map(max, zip(*(own[name + suffix].shape for own in starts), strict=True)))
        for suffix in suffixes
    }
