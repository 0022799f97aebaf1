"""LoRA-XS for PEFT: W + s·B·R·A with B and A from W's own singular vectors, and only R trained.

B and A are computed when they are first asked for, unless they are set before: in a federation the
server computes them, and its clients get them from it. What is saved is an ordinary LoRA adapter
with B·R and A.
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

from hanse.learners.injection.adapter import LORA_XS
from hanse.learners.injection.tuners.tuner import OwnConfig, OwnModel, register
from hanse.learners.models.quantization import packed
from hanse.tensors.low_rank import A, B, Factors, padded
from hanse.tensors.named import Tensors
from hanse.tensors.singular_vectors import first_vectors

CORE = ".core_r"  # ends the name of a trained matrix


@dataclass
class CoreConfig(OwnConfig):
    """The size of the trained matrices, and what their products are scaled by."""

    kind: ClassVar[str] = LORA_XS

    r: int = 32
    lora_alpha: float = 32


class LinearWithCore(Module, BaseTunerLayer):
    """A frozen linear layer y = Wx, and s·B·R·A·x beside it; R begins as zero.

    B is W's first left singular vectors, each times its singular value, A its right ones. R has at
    most as many rows as the smaller side of W; s stays α/r with the r that was asked for.
    PEFT knows linear layers that are adapted already by such a class's name.
    """

    adapter_layer_names = ("core_r",)
    other_param_names = ("fixed", "scaling")

    def __init__(self, base_layer: Module, name: str, config: CoreConfig) -> None:
        super().__init__()
        self.base_layer = base_layer
        self.core_r = ParameterDict()
        self.fixed: dict[str, Factors] = {}  # B (out, r) and A (r, in), by adapter
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
        rank = min(config.r, *base.weight.shape)
        self.scaling[name] = config.lora_alpha / config.r
        empty = torch.zeros(rank, rank, dtype=torch.float32, device=base.weight.device)
        self.core_r[name] = Parameter(empty)
        self.set_adapter(self.active_adapters, inference_mode=config.inference_mode)

    def shapes(self, name: str) -> tuple[tuple[int, int], tuple[int, int]]:
        """Those of an adapter's B and A."""
        base: Any = self.get_base_layer()
        rows, columns = base.weight.shape
        if isinstance(base, Conv1D):
            rows, columns = columns, rows
        rank = len(self.core_r[name])
        return (rows, rank), (rank, columns)

    @torch.no_grad()
    def factors(self, name: str) -> Factors:
        """An adapter's B and A."""
        if name not in self.fixed:
            base: Any = self.get_base_layer()
            with torch.autocast(base.weight.device.type, enabled=False):
                weight = base.weight.float()
                weight = weight.T if isinstance(base, Conv1D) else weight
                u, values, v = first_vectors(weight, len(self.core_r[name]))
            self.fixed[name] = Factors((u * values).contiguous(), v.T.contiguous())
        return self.fixed[name]

    def forward(self, x: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        found: Tensor = self.base_layer(x, *args, **kwargs)
        for name in () if self.disable_adapters else self.active_adapters:
            if name in self.core_r:
                core, fixed = self.core_r[name], self.factors(name)
                low = linear(x.to(core.dtype), fixed.down)
                more = linear(linear(low, core), fixed.up) * self.scaling[name]
                found = found + more.to(found.dtype)
        return found


class CoreModel(OwnModel):
    """A model with such matrices beside the layers that a configuration names."""

    prefix = "core_"
    tuner_layer_cls = LinearWithCore


def as_lora(model: Module, adapter: str, tensors: Tensors) -> tuple[LoraConfig, dict[str, Tensor]]:
    """The same change as an ordinary LoRA adapter: B·R and A.

    Its rank is that of the largest R. Factors of smaller ones are filled up with zeros, since LoRA
    has one rank for all layers; its α keeps s what it is.
    """
    modules: dict[str, Any] = dict(model.named_modules())
    own: Any = model.peft_config[adapter]  # type: ignore[index]
    rank = max(len(tensor) for name, tensor in tensors.items() if name.endswith(CORE))
    found = {}
    for name, tensor in tensors.items():
        if not name.endswith(CORE):
            found[name] = tensor
            continue
        place = name.removesuffix(CORE)
        fixed = modules[place].factors(adapter)
        whole = padded(Factors(fixed.up.cpu() @ tensor, fixed.down.cpu()), rank)
        found[place + A], found[place + B] = whole.down, whole.up
    layers = [module for module in modules.values() if isinstance(module, LinearWithCore)]
    transposed = any(isinstance(layer.get_base_layer(), Conv1D) for layer in layers)
    config = LoraConfig(
        r=rank,
        fan_in_fan_out=transposed,
        lora_alpha=own.lora_alpha if rank == own.r else own.lora_alpha / own.r * rank,
        target_modules=own.target_modules,
        layers_to_transform=own.layers_to_transform,
        modules_to_save=own.modules_to_save,
        task_type=own.task_type,
        base_model_name_or_path=own.base_model_name_or_path,
    )
    return config, found


register(CoreConfig, CoreModel)
