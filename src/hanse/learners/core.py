"""LoRA-XS for PEFT: W + s·B·R·A with B and A from W's own singular vectors, and only R trained.

What is saved is an ordinary LoRA adapter with B·R and A.
"""

from dataclasses import dataclass
from typing import Any

import torch
from peft import PEFT_TYPE_TO_CONFIG_MAPPING, PEFT_TYPE_TO_TUNER_MAPPING, LoraConfig, PeftConfig
from peft.mapping import PEFT_TYPE_TO_PREFIX_MAPPING
from peft.tuners.tuners_utils import BaseTuner, BaseTunerLayer
from torch import Tensor
from torch.nn import Module, Parameter, ParameterDict
from torch.nn.functional import linear
from transformers.pytorch_utils import Conv1D

from hanse.factors import A, B
from hanse.tensors import Tensors

KIND = "LORA_XS"  # its peft_type, which is never written to disk
PREFIX = "core_"
CORE = ".core_r"  # ends the name of a trained matrix


@dataclass
class CoreConfig(PeftConfig):
    """Which linear layers are adapted, and the size of the trained matrices."""

    r: int = 32
    lora_alpha: float = 32
    target_modules: str | list[str] | set[str] | None = None
    modules_to_save: list[str] | None = None
    exclude_modules: str | list[str] | None = None
    layers_to_transform: list[int] | None = None
    layers_pattern: str | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        self.peft_type = KIND


class LinearWithCore(Module, BaseTunerLayer):
    """A frozen linear layer y = Wx, and s·B·R·A·x beside it; R begins as zero.

    B is W's first left singular vectors, each times its singular value, A its right ones.
    PEFT knows linear layers that are adapted already by such a class's name.
    """

    adapter_layer_names = ("core_r",)
    other_param_names = ("up", "down", "scaling")

    def __init__(self, base_layer: Module, name: str, config: CoreConfig) -> None:
        super().__init__()
        self.base_layer = base_layer
        self.core_r = ParameterDict()
        self.up: dict[str, Tensor] = {}  # B (out, r), by adapter
        self.down: dict[str, Tensor] = {}  # A (r, in)
        self.scaling: dict[str, float] = {}
        self._disable_adapters = False
        self.merged_adapters: list[str] = []
        self._active_adapter = name
        self.update_layer(name, config)

    def update_layer(self, name: str, config: CoreConfig) -> None:
        """Put an adapter beside those already here."""
        base: Any = self.get_base_layer()
        weight = base.weight.detach().float()
        weight = weight.T if isinstance(base, Conv1D) else weight
        rank = min(config.r, *weight.shape)
        u, values, v = torch.svd_lowrank(weight, rank, niter=8)
        # A vector and its opposite are as good; all machines are to take the same one.
        signs = v.gather(0, v.abs().argmax(dim=0, keepdim=True)).sign()
        self.up[name], self.down[name] = u * values * signs, (v * signs).T.contiguous()
        self.scaling[name] = config.lora_alpha / config.r
        self.core_r[name] = Parameter(weight.new_zeros(rank, rank))
        self.set_adapter(self.active_adapters, inference_mode=config.inference_mode)

    def forward(self, x: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        found: Tensor = self.base_layer(x, *args, **kwargs)
        for name in () if self.disable_adapters else self.active_adapters:
            if name in self.core_r:
                core = self.core_r[name]
                low = linear(x.to(core.dtype), self.down[name])
                more = linear(linear(low, core), self.up[name]) * self.scaling[name]
                found = found + more.to(found.dtype)
        return found


class CoreModel(BaseTuner):
    """Puts them beside the layers that a configuration names."""

    prefix = PREFIX
    tuner_layer_cls = LinearWithCore

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
        assert isinstance(peft_config, CoreConfig)
        if isinstance(target, LinearWithCore):
            target.update_layer(adapter_name, peft_config)
            return
        layer = LinearWithCore(target, adapter_name, peft_config)
        if adapter_name not in self.active_adapters:
            layer.requires_grad_(False)
        self._replace_module(parent, target_name, layer, target)


def as_lora(model: Module, adapter: str, tensors: Tensors) -> tuple[LoraConfig, dict[str, Tensor]]:
    """The same change as an ordinary LoRA adapter: B·R and A."""
    modules: dict[str, Any] = dict(model.named_modules())
    own: Any = model.peft_config[adapter]  # type: ignore[index]
    found = {}
    for name, tensor in tensors.items():
        if not name.endswith(CORE):
            found[name] = tensor
            continue
        layer = modules[name.removesuffix(CORE)]
        place = name.removesuffix(CORE)
        found[place + A] = layer.down[adapter].cpu()
        found[place + B] = layer.up[adapter].cpu() @ tensor
    layers = [module for module in modules.values() if isinstance(module, LinearWithCore)]
    transposed = any(isinstance(layer.get_base_layer(), Conv1D) for layer in layers)
    config = LoraConfig(
        r=own.r,
        fan_in_fan_out=transposed,
        lora_alpha=own.lora_alpha,
        target_modules=own.target_modules,
        modules_to_save=own.modules_to_save,
        task_type=own.task_type,
        base_model_name_or_path=own.base_model_name_or_path,
    )
    return config, found


PEFT_TYPE_TO_CONFIG_MAPPING[KIND] = CoreConfig  # type: ignore[index]
PEFT_TYPE_TO_TUNER_MAPPING[KIND] = CoreModel  # type: ignore[index]
PEFT_TYPE_TO_PREFIX_MAPPING[KIND] = PREFIX  # type: ignore[index]
