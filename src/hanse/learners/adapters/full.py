"""Full fine-tuning: all weights are trained, or those of some layers."""

from dataclasses import dataclass
from typing import Any

from pydantic import ConfigDict, NonNegativeInt, PositiveInt

from hanse.errors import UserError
from hanse.lazy_imports import lazy_imports
from hanse.learners.injection.adapter import Adapter, Layers

with lazy_imports():
    import peft

    from hanse.learners.injection import target_modules as modules
    from hanse.learners.models import layers as model_layers
    from hanse.learners.models import quantization


@dataclass(frozen=True)
class Full(Adapter):
    """Every client trains and sends a copy of the weights that are not frozen.

    freeze_embeddings: the modules before the layers are not trained.
    freeze_layers: neither they nor this number of first layers are (Lin et al. 2022, 2104.08815).
    top_layers: only this number of last layers, and the modules after them, are trained.
    layers_to_transform: only these layers are trained, counted from 0, and nothing before or after
        them. It goes with none of the other settings.
    PEFT loads the result as copies of whole modules, by its LN tuning. Embeddings that are the
    output layer, too, are one matrix: it is trained and sent once, and saved in both modules.
    """

    __pydantic_config__ = ConfigDict(extra="forbid")

    freeze_embeddings: bool = False
    freeze_layers: NonNegativeInt = 0
    top_layers: PositiveInt | None = None
    layers_to_transform: Layers | None = None

    def __post_init__(self) -> None:
        if self.layers_to_transform is None:
            return
        for name in ("freeze_embeddings", "freeze_layers", "top_layers"):
            if getattr(self, name):
                raise ValueError(
                    f"adapter.full has both layers_to_transform and {name}; the first alone says "
                    "which layers are trained: leave the other out."
                )

    def config(self, model: Any) -> "peft.LNTuningConfig":
        names = self._trained(model)
        quantization.refuse_copies(
            "full", (module for name, module in modules.base_modules(model) if name in names)
        )
        return peft.LNTuningConfig(target_modules=names)

    def _trained(self, model: Any) -> list[str]:
        """The names of all trained modules that have weights of their own."""
        if self.layers_to_transform is not None:
            return modules.within_layers(model, self.layers_to_transform)
        layers = model_layers.decoder_layers(model)[1]
        first = self._first(len(layers))
        frozen = {id(inner) for layer in layers[:first] for inner in layer.modules()}
        before = self.freeze_embeddings or first > 0
        output = model.get_output_embeddings()
        tied = output and model.config.tie_word_embeddings
        shared = {id(output.weight)} if tied and before else set()
        names = []
        for name, module in modules.base_modules(model):
            before = before and not (layers and module is layers[0])
            weights = {id(parameter) for parameter in module.parameters(recurse=False)}
            if weights - shared and not before and id(module) not in frozen:
                names.append(name)
        return names

    def _first(self, layers: int) -> int:
        """The number of the first trained layer; raises UserError if the model has too few."""
        first = self.freeze_layers if self.top_layers is None else layers - self.top_layers
        if not 0 <= first <= layers:
            raise UserError(
                f"adapter.full asks for {self.top_layers or self.freeze_layers} layers, but the "
                f"model has {layers}; lower it."
            )
        return first
