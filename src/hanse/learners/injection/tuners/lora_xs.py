"""LoRA-XS for PEFT: W + s·B·R·A with B and A from W's own singular vectors, and only R trained.

B and A are computed when they are first needed, unless they are set before: in a federation the
server computes them and sends them to its clients. It is saved as a LoRA adapter with B·R and A.
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

CORE = ".core_r"  # the end of the name of a trained matrix


@dataclass
class CoreConfig(OwnConfig):
    """PEFT's configuration of LoRA-XS: the size of the trained matrices, and α."""

    kind: ClassVar[str] = LORA_XS

    r: int = 32
    lora_alpha: float = 32


class LinearWithCore(Module, BaseTunerLayer):
    """A frozen linear layer y = Wx, and s·B·R·A·x beside it; R begins as zero.

    B holds W's first left singular vectors, each times its singular value, and A the right ones. R
    has at most as many rows as the smaller side of W; s is α/r with the r of the settings.
    The class's name begins with Linear, since PEFT tells adapted linear layers by it.
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
        """Add an adapter to those of the layer."""
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
        """The shapes of an adapter's B and A."""
        base: Any = self.get_base_layer()
        rows, columns = base.weight.shape
        if isinstance(base, Conv1D):
            rows, columns = columns, rows
        rank = len(self.core_r[name])
        return (rows, rank), (rank, columns)

    @torch.no_grad()
    def factors(self, name: str) -> Factors:
        """An adapter's B and A, computed if they are missing."""
        if name not in self.fixed:
            base: Any = self.get_base_layer()
            with torch.autocast(base.weight.device.type, enabled=False):
                weight = base.weight.float()
                weight = weight.T if isinstance(base, Conv1D) else weight
                u, values, v = first_vectors(weight, len(self.core_r[name]))
            self.fixed[name] = Factors((u * values).contiguous(), v.T.contiguous())
        return self.fixed[name]

    def forward(self, x: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        output: Tensor = self.base_layer(x, *args, **kwargs)
        for name in () if self.disable_adapters else self.active_adapters:
            if name in self.core_r:
                core, fixed = self.core_r[name], self.factors(name)
                low = linear(x.to(core.dtype), fixed.down)
                update = linear(linear(low, core), fixed.up) * self.scaling[name]
                output = output + update.to(output.dtype)
        return output


class CoreModel(OwnModel):
    """A model with LoRA-XS in the target modules."""

    prefix = "core_"
    tuner_layer_cls = LinearWithCore


def as_lora(model: Module, adapter: str, tensors: Tensors) -> tuple[LoraConfig, dict[str, Tensor]]:
    """The configuration and tensors of the LoRA adapter that makes the same update: B·R and A.

    Its rank is that of the largest R; factors of smaller ones are padded with zeros, since LoRA has
    one rank for all layers. Its α is chosen to give the same s.
    """
    modules: dict[str, Any] = dict(model.named_modules())
    rank = max(len(tensor) for name, tensor in tensors.items() if name.endswith(CORE))
    factors = {}
    for name, tensor in tensors.items():
        if not name.endswith(CORE):
            factors[name] = tensor
            continue
        layer = name.removesuffix(CORE)
        fixed = modules[layer].factors(adapter)
        pair = padded(Factors(fixed.up.cpu() @ tensor, fixed.down.cpu()), rank)
        factors[layer + A], factors[layer + B] = pair.down, pair.up
    layers = [module for module in modules.values() if isinstance(module, LinearWithCore)]
    transposed = any(isinstance(layer.get_base_layer(), Conv1D) for layer in layers)
    config: Any = model.peft_config[adapter]  # type: ignore[index]
    return _lora_config(config, rank, transposed), factors


def _lora_config(config: Any, rank: int, transposed: bool) -> LoraConfig:
    """LoRA's configuration for that of LoRA-XS."""
    return LoraConfig(
        r=rank,
        fan_in_fan_out=transposed,
        lora_alpha=config.lora_alpha if rank == config.r else config.lora_alpha / config.r * rank,
        target_modules=config.target_modules,
        layers_to_transform=config.layers_to_transform,
        modules_to_save=config.modules_to_save,
        task_type=config.task_type,
        base_model_name_or_path=config.base_model_name_or_path,
    )


register(CoreConfig, CoreModel)
