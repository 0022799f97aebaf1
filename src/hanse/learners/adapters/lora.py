"""LoRA (Hu et al. 2021, 2106.09685): a low-rank update of frozen matrices."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Annotated, Any, ClassVar

from pydantic import ConfigDict, Field, PositiveFloat

from hanse.errors import UserError
from hanse.lazy_imports import lazy_imports
from hanse.learners.injection.adapter import Adapter, Layers, Targets

with lazy_imports():
    import peft
    from peft.tuners.lora import layer as lora_layer
    from torch import nn
    from transformers import pytorch_utils

    from hanse.learners.injection import target_modules as modules


@dataclass(frozen=True)
class Lora(Adapter):
    """W + s·B·A with W frozen and B zero at the start; s = α/r.

    target_modules: names of modules, or a regular expression; none: PEFT's choice for the
        architecture.
    target_parameters: names of parameters, such as those that hold all experts of a layer;
        all-linear has these, too.
    layers_to_transform: the layers that are adapted, counted from 0; none: all. The layers below
        them are computed once.
    use_rslora: s = α/√r (Kalajdzievski 2023, 2312.03732): a higher rank learns equally fast.
    use_dora: the lengths of W's columns are trained separately (Liu et al. 2024, 2402.09353).
    """

    __pydantic_config__ = ConfigDict(extra="forbid", allow_inf_nan=False)
    kind: ClassVar[str] = "LORA"
    required: ClassVar[tuple[str, ...]] = ("r", "lora_alpha", "lora_dropout")
    client_settings: ClassVar[tuple[str, ...]] = ("lora_dropout",)
    rank_settings: ClassVar[tuple[str, ...]] = ("r", "lora_alpha")
    layout_settings: ClassVar[tuple[str, ...]] = ("target_modules", "layers_to_transform")

    r: Annotated[int, Field(ge=1, le=65_536)] = 8  # its limit is above the width of any matrix
    lora_alpha: PositiveFloat = 16
    lora_dropout: Annotated[float, Field(ge=0, lt=1)] = 0.0
    target_modules: Targets = None
    target_parameters: tuple[str, ...] | None = None
    layers_to_transform: Layers | None = None
    use_rslora: bool = False
    use_dora: bool = False

    @property
    def scaling(self) -> float:
        """The factor s of B·A."""
        return self.lora_alpha / (self.r**0.5 if self.use_rslora else self.r)

    def config(self, model: Any) -> "peft.LoraConfig":
        self._refuse_wide(model)
        values: dict[str, Any] = {
            **asdict(self),
            "target_modules": modules.plain(self.target_modules),
        }
        if self.layers_to_transform is not None:
            values["layers_to_transform"] = list(self.layers_to_transform)
            values["target_modules"] = modules.in_layers(
                model, self.target_modules, self.layers_to_transform
            )
        parameters = self.target_parameters
        values["target_parameters"] = None if parameters is None else list(parameters)
        values |= _doubled(self.r, self.lora_alpha, parameters or ())
        return peft.LoraConfig(**values)

    def refusal(self, model: Any, error: Exception) -> str:
        where = "this model" if self.layers_to_transform is None else "the model's layers"
        return modules.unmatched(model, self.target_modules, error, where, "LoRA")

    def _refuse_wide(self, model: Any) -> None:
        """Raise UserError for a rank above the size of every matrix, before factors are made."""
        matrices = (nn.Linear, pytorch_utils.Conv1D)
        sides = [
            min(m.weight.shape) for _, m in modules.base_modules(model) if isinstance(m, matrices)
        ]
        if sides and self.r > max(sides):
            raise UserError(
                f"adapter.lora.r is {self.r}, but the model's matrices have at most {max(sides)} "
                f"rows or columns, so a higher rank adds nothing; set it to {max(sides)} or less."
            )

    def check(self, model: "peft.PeftModel", name: str) -> None:
        """Raise UserError for a useless rank, or for experts in some of the layers alone."""
        layers: list[Any] = [
            module for module in model.modules() if isinstance(module, lora_layer.LoraLayer)
        ]
        fused = any(isinstance(layer, lora_layer.ParamWrapper) for layer in layers)
        if fused and self.layers_to_transform is not None:
            raise UserError(
                "adapter.lora.layers_to_transform does not go with fused experts, which PEFT "
                "adapts in all layers; leave it out, or name target_modules without experts."
            )
        pairs = [
            (layer.lora_A[name], layer.lora_B[name]) for layer in layers if name in layer.lora_A
        ]
        most = max((min(a.in_features, b.out_features) for a, b in pairs), default=self.r)
        if self.r > most:
            raise UserError(
                f"adapter.lora.r is {self.r}, but the adapted matrices have at most {most} rows "
                f"or columns, so a higher rank adds nothing; set it to {most} or less."
            )

    @classmethod
    def read(cls, written: Mapping[str, Any]) -> Adapter:
        layers = written.get("layers_to_transform")
        if isinstance(layers, int):
            layers = [layers]
        names = written.get("target_parameters")
        parameters = tuple(sorted(names)) if names else None
        values = {**written, "layers_to_transform": layers or None, "target_parameters": parameters}
        if parameters:
            for pattern, usual in _doubled(values["r"], values["lora_alpha"], parameters).items():
                if values.get(pattern) == usual:
                    del values[pattern]
        return super().read(values)


def _doubled(r: int, alpha: float, parameters: Sequence[str]) -> dict[str, dict[str, float]]:
    """Doubled ranks and α of parameters that hold two matrices: each matrix gets rank r.

    PEFT does the same for such parameters that it finds by itself.
    """
    both = [rf".*\.{re.escape(name)}" for name in parameters if name.endswith("gate_up_proj")]
    if not both:
        return {}
    return {
        "rank_pattern": dict.fromkeys(both, 2 * r),
        "alpha_pattern": dict.fromkeys(both, 2 * alpha),
    }
