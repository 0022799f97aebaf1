"""Bottleneck adapters for PEFT, which has none.

After an import of this module, `PeftModel.from_pretrained` loads saved bottleneck adapters, too.
"""

from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from peft.tuners.tuners_utils import BaseTunerLayer
from torch import Tensor
from torch.nn import Linear, Module, ModuleDict
from transformers.activations import ACT2FN
from transformers.pytorch_utils import Conv1D

from hanse.learners.injection.adapter import BOTTLENECK
from hanse.learners.injection.tuners.tuner import OwnConfig, OwnModel, register


@dataclass
class BottleneckConfig(OwnConfig):
    """PEFT's configuration of bottlenecks: their reduction factor and their non-linearity."""

    kind: ClassVar[str] = BOTTLENECK

    reduction_factor: float = 16.0
    non_linearity: str = "swish"


class BottleneckLayer(Module, BaseTunerLayer):
    """A frozen linear layer, followed by the bottleneck of the active adapter.

    h + W₂·f(W₁h + b₁) + b₂ for the layer's output h; W₂ and b₂ begin as zero.
    """

    adapter_layer_names = ("bottleneck_down", "bottleneck_up")

    def __init__(self, base_layer: Module, name: str, config: BottleneckConfig) -> None:
        super().__init__()
        self.base_layer = base_layer
        self.bottleneck_down, self.bottleneck_up = ModuleDict(), ModuleDict()
        self.activations: dict[str, Any] = {}  # f by adapter
        self._disable_adapters = False
        self.merged_adapters: list[str] = []
        self._active_adapter = name
        self.update_layer(name, config)

    def update_layer(self, name: str, config: BottleneckConfig) -> None:
        """Add an adapter to those of the layer."""
        base: Any = self.get_base_layer()
        width = base.nf if isinstance(base, Conv1D) else base.out_features
        inner = max(1, int(width / config.reduction_factor))
        down, up = Linear(width, inner), Linear(inner, width)
        torch.nn.init.normal_(down.weight, std=0.02)
        for zero in (down.bias, up.weight, up.bias):
            torch.nn.init.zeros_(zero)
        self.bottleneck_down[name], self.bottleneck_up[name] = down, up
        self.activations[name] = ACT2FN[config.non_linearity]
        self._move_adapter_to_device_of_base_layer(name)
        self.set_adapter(self.active_adapters, inference_mode=config.inference_mode)

    def forward(self, x: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        output: Tensor = self.base_layer(x, *args, **kwargs)
        for name in () if self.disable_adapters else self.active_adapters:
            if name in self.bottleneck_down:
                down: Any = self.bottleneck_down[name]
                up = self.bottleneck_up[name]
                inner = down(output.to(down.weight.dtype))
                output = output + up(self.activations[name](inner)).to(output.dtype)
        return output


class BottleneckModel(OwnModel):
    """A model with bottlenecks after the target modules."""

    prefix = "bottleneck_"
    tuner_layer_cls = BottleneckLayer


register(BottleneckConfig, BottleneckModel)
