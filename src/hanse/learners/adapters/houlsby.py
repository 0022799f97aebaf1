"""Houlsby's adapters (Houlsby et al. 2019, 1902.00751): two bottlenecks in each layer."""

from dataclasses import dataclass
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
    """h + W₂·f(W₁h + b₁) + b₂ behind attention and behind the feed-forward part of each layer.

    h is what the part adds to the layer's stream, before it is added, as in the paper. The
    bottleneck is `reduction_factor` times narrower than h; it begins as h itself.
    non_linearity: f, by the name that transformers gives it.
    target_modules: the linear layers that give h; none: those known for the architecture.
    """

    __pydantic_config__ = ConfigDict(extra="forbid", allow_inf_nan=False)
    kind: ClassVar[str] = BOTTLENECK
    attention: ClassVar[bool] = True  # whether there is one behind attention, too

    reduction_factor: PositiveFloat = 16.0
    non_linearity: Annotated[str, NAMES] = "swish"
    target_modules: Targets = None
    layers_to_transform: Layers | None = None  # that have bottlenecks, counted from 0; none: all

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
        """The linear layers that give h."""
        targets = modules.plain(self.target_modules) or modules.sublayers(model, self.attention)
        layers = self.layers_to_transform
        return targets if layers is None else modules.matching(model, targets, layers)

    def refused(self, model: Any, error: Exception) -> str:
        return modules.unmatched(model, self.target_modules, error, "this model", "a bottleneck")
