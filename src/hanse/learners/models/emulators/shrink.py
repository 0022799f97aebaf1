"""A model in memory becomes its emulator: bottom and top as they are, the middle made smaller."""

import copy
from dataclasses import dataclass
from typing import Any

import torch
from torch.nn import Linear, Module, ModuleList
from transformers import AutoModelForCausalLM
from transformers.pytorch_utils import Conv1D

from hanse.errors import UserError
from hanse.learners.models.emulators.compressor import Compressor
from hanse.learners.models.emulators.cut import Cut
from hanse.learners.models.emulators.stored_form import METHOD, built, put
from hanse.learners.models.layers import layer_list


@dataclass(frozen=True)
class Emulator:
    """A smaller model whose bottom and top share their weights with the whole one's.

    layers: for each of its layers, the whole model's layer that it was made of.
    """

    model: Any
    cut: Cut
    layers: tuple[int, ...]

    @property
    def middle(self) -> list[Module]:
        """The layers of its middle."""
        _, layers = layer_list(self.model)
        return [*layers[self.cut.bottom : len(layers) - self.cut.top]]


@torch.no_grad()
def shrink(model: Any, cut: Cut, compressor: Compressor) -> Emulator:
    """The emulator of a causal language model; weights of its middle are copies.

    Raises UserError for a model whose layers, or whose settings for each layer, are not known, and
    for a middle with matrices that the compressor would leave as they are.
    """
    name, layers = layer_list(model)
    if len(layers) != cut.layers:
        raise UserError(
            f"the layers of a {model.config.model_type} model are not known here, so it cannot be "
            "cut; choose another model, such as a Llama."
        )
    kept = [cut.bottom + position for position in compressor.kept(cut.middle)]
    numbers = (*range(cut.bottom), *kept, *range(cut.layers - cut.top, cut.layers))
    small = copy.deepcopy(model, {id(tensor): tensor for tensor in _tensors(model)})
    own = layer_list(small)[1]
    middle = {number: copy.deepcopy(own[number]) for number in kept}
    put(small, name, ModuleList(middle.get(number, own[number]) for number in numbers))
    _set_layers(small.config.get_text_config(), cut.layers, numbers)
    emulator = Emulator(small, cut, numbers)
    before = _matrices(emulator)
    _compress(emulator, compressor)
    if compressor.replaces:
        _refuse_verbatim(before, emulator, compressor)
    _refuse_unlike(emulator)
    return emulator


def empty(config: Any) -> Any:
    """A causal language model of this configuration without weights, on the meta device."""
    with torch.device("meta"):
        return AutoModelForCausalLM.from_config(config)


def _tensors(model: Any) -> list[Any]:
    return [*model.parameters(), *model.buffers()]


def _set_layers(config: Any, before: int, numbers: tuple[int, ...]) -> None:
    """Let a configuration have these of its layers, with their own settings."""
    for key, value in list(vars(config).items()):
        if "layer" in key and isinstance(value, list | tuple) and len(value) == before:
            setattr(config, key, [value[number] for number in numbers])
    config.num_hidden_layers = len(numbers)


def _compress(emulator: Emulator, compressor: Compressor) -> None:
    """Put smaller modules in place of the middle's linear layers, and name them in the settings."""
    middle = {id(module) for layer in emulator.middle for module in layer.modules()}
    modules = {}
    for name, module in [*emulator.model.named_modules()]:
        if id(module) in middle and isinstance(module, (Linear, Conv1D)):
            smaller, size = compressor.compressed(module)
            if smaller is not module:
                put(emulator.model, name, smaller)
            if size:
                modules[name] = size
    if modules:
        form = {"quant_method": METHOD, "compressor": compressor.describe(), "modules": modules}
        emulator.model.config.quantization_config = form


def _matrices(emulator: Emulator) -> dict[str, Any]:
    """Parameters of the middle with two or more dimensions, by their names in a layer."""
    named = (pair for layer in emulator.middle for pair in layer.named_parameters())
    return {f"{number}.{name}": p for number, (name, p) in enumerate(named) if p.dim() > 1}


def _refuse_verbatim(before: dict[str, Any], emulator: Emulator, compressor: Compressor) -> None:
    """Raise UserError if a matrix of the middle is still there after compression.

    before: the matrices of the middle as it was. Experts and routers of a mixture of experts are
    no linear layers in transformers 5, so compressors do not see them.
    """
    now = {id(parameter) for parameter in _matrices(emulator).values()}
    left = [name.partition(".")[2] for name, p in before.items() if id(p) in now]
    if left:
        listed = ", ".join(dict.fromkeys(left))
        raise UserError(
            f"{next(iter(compressor.describe()))} makes linear layers smaller, and the middle of "
            f"a {emulator.model.config.model_type} model also has {listed:.300}, which silos would "
            "get as they are; choose layer_drop with --texts, or another model."
        )


def _refuse_unlike(emulator: Emulator) -> None:
    """Raise UserError if a model of the emulator's settings would have other tensors."""
    model = emulator.model
    form: Any = getattr(model.config, "quantization_config", None)
    bare = empty(model.config)
    for name, size in form["modules"].items() if form else ():
        put(bare, name, built(form["compressor"]).hollow(bare.get_submodule(name), size))
    wanted, found = (
        {name: tuple(tensor.shape) for name, tensor in one.state_dict().items()}
        for one in (bare, model)
    )
    if wanted != found:
        other = min(name for name, _ in wanted.items() ^ found.items())
        raise UserError(
            f"a {model.config.model_type} model with some of its layers would have another "
            f"{other}, since its settings tell layers apart by their numbers; choose another model."
        )
