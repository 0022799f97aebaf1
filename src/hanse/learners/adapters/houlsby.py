"""Houlsby's adapters (Houlsby et al. 2019, 1902.00751): two bottlenecks in each layer."""

from dataclasses import dataclass, replace
from typing import Annotated, Any, ClassVar

from pydantic import ConfigDict, PositiveFloat

from hanse.errors import UserError
from hanse.lazy_imports import lazy_imports
from hanse.learners.injection.adapter import BOTTLENECK, Adapter, Layers, Targets
from hanse.registry import NAMES, suggestion

with lazy_imports():
    from transformers import activations

    from hanse.learners.injection import target_modules as modules
    from hanse.learners.injection.tuners import bottleneck


@dataclass(frozen=True)
class Houlsby(Adapter):
    """h + W₂·f(W₁h + b₁) + b₂ after attention and after the feed-forward part of each layer.

    h is the output of the part, before it is added to the layer's stream, as in the paper. At
    first the bottleneck adds nothing.
    reduction_factor: the bottleneck is this many times narrower than h.
    non_linearity: f, by transformers' name.
    target_modules: the linear layers that compute h; none: those known for the architecture.
    layers_to_transform: the layers that have bottlenecks, counted from 0; none: all.
    """

    __pydantic_config__ = ConfigDict(extra="forbid", allow_inf_nan=False)
    kind: ClassVar[str] = BOTTLENECK
    attention: ClassVar[bool] = True  # one bottleneck is after attention

    reduction_factor: PositiveFloat = 16.0
    non_linearity: Annotated[str, NAMES] = "swish"
    target_modules: Targets = None
    layers_to_transform: Layers | None = None

    @property
    def row_gradients(self) -> bool:
        return True

    @property
    def resizable(self) -> bool:
        return True

    def resized(self, model: Any, depth: int, width: int) -> "Houlsby":
        hidden = model.config.get_text_config().hidden_size
        whole = max(1, int(hidden / self.reduction_factor))
        # Half a number more than the width, so that rounding cannot make it less.
        factor = self.reduction_factor if width >= whole else hidden / (width + 0.5)
        layers = modules.top(model, self.layers_to_transform, depth)
        return replace(self, reduction_factor=factor, layers_to_transform=layers)

    def config(self, model: Any) -> "bottleneck.BottleneckConfig":
        known = activations.ACT2FN
        if self.non_linearity not in known:
            near = suggestion(self.non_linearity, known)
            raise UserError(
                f"adapter: there is no non_linearity {self.non_linearity!r}{near}; transformers "
                f"has {', '.join(sorted(known))}."
            )
        return bottleneck.BottleneckConfig(
            target_modules=self._targets(model),
            reduction_factor=self.reduction_factor,
            non_linearity=self.non_linearity,
        )

    def _targets(self, model: Any) -> list[str] | str:
        """The linear layers that compute h."""
        targets = modules.plain(self.target_modules) or modules.sublayers(model, self.attention)
        layers = self.layers_to_transform
        return targets if layers is None else modules.matching(model, targets, layers)

    def refusal(self, model: Any, error: Exception) -> str:
        return modules.unmatched(model, self.target_modules, error, "this model", "a bottleneck")
