"""Bottleneck adapters for PEFT, which has none: `import hanse.learners.bottleneck` is all it needs.

After that import `PeftModel.from_pretrained` loads what a run with such adapters has saved.
"""

from dataclasses import dataclass, field
from typing import Any

import torch
from peft import PEFT_TYPE_TO_CONFIG_MAPPING, PEFT_TYPE_TO_TUNER_MAPPING, PeftConfig
from peft.mapping import PEFT_TYPE_TO_PREFIX_MAPPING
from peft.tuners.tuners_utils import BaseTuner, BaseTunerLayer
from torch import Tensor
from torch.nn import Linear, Module, ModuleDict
from transformers.activations import ACT2FN
from transformers.pytorch_utils import Conv1D

KIND = "BOTTLENECK"  # its peft_type in adapter_config.json
PREFIX = "bottleneck_"


@dataclass
class BottleneckConfig(PeftConfig):
    """Which linear layers are followed by a bottleneck, how narrow it is, and what bends it."""

    target_modules: str | list[str] | None = None
    reduction_factor: float = 16.0
    non_linearity: str = "swish"
    modules_to_save: list[str] | None = None
    exclude_modules: str | list[str] | None = None
    layers_to_transform: list[int] | None = field(default=None)
    layers_pattern: str | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        self.peft_type = KIND


class BottleneckLayer(Module, BaseTunerLayer):
    """A frozen linear layer, and behind it the bottleneck of the adapter that is at work.

    h + W₂·f(W₁h + b₁) + b₂, with W₂ and b₂ zero at first, so that it begins as h.
    """

    adapter_layer_names = ("bottleneck_down", "bottleneck_up")

    def __init__(self, base_layer: Module, name: str, config: BottleneckConfig) -> None:
        super().__init__()
        self.base_layer = base_layer
        self.bottleneck_down, self.bottleneck_up = ModuleDict(), ModuleDict()
        self.bends: dict[str, Any] = {}  # f by adapter
        self._disable_adapters = False
        self.merged_adapters: list[str] = []
        self._active_adapter = name
        self.update_layer(name, config)

    def update_layer(self, name: str, config: BottleneckConfig) -> None:
        """Put an adapter beside those already here."""
        base: Any = self.get_base_layer()
        width = base.nf if isinstance(base, Conv1D) else base.out_features
        inner = max(1, int(width / config.reduction_factor))
        down, up = Linear(width, inner), Linear(inner, width)
        torch.nn.init.normal_(down.weight, std=0.02)
        for zero in (down.bias, up.weight, up.bias):
            torch.nn.init.zeros_(zero)
        self.bottleneck_down[name], self.bottleneck_up[name] = down, up
        self.bends[name] = ACT2FN[config.non_linearity]
        self._move_adapter_to_device_of_base_layer(name)
        self.set_adapter(self.active_adapters, inference_mode=config.inference_mode)

    def forward(self, x: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        found: Tensor = self.base_layer(x, *args, **kwargs)
        for name in () if self.disable_adapters else self.active_adapters:
            if name in self.bottleneck_down:
                down: Any = self.bottleneck_down[name]
                up = self.bottleneck_up[name]
                inner = down(found.to(down.weight.dtype))
                found = found + up(self.bends[name](inner)).to(found.dtype)
        return found


class BottleneckModel(BaseTuner):
    """Puts bottlenecks behind the layers that a configuration names."""

    prefix = PREFIX
    tuner_layer_cls = BottleneckLayer

    def _create_and_replace(
        self,
        peft_config: PeftConfig,
        adapter_name: str,
        target: Module,
        target_name: str,
        parent: Module,
        current_key: str,
        parameter_name: str | None = None,
    ) -> None:
        assert isinstance(peft_config, BottleneckConfig)
        if isinstance(target, BottleneckLayer):
            target.update_layer(adapter_name, peft_config)
            return
        layer = BottleneckLayer(target, adapter_name, peft_config)
        if adapter_name not in self.active_adapters:
            layer.requires_grad_(False)
        self._replace_module(parent, target_name, layer, target)


PEFT_TYPE_TO_CONFIG_MAPPING[KIND] = BottleneckConfig  # type: ignore[index]
PEFT_TYPE_TO_TUNER_MAPPING[KIND] = BottleneckModel  # type: ignore[index]
PEFT_TYPE_TO_PREFIX_MAPPING[KIND] = PREFIX  # type: ignore[index]
