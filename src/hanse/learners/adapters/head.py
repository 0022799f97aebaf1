"""The head alone is trained; an encoder's output for a text is computed once."""

from dataclasses import dataclass
from typing import Any

from pydantic import ConfigDict

from hanse.errors import UserError
from hanse.lazy_imports import lazy_imports
from hanse.learners.injection.adapter import Adapter

with lazy_imports():
    import peft
    from peft.utils import constants

    from hanse.learners.models import layers


@dataclass(frozen=True)
class Head(Adapter):
    """Only the modules after a classifier's layers are trained, sent and saved.

    PEFT loads them as copies of whole modules.
    """

    __pydantic_config__ = ConfigDict(extra="forbid")

    @property
    def row_gradients(self) -> bool:
        return True

    def config(self, model: Any) -> "peft.LNTuningConfig":
        base = model.get_base_model() if hasattr(model, "get_base_model") else model
        if base.get_output_embeddings() is not None:
            raise UserError(
                f"adapter.head trains a classifier's head, but this {base.config.model_type} model "
                "is a language model; choose an encoder, such as minilm-l6, or another adapter."
            )
        names = [name for name, _ in base.named_parameters()]
        modules = [
            module
            for module in layers.heads(base)
            if any(name.startswith(f"{module}.") for name in names)
        ]
        return peft.LNTuningConfig(
            target_modules=constants.DUMMY_TARGET_MODULES,
            modules_to_save=[module.rpartition(".")[2] for module in modules],
        )
