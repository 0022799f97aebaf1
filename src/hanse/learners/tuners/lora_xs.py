"""LoRA-XS for PEFT: W + s·B·R·A with B and A from W's own singular vectors, and only R trained.

What is saved is an ordinary LoRA adapter with B·R and A.
"""

from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from peft import LoraConfig
from peft.tuners.tuners_utils import BaseTunerLayer
from torch import Tensor
from torch.nn import Module, Parameter, ParameterDict
from torch.nn.functional import linear
from transformers.pytorch_utils import Conv1D

from hanse.factors import A, B
from hanse.learners.quantization import packed
from hanse.learners.tuners.tuner import OwnConfig, OwnModel, register
from hanse.tensors import Tensors

KIND = "LORA_XS"  # its peft_type, which is never written to disk
CORE = ".core_r"  # ends the name of a trained matrix


@dataclass
class CoreConfig(OwnConfig):
    """The size of the trained matrices, and what their products are scaled by."""

    kind: ClassVar[str] = KIND

    r: int = 32
    lora_alpha: float = 32


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
        if packed(base):
            raise ValueError(
                "it needs the singular vectors of weights, which are quantized here; set "
                "model.quantization: none"
            )
        weight = base.weight.detach().float()
        weight = weight.T if isinstance(base, Conv1D) else weight
        rank = min(config.r, *weight.shape)
        u, values, v = _first_vectors(weight, rank)
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


def _first_vectors(weight: Tensor, rank: int) -> tuple[Tensor, Tensor, Tensor]:
    """The first singular vectors and values; the same bits whenever and wherever it is asked."""
    with torch.random.fork_rng(devices=[]):  # svd_lowrank begins with a draw from the CPU's stream
        torch.manual_seed(0)
        there = weight if weight.is_meta else weight.cpu()  # a shape without numbers stays one
        found = torch.svd_lowrank(there, rank, niter=8)
    u, values, v = (tensor.to(weight.device) for tensor in found)
    return u, values, v


class CoreModel(OwnModel):
    """A model with such matrices beside the layers that a configuration names."""

    prefix = "core_"
    tuner_layer_cls = LinearWithCore


def as_lora(model: Module, adapter: str, tensors: Tensors) -> tuple[LoraConfig, dict[str, Tensor]]:
    """The same change as an ordinary LoRA adapter: B·R and A."""
    modules: dict[str, Any] = dict(model.named_modules())
    own: Any = model.peft_config[adapter]  # type: ignore[index]
    found = {}
    for name, tensor in tensors.items():
        if not name.endswith(CORE):
            found[name] = tensor
            continue
        place = name.removesuffix(CORE)
        layer = modules[place]
        found[place + A] = layer.down[adapter].cpu()
        found[place + B] = layer.up[adapter].cpu() @ tensor
    layers = [module for module in modules.values() if isinstance(module, LinearWithCore)]
    transposed = any(isinstance(layer.get_base_layer(), Conv1D) for layer in layers)
    config = LoraConfig(
        r=own.r,
        fan_in_fan_out=transposed,
        lora_alpha=own.lora_alpha,
        target_modules=own.target_modules,
        layers_to_transform=own.layers_to_transform,
        modules_to_save=own.modules_to_save,
        task_type=own.task_type,
        base_model_name_or_path=own.base_model_name_or_path,
    )
    return config, found


register(CoreConfig, CoreModel)
