"""The record of one adapter that is in a model, made once when it is put there."""

import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import chain
from typing import Any

from peft import PeftModel
from peft.tuners.lora import LoraLayer
from torch.nn import LSTM, Dropout, Module, Parameter

from hanse.learners.injection.adapter import Adapter
from hanse.tensors.low_rank import A
from hanse.tensors.named import Tensors

# Parts of a parameter's name in a model that its name on disk lacks: a copied module, and the
# module that holds DoRA's vector.
ONLY_IN_MODEL = re.compile(r"\.modules_to_save\b|(?<=lora_magnitude_vector)\.weight$")
ENCODER = "prompt_encoder."  # begins the names of what makes the vectors before a text
EMBEDDING, PROMPT = f"{ENCODER}embedding.weight", "prompt_embeddings"


@dataclass(slots=True)
class AttachedAdapter:
    """One adapter in a model.

    name: in PEFT's model.
    configs: PEFT's configuration of each of its kinds, innermost first.
    parameters: the trained ones, by the names that PEFT gives them on disk.
    untrained: parameters that PEFT has put into the model with them, and nobody trains.
    rank: LoRA's or LoRA-XS's, 0 without one. scaling: of LoRA's products B·A, 1 without one.
    layer_scalings: the same by adapted layer. dropout: the share of inputs that LoRA drops.
    dropout_modules: the modules that drop inputs while this adapter is trained.
    initial: the trained parameters before any training.
    frozen_depth: the number of the model's first layers whose outputs it does not change.
    needs_padding: something reads the rows of a batch by themselves, such as virtual tokens.
    constants_digest: the hash of its constants, empty while it is unknown.
    settings: those that it was attached with; None without an adapter.
    whole: the name of the adapter that this one is a part of; empty if it is none.
    parts: the names of its own parts in the model, by their settings, the last used last.
    """

    name: str
    configs: Sequence[Any]
    parameters: dict[str, Parameter]
    untrained: dict[str, Parameter]
    rank: int
    scaling: float
    layer_scalings: dict[str, float]
    dropout: float
    dropout_modules: Sequence[Module]
    initial: Tensors = field(default_factory=dict)
    frozen_depth: int = 0
    needs_padding: bool = False
    constants_digest: str = ""
    settings: Adapter | None = None
    whole: str = ""
    parts: dict[Adapter, str] = field(default_factory=dict)

    @classmethod
    def none(cls) -> "AttachedAdapter":
        """The record of no adapter, for a base model that is used as it is."""
        return cls("", (), {}, {}, 0, 1.0, {}, 0.0, ())

    @classmethod
    def of(
        cls, model: PeftModel, name: str, configs: Sequence[Any], trains: Callable[[str], bool]
    ) -> "AttachedAdapter":
        """The record of the adapter `name`; `trains` tells by a parameter's name if it is trained.

        All parameters become float32 but untrained matrices.
        """
        live = parameters(model, name)
        layers = _lora_layers(model, name)
        drops = (layer.lora_dropout[name] for layer in layers)
        rank: int = getattr(configs[0], "r", 0)
        attached = cls(
            name,
            configs,
            parameters={key: p for key, p in live.items() if trains(key)},
            untrained={key: p for key, p in live.items() if not trains(key)},
            rank=rank or min((layer.r[name] for layer in layers), default=0),
            scaling=next((float(layer.scaling[name]) for layer in layers), 1.0),
            layer_scalings=_layer_scalings(layers, name, live),
            dropout=max((float(getattr(drop, "p", 0.0)) for drop in drops), default=0.0),
            dropout_modules=_dropout_modules(model, name),
            needs_padding=any(config.is_prompt_learning for config in configs),
        )
        # A norm's untrained weight must be of the type that its trained bias has.
        vectors = (p for p in attached.untrained.values() if p.dim() == 1)
        for parameter in (*attached.parameters.values(), *vectors):
            parameter.data = parameter.data.float()
        attached.remember_initial()
        return attached

    @property
    def kinds(self) -> list[str]:
        """PEFT's names of its kinds, innermost first."""
        return [config.peft_type for config in self.configs]

    @property
    def every(self) -> Iterator[Parameter]:
        """All of its parameters, trained or not."""
        return chain(self.parameters.values(), self.untrained.values())

    def set_gradients(self) -> None:
        """Let the trained parameters get gradients, and no others."""
        for parameter in self.every:
            parameter.requires_grad_(False)
        for parameter in self.parameters.values():
            parameter.requires_grad_(True)

    def remember_initial(self) -> None:
        """Let what the parameters are now be what they were before any training."""
        self.initial = {name: p.detach().clone() for name, p in self.parameters.items()}


def parameters(model: PeftModel, adapter: str) -> dict[str, Parameter]:
    """All parameters of one adapter, by the names that PEFT gives them on disk."""
    by_name = {}
    for name, parameter in model.named_parameters():
        parts = name.split(".")
        if adapter in parts:
            on_disk = ONLY_IN_MODEL.sub("", ".".join(part for part in parts if part != adapter))
            by_name[on_disk] = parameter
    if [name for name in by_name if name.startswith(ENCODER)] == [EMBEDDING]:
        by_name[PROMPT] = by_name.pop(EMBEDDING)  # the vectors themselves; no encoder makes them
    return {name: by_name[name] for name in sorted(by_name)}


@contextmanager
def without_gradients(parameters: Iterable[Parameter]) -> Iterator[None]:
    """Within, these parameters get no gradients."""
    listed = list(parameters)
    for parameter in listed:
        parameter.requires_grad_(False)
    try:
        yield
    finally:
        for parameter in listed:
            parameter.requires_grad_(True)


@contextmanager
def keeping_gradients(parameters: Iterable[Parameter]) -> Iterator[None]:
    """After this context, these parameters get gradients if they got some before.

    Whenever PEFT switches adapters, it decides anew which parameters get gradients.
    """
    flags = [(parameter, parameter.requires_grad) for parameter in parameters]
    try:
        yield
    finally:
        for parameter, flag in flags:
            parameter.requires_grad_(flag)


def _lora_layers(model: PeftModel, adapter: str) -> list[Any]:
    """The layers that have LoRA of this adapter."""
    layers: list[Any] = [module for module in model.modules() if isinstance(module, LoraLayer)]
    return [layer for layer in layers if adapter in layer.scaling]


def _layer_scalings(layers: Sequence[Any], adapter: str, live: Tensors) -> dict[str, float]:
    """The scaling (α/r) of each layer's product, by the layer's name in the parameters' names."""
    names = {id(parameter): name.removesuffix(A) for name, parameter in live.items()}
    factors = [(layer, layer.lora_A[adapter]) for layer in layers if adapter in layer.lora_A]
    return {
        names[id(a.weight)]: float(layer.scaling[adapter])
        for layer, a in factors
        if id(a.weight) in names
    }


def _dropout_modules(model: PeftModel, adapter: str) -> list[Module]:
    """The modules that drop inputs while an adapter is trained, as its settings say.

    Dropout in a copy of the model's own module, such as a head, stays off, as in the model itself.
    """
    # An LSTM drops between its layers, and a GPU trains it in training mode only.
    return [
        module
        for name, module in model.named_modules()
        if adapter in (path := name.split(".")) and "modules_to_save" not in path
        if isinstance(module, Dropout | LSTM)
    ]


@contextmanager
def in_training(modules: Sequence[Module], mode: bool) -> Iterator[None]:
    """Within this context, modules are in training mode or not; before and after, the other way."""
    for module in modules:
        module.train(mode)
    try:
        yield
    finally:
        for module in modules:
            module.train(not mode)
