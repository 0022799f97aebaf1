"""The layers of a transformer: their place, the frozen ones among them, and stand-ins."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from torch.nn import Module, ModuleList, Parameter


def layer_list(model: Any) -> tuple[str, Sequence[Module]]:
    """The name of the list of a model's layers, and the layers; none if they are not identified."""
    count = model.config.get_text_config().num_hidden_layers
    for name, module in model.named_modules():
        if isinstance(module, ModuleList) and len(module) == count:
            return name, tuple(module)
    return "", ()


def decoder_layers(model: Any) -> tuple[Module, Sequence[Module]]:
    """The module that calls a model's layers, and the layers; none if they cannot be identified."""
    name, layers = layer_list(model)
    return (model.get_submodule(name.rpartition(".")[0]) if layers else model), layers


def heads(model: Any) -> list[str]:
    """The names of a classifier's modules behind its transformer's layers."""
    inner = model.base_model_prefix
    return [*(name for name, _ in model.named_children() if name != inner), f"{inner}.pooler"]


def frozen_depth(model: Any, trained: Iterable[Parameter]) -> int:
    """The number of first layers whose output does not depend on the trained parameters."""
    layers = decoder_layers(model)[1]
    head = _head_parameters(model)
    places = {id(p): place for place, layer in enumerate(layers) for p in layer.parameters()}
    # A parameter that is neither in a layer nor in the head may come before the first layer.
    lowest = (places.get(id(p), 0) for p in trained if id(p) not in head)
    return min(lowest, default=len(layers))


def _head_parameters(model: Any) -> set[int]:
    """The identities of the parameters that are used behind all layers, and nowhere else."""
    base = model.get_base_model() if hasattr(model, "get_base_model") else model
    if (output := base.get_output_embeddings()) is not None:
        behind = list(output.parameters())
    elif hasattr(base, base.base_model_prefix):
        prefixes = tuple(f"{name}." for name in heads(base))
        behind = [p for name, p in base.named_parameters() if name.startswith(prefixes)]
    else:
        behind = []
    before = base.get_input_embeddings()  # its weights may be tied to those of the head
    return {id(p) for p in behind} - {id(p) for p in before.parameters()}


class Replacement:
    """A layer calls this function instead of its own forward until the replacement is removed."""

    def __init__(self, layer: Module, forward: Callable[..., Any]) -> None:
        self._attributes = vars(layer)
        self._before = self._attributes.get("forward")
        self._attributes["forward"] = forward

    def remove(self) -> None:
        """Let the layer call what it called before."""
        del self._attributes["forward"]
        if self._before is not None:
            self._attributes["forward"] = self._before


@contextmanager
def replaced(layers: Iterable[Module], forward: Callable[..., Any]) -> Iterator[None]:
    """Within this context, the layers call this function instead of their own forward."""
    replacements = [Replacement(layer, forward) for layer in layers]
    try:
        yield
    finally:
        for replacement in replacements:
            replacement.remove()
