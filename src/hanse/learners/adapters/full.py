"""Fine-tuning of the weights themselves: all of them, or those above the first layers."""

from dataclasses import dataclass
from typing import Any

from pydantic import ConfigDict, NonNegativeInt, PositiveInt

from hanse.errors import UserError
from hanse.lazy_imports import lazy_imports
from hanse.learners.injection.adapter import Adapter

with lazy_imports():
    import peft

    from hanse.learners.injection import target_modules as modules
    from hanse.learners.models import layers as model_layers
    from hanse.learners.models import quantization


@dataclass(frozen=True)
class Full(Adapter):
    """Every client trains, and sends, a copy of the weights that are not frozen.

    freeze_embeddings: what stands before the layers stays as it is.
    freeze_layers: so do that, and as many of the first layers (Lin et al. 2022, 2104.08815).
    top_layers: only as many of the last layers are trained, and what stands behind them.
    PEFT loads the result as copies of whole modules, which is what its LN tuning is made of.
    Embeddings that also are the output layer are trained, and sent, as the one matrix they are; in
    what is saved both modules have it.
    """

    __pydantic_config__ = ConfigDict(extra="forbid")

    freeze_embeddings: bool = False
    freeze_layers: NonNegativeInt = 0
    top_layers: PositiveInt | None = None

    def config(self, model: Any) -> "peft.LNTuningConfig":
        names = self._trained(model)
        quantization.refuse_copies(
            "full", (module for name, module in modules.base_modules(model) if name in names)
        )
        return peft.LNTuningConfig(target_modules=names)

    def _trained(self, model: Any) -> list[str]:
        """The names of all modules with weights of their own that are trained."""
        layers = model_layers.decoder_layers(model)[1]
        first = self._first(len(layers))
        frozen = {id(inner) for layer in layers[:first] for inner in layer.modules()}
        before = self.freeze_embeddings or first > 0
        output = model.get_output_embeddings()
        tied = output and model.config.tie_word_embeddings
        stays = {id(output.weight)} if tied and before else set()
        found = []
        for name, module in modules.base_modules(model):
            before = before and not (layers and module is layers[0])
            own = {id(parameter) for parameter in module.parameters(recurse=False)}
            if own - stays and not before and id(module) not in frozen:
                found.append(name)
        return found

    def _first(self, layers: int) -> int:
        """The first layer that is trained."""
        first = self.freeze_layers if self.top_layers is None else layers - self.top_layers
        if not 0 <= first <= layers:
            raise UserError(
                f"adapter.full asks for {self.top_layers or self.freeze_layers} layers, but the "
                f"model has {layers}; lower it."
            )
        return first
