"""Finds the adapted layers of a model that clients can train together, and their kinds."""

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
    BOTTLENECK_TENSORS,
    VECTOR,
    WEIGHT,
    BatchedBottleneck,
    BatchedIA3,
    BatchedLayer,
    BatchedLinear,
    BatchedLora,
    BatchedLoraXS,
)
from hanse.learners.batched_clients.prompts import (
    ENCODED,
    BatchedEncodedPrompt,
    BatchedPrefix,
    BatchedPrompt,
)
from hanse.learners.injection.attached_adapter import PROMPT, AttachedAdapter
from hanse.learners.injection.target_modules import innermost, is_linear
from hanse.learners.injection.tuners.bottleneck import BottleneckLayer
from hanse.learners.injection.tuners.lora_xs import CORE, LinearWithCore
from hanse.tensors.low_rank import A, B
from hanse.tensors.named import Tensors


def find(
    model: PeftModel, attached: AttachedAdapter, starts: Sequence[Tensors]
) -> list[BatchedLayer] | None:
    """The adapted layers in the order of the model; None if one cannot be trained together.

    attached: the adapter of one of the clients; those of the others are in the same layers.
    starts: the clients' tensors, all of the same names.
    """
    names = {id(parameter): name for name, parameter in attached.parameters.items()}
    layers = []
    for tensor, base, kind, suffixes, *fixed in _candidates(model, attached.name):
        name = names.get(id(tensor), "")
        layer = name.removesuffix(suffixes[0])
        # An expert gets tokens of some rows, and it is not known of which rows.
        if layer != name and name in starts[0] and "experts" not in layer.split("."):
            layers.append(kind(layer, base, _shapes(layer, suffixes, starts), *fixed))
    output = innermost(model.get_output_embeddings())  # it gets labelled positions only
    known = {name for layer in layers for name in layer.names.values()}
    if starts[0].keys() - known or any(innermost(layer.base) is output for layer in layers):
        return None
    return layers


def _candidates(model: PeftModel, adapter: str) -> Iterator[tuple[Any, ...]]:
    """For each adapted layer: its first tensor, PEFT's layer, its kind, its suffixes, constants.

    If a layer has two kinds of adapters, one of PEFT's layers is around the other, and each has an
    entry of its own.
    """
    encoder = dict(getattr(model, "prompt_encoder", {})).get(adapter)
    if type(encoder) is PromptEmbedding:
        yield encoder.embedding.weight, model, BatchedPrompt, (PROMPT,)
    elif type(encoder) is PromptEncoder and encoder.encoder_type == "MLP":
        yield encoder.embedding.weight, model, BatchedEncodedPrompt, ENCODED
    elif type(encoder) is PrefixEncoder and isinstance(model, PeftModelForCausalLM):
        yield encoder.embedding.weight, model, BatchedPrefix, (PROMPT,)
    for module in model.modules():
        if isinstance(module, ModulesToSaveWrapper):
            yield from _copied(module, adapter)
        elif isinstance(module, BaseTunerLayer) and is_linear(module.get_base_layer()):
            yield from _beside(module, adapter)


def _beside(layer: Any, adapter: str) -> Iterator[tuple[Any, ...]]:
    """The entry of a linear layer, if the adapter is in it."""
    if isinstance(layer, LoraLayer) and adapter in layer.lora_A:
        # A wrapped parameter is no layer with an input, and LoRA's variants compute other products.
        if not isinstance(layer, ParamWrapper) and adapter not in layer.lora_variant:
            yield layer.lora_A[adapter].weight, layer, BatchedLora, (A, B)
    elif isinstance(layer, IA3Layer) and adapter in layer.ia3_l:
        yield layer.ia3_l[adapter], layer, BatchedIA3, (VECTOR,)
    elif isinstance(layer, BottleneckLayer) and adapter in layer.activations:
        down = layer.bottleneck_down[adapter]
        yield down.weight, layer, BatchedBottleneck, BOTTLENECK_TENSORS, layer.activations[adapter]
    elif isinstance(layer, LinearWithCore) and adapter in layer.core_r:
        fixed = layer.factors(adapter)
        up = fixed.up * layer.scaling[adapter]
        yield layer.core_r[adapter], layer, BatchedLoraXS, (CORE,), up, fixed.down


def _copied(wrapper: Any, adapter: str) -> Iterator[tuple[Any, ...]]:
    """The entries of the linear layers in a module of which the adapter has a copy."""
    if adapter in wrapper.modules_to_save:
        for name, layer in wrapper.original_module.named_modules():
            copy = wrapper.modules_to_save[adapter].get_submodule(name)
            if isinstance(layer, Linear):
                suffixes = (WEIGHT,) if layer.bias is None else (WEIGHT, BIAS)
                yield copy.weight, layer, BatchedLinear, suffixes


def _shapes(
    name: str, suffixes: Sequence[str], starts: Sequence[Tensors]
) -> dict[str, tuple[int, ...]]:
    """The shape that holds each client's tensor, by suffix."""
    return {
        suffix: tuple(map(max, zip(*(start[name + suffix].shape for start in starts), strict=True)))
        for suffix in suffixes
    }
