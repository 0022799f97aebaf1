"""Numbers of parameters of a model's parts, also of one on the meta device."""

from collections.abc import Iterable
from typing import Any

from torch.nn import Module

from hanse.learners.models import quantization
from hanse.learners.models.emulators.cut import Cut
from hanse.learners.models.layers import layer_list


def parameters(modules: Iterable[Module]) -> int:
    """The number of the parameters of some modules, each counted once."""
    every = {id(p): p for module in modules for p in module.parameters()}
    return sum(quantization.count(parameter) for parameter in every.values())


def adapter_parameters(model: Any, cut: Cut) -> int:
    """The number of parameters of a model's bottom and top layers."""
    _, layers = layer_list(model)
    return parameters([*layers[: cut.bottom], *layers[len(layers) - cut.top :]])


def size(modules: Iterable[Module]) -> int:
    """The bytes of the parameters of some modules, each counted once."""
    every = {id(p): p for module in modules for p in module.parameters()}
    return sum(parameter.nbytes for parameter in every.values())
