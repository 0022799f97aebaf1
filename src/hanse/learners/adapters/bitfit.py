"""BitFit (Zaken et al. 2022, 2106.10199): only biases are trained."""

from dataclasses import dataclass
from typing import Any

from pydantic import ConfigDict

from hanse.errors import UserError
from hanse.lazy_imports import lazy_imports
from hanse.learners.injection.adapter import Adapter

with lazy_imports():
    import peft

    from hanse.learners.injection import target_modules as modules
    from hanse.learners.models import quantization


@dataclass(frozen=True)
class BitFit(Adapter):
    """Every bias of the model is trained.

    Only biases are sent. Whole modules are saved, since PEFT has no form for a bias alone.
    """

    __pydantic_config__ = ConfigDict(extra="forbid")

    def config(self, model: Any) -> "peft.LNTuningConfig":
        biased = {
            name: module
            for name, module in modules.base_modules(model)
            if "bias" in dict(module.named_parameters(recurse=False))
        }
        if not biased:
            raise UserError(
                f"BitFit trains biases, and a {model.config.model_type} model has none; choose "
                "another adapter, such as lora or ia3."
            )
        quantization.refuse_copies("bitfit", biased.values())
        return peft.LNTuningConfig(target_modules=list(biased))

    def trains(self, name: str) -> bool:
        return name.endswith(".bias")
