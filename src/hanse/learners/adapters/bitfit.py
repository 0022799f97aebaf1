"""BitFit (Zaken et al. 2022, 2106.10199): biases are trained, and nothing else."""

from dataclasses import dataclass
from typing import Any

from peft import LNTuningConfig
from pydantic import ConfigDict

from hanse.errors import UserError
from hanse.learners.injection.adapter import Adapter
from hanse.learners.injection.target_modules import base_modules
from hanse.learners.models.quantization import refuse_copies


@dataclass(frozen=True)
class BitFit(Adapter):
    """Every bias of the model is trained.

    PEFT has no place for a bias alone: what is saved, not what is sent, are whole modules.
    """

    __pydantic_config__ = ConfigDict(extra="forbid")

    def config(self, model: Any) -> LNTuningConfig:
        biased = {
            name: module
            for name, module in base_modules(model)
            if "bias" in dict(module.named_parameters(recurse=False))
        }
        if not biased:
            raise UserError(
                f"BitFit trains biases, and a {model.config.model_type} model has none; choose "
                "another adapter, such as lora or ia3."
            )
        refuse_copies("bitfit", biased.values())
        return LNTuningConfig(target_modules=list(biased))

    def trains(self, name: str) -> bool:
        return name.endswith(".bias")
