"""The layers of a decoder: where they are, which of them training leaves alone, and stand-ins."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from torch.nn import Module, ModuleList, Parameter


def decoder_layers(model: Any) -> tuple[Module, Sequence[Module]]:
    """The module that calls the layers of a model, and these; no layers if they cannot be told."""
    count = model.config.get_text_config().num_hidden_layers
    for name, module in model.named_modules():
        if isinstance(module, ModuleList) and len(module) == count:
            return model.get_submodule(name.rpartition(".")[0]), tuple(module)
    return model, ()


def heads(model: Any) -> list[str]:
    """The modules of a classifier that stand behind its transformer's layers."""
    inner = model.base_model_prefix
    return [*(name for name, _ in model.named_children() if name != inner), f"{inner}.pooler"]


def frozen_depth(model: Any, trained: Iterable[Parameter]) -> int:
    """How many of the first layers give the same whatever the trained parameters are."""
    layers = decoder_layers(model)[1]
    head = _head(model)
    places = {id(p): place for place, layer in enumerate(layers) for p in layer.parameters()}
    # What is neither in a layer nor in the head may come before the first layer.
    lowest = (places.get(id(p), 0) for p in trained if id(p) not in head)
    return min(lowest, default=len(layers))


def _head(model: Any) -> set[int]:
    """What stands behind all layers, and nowhere else: the identities of its parameters."""
    base = model.get_base_model() if hasattr(model, "get_base_model") else model
    if (output := base.get_output_embeddings()) is not None:
        behind = list(output.parameters())
    elif hasattr(base, base.base_model_prefix):
        ours = tuple(f"{name}." for name in heads(base))
        behind = [p for name, p in base.named_parameters() if name.startswith(ours)]
    else:
        behind = []
    before = base.get_input_embeddings()  # which may be the very same
    return {id(p) for p in behind} - {id(p) for p in before.parameters()}


@contextmanager
def replaced(layers: Iterable[Module], forward: Callable[..., Any]) -> Iterator[None]:
    """Let layers do something else for a while."""
    own = [(vars(layer), vars(layer).get("forward")) for layer in layers]
    for home, _ in own:
        home["forward"] = forward
    try:
        yield
    finally:
        for home, before in own:
            del home["forward"]
            if before is not None:
                home["forward"] = before
