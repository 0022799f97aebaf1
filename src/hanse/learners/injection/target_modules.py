"""Finds the modules of a model that an adapter is put into, by their names."""

import re
from collections import Counter
from collections.abc import Collection, Iterator
from typing import Any

from peft import PeftModel
from peft.tuners.tuners_utils import BaseTunerLayer
from peft.utils import ModulesToSaveWrapper
from torch.nn import Linear, Module
from transformers.pytorch_utils import Conv1D

from hanse.errors import UserError
from hanse.learners.injection.adapter import Layers, Targets
from hanse.learners.models.layers import decoder_layers


def linears(model: Module, spare: Module | None = None) -> Counter[str]:
    """The number of linear layers by their last name; without those in adapters and `spare`."""
    return Counter(
        name.rpartition(".")[2]
        for name, module in model.named_modules()
        if is_linear(module)
        if module is not spare
        if not re.search(r"\.(base_layer|lora_[AB]\..*)$", name)
    )


def is_linear(module: Module) -> bool:
    """Tell if a module is a linear layer, or PEFT's layer around one."""
    # PEFT names its layers after those that they are put around: Linear, Linear8bitLt.
    return isinstance(module, (Linear, Conv1D)) or type(module).__name__.startswith("Linear")


def innermost(module: Any) -> Any:
    """The base model's own module, without PEFT's modules around it."""
    if isinstance(module, ModulesToSaveWrapper):
        return innermost(module.original_module)
    return module.get_base_layer() if isinstance(module, BaseTunerLayer) else module


def base_modules(model: Any, heads: bool = False) -> Iterator[tuple[str, Module]]:
    """The modules of a base model by their names, whatever adapters are around them.

    heads: with the modules of which adapters have copies.
    """
    base = model.get_base_model() if isinstance(model, PeftModel) else model
    inside: tuple[str, ...] = ()
    for name, module in base.named_modules():
        if name.startswith(inside):
            continue
        if isinstance(module, ModulesToSaveWrapper):
            inside = (*inside, f"{name}.")
            if heads:
                yield from module.original_module.named_modules(prefix=name)
        elif isinstance(module, BaseTunerLayer):
            inside = (*inside, f"{name}.")
            yield name, module.get_base_layer()
        else:
            yield name, module


def plain(targets: Targets) -> list[str] | str | None:
    """Target modules in the form that PEFT takes."""
    return list(targets) if isinstance(targets, tuple) else targets


NOT_FOUND = ("not found in the base model", "No modules were targeted")  # in PEFT's words


def unmatched(model: Module, targets: Targets, error: Exception, where: str, method: str) -> str:
    """The message to the user if PEFT does not find the target modules.

    where: the part of the model that was searched. method: the adapter, by its usual name.
    """
    names = ", ".join(name for name, _ in linears(model).most_common())
    if targets is None:
        return f"PEFT has no default target_modules for this model; name some of: {names}."
    if any(words in str(error) for words in NOT_FOUND):
        return f"target_modules {targets!r} are not in {where}; it has {names}."
    reason = str(error).rstrip(".")
    return (
        f"{method} cannot be put into this model: {reason}; name others as target_modules, such as "
        f"some of {names}, or choose another adapter."
    )


def in_layers(model: Any, targets: Targets, layers: Layers) -> list[str] | None:
    """Target modules as a list of names, as PEFT needs them with layers_to_transform.

    Raises UserError for layers that the model has not, and for a regular expression.
    """
    _refuse_beyond(model, layers)
    if targets == "all-linear":
        return list(linears(model, spare=model.get_output_embeddings()))
    if isinstance(targets, str):
        raise UserError(
            f"layers_to_transform cannot go with the regular expression {targets!r}; let the "
            "expression choose the layers, or write target_modules as a list of names."
        )
    return None if targets is None else list(targets)


def matching(model: Any, targets: list[str] | str, layers: Layers) -> list[str]:
    """The full names of the target modules in some of the layers.

    Raises UserError for layers that the model has not, and if no target module is in them.
    """
    _refuse_beyond(model, layers)
    numbers = ((name, re.search(r"\.(\d+)\.", name)) for name in full_names(model, targets))
    matches = [name for name, number in numbers if number and int(number[1]) in layers]
    if not matches:
        names = ", ".join(name for name, _ in linears(model).most_common())
        raise UserError(
            f"target_modules {targets!r} are not in the model's layers {layers}; it has {names}."
        )
    return matches


def top(model: Any, layers: Layers | None, depth: int) -> Layers:
    """The last `depth` of these layers; none: of all."""
    every = range(model.config.get_text_config().num_hidden_layers) if layers is None else layers
    return tuple(sorted({*every})[-depth:])


def within_layers(model: Any, numbers: Layers) -> list[str]:
    """The full names of all modules with weights of their own in some of the model's layers.

    Raises UserError for layers that the model has not.
    """
    _refuse_beyond(model, numbers)
    layers = decoder_layers(model)[1]
    inner = {id(innermost(module)) for number in numbers for module in layers[number].modules()}
    return [
        name
        for name, module in base_modules(model)
        if id(module) in inner and any(True for _ in module.parameters(recurse=False))
    ]


def targeted(model: Any, targets: Collection[str] | str) -> list[str]:
    """The full names of all modules that PEFT would adapt, with those of a head.

    targets: ends of names, a regular expression, or all-linear.
    """
    modules = base_modules(model, heads=True)
    if targets == "all-linear":
        return [name for name, module in modules if is_linear(module)]
    pattern = _pattern(targets)
    return [name for name, _ in modules if re.fullmatch(pattern, name)]


def full_names(model: Any, targets: list[str] | str) -> list[str]:
    """The full names of all target modules, without those of a head.

    targets: ends of names, or a regular expression for full names.
    """
    pattern = _pattern(targets)
    return [name for name, _ in base_modules(model) if re.fullmatch(pattern, name)]


def _pattern(targets: Collection[str] | str) -> str:
    """A regular expression for full names."""
    return targets if isinstance(targets, str) else rf"(.*\.)?({'|'.join(map(re.escape, targets))})"


def _refuse_beyond(model: Any, layers: Layers) -> None:
    """Raise UserError for layers that the model has not."""
    count = model.config.get_text_config().num_hidden_layers
    if (last := max(layers)) >= count:
        raise UserError(
            f"layers_to_transform names {last}, but the model's layers are 0 to {count - 1}; "
            "choose among these."
        )


# The last linear layers of attention and of the feed-forward part, by architecture.
SUBLAYERS = {
    **dict.fromkeys(
        ("llama", "mistral", "qwen2", "qwen3", "gemma", "gemma2", "gemma3_text", "phi3", "smollm3"),
        (r"self_attn\.o_proj", r"mlp\.down_proj"),
    ),
    **dict.fromkeys(("gpt2", "gpt_bigcode"), (r"attn\.c_proj", r"mlp\.c_proj")),
    **dict.fromkeys(("gpt_neox",), (r"attention\.dense", r"mlp\.dense_4h_to_h")),
    **dict.fromkeys(("opt",), (r"self_attn\.out_proj", r"fc2")),
    **dict.fromkeys(
        ("bert", "roberta", "xlm-roberta", "electra", "camembert"),
        (r"attention\.output\.dense", r"layer\.\d+\.output\.dense"),
    ),
    **dict.fromkeys(("distilbert",), (r"attention\.out_lin", r"ffn\.lin2")),
    **dict.fromkeys(
        ("t5", "mt5"), (r"(?:SelfAttention|EncDecAttention)\.o", r"DenseReluDense\.wo")
    ),
    **dict.fromkeys(("bart", "mbart"), (r"(?:self_attn|encoder_attn)\.out_proj", r"fc2")),
}


def sublayers(model: Any, attention: bool = True) -> str:
    """The linear layers whose output is added to a layer's stream, as a regular expression.

    attention: with those that end attention. Raises UserError for an unknown architecture.
    """
    kind = model.config.get_text_config().model_type
    if kind not in SUBLAYERS:
        names = ", ".join(name for name, _ in linears(model).most_common())
        raise UserError(
            f"the last linear layers in the parts of a {kind} layer are not known; name the "
            f"linear layers that a bottleneck should follow in target_modules: some of {names}."
        )
    ends = SUBLAYERS[kind] if attention else SUBLAYERS[kind][1:]
    return rf".*\.(?:{'|'.join(ends)})"
