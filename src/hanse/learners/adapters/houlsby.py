"""Houlsby's adapters (Houlsby et al. 2019, 1902.00751): two bottlenecks in each layer."""

from dataclasses import dataclass
from typing import Annotated, Any, ClassVar

from pydantic import ConfigDict, PositiveFloat
from transformers.activations import ACT2FN

from hanse.errors import UserError
from hanse.learners.injection.adapter import Adapter
from hanse.learners.injection.target_modules import (
    Layers,
    Targets,
    matching,
    plain,
    sublayers,
    unmatched,
)
from hanse.learners.injection.tuners.bottleneck import KIND, BottleneckConfig
from hanse.registry import NAMES, suggestion


@dataclass(frozen=True)
class Houlsby(Adapter):
    """h + W₂·f(W₁h + b₁) + b₂ behind attention and behind the feed-forward part of each layer.

    h is what the part adds to the layer's stream, before it is added, as in the paper. The
    bottleneck is `reduction_factor` times narrower than h; it begins as h itself.
    non_linearity: f, by the name that transformers gives it.
    target_modules: the linear layers that give h; none: those known for the architecture.
    """

    __pydantic_config__ = ConfigDict(extra="forbid", allow_inf_nan=False)
    kind: ClassVar[str] = KIND
    attention: ClassVar[bool] = True  # whether there is one behind attention, too

    reduction_factor: PositiveFloat = 16.0
    non_linearity: Annotated[str, NAMES] = "swish"
    target_modules: Targets = None
    layers_to_transform: Layers | None = None  # that have bottlenecks, counted from 0; none: all

    def config(self, model: Any) -> BottleneckConfig:
        if self.non_linearity not in ACT2FN:
            near = suggestion(self.non_linearity, ACT2FN)
            raise UserError(
                f"adapter: there is no non_linearity {self.non_linearity!r}{near}; transformers "
                f"has {', '.join(sorted(ACT2FN))}."
            )
        return BottleneckConfig(
            target_modules=self._targets(model),
            reduction_factor=self.reduction_factor,
            non_linearity=self.non_linearity,
        )

    def _targets(self, model: Any) -> list[str] | str:
        """The linear layers that give h."""
        targets = plain(self.target_modules) or sublayers(model, self.attention)
        layers = self.layers_to_transform
        return targets if layers is None else matching(model, targets, layers)

    def refused(self, model: Any, error: Exception) -> str:
        return unmatched(model, self.target_modules, error, "this model", "a bottleneck")
