"""A head alone: nothing of an encoder is trained, and what it makes of a text is computed once."""

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
    """What stands behind a classifier's layers is trained, sent and saved, and nothing else.

    PEFT loads it as copies of whole modules.
    """

    __pydantic_config__ = ConfigDict(extra="forbid")

    def config(self, model: Any) -> "peft.LNTuningConfig":
        base = model.get_base_model() if hasattr(model, "get_base_model") else model
        if base.get_output_embeddings() is not None:
            raise UserError(
                f"adapter.head trains a classifier's head, and a {base.config.model_type} model "
                "here is one of language; choose an encoder, such as minilm-l6, or another adapter."
            )
        ours = {name: f"{name}." for name in layers.heads(base)}
        whole = [name for name, _ in base.named_parameters()]
        there = [name for name, start in ours.items() if any(n.startswith(start) for n in whole)]
        return peft.LNTuningConfig(
            target_modules=constants.DUMMY_TARGET_MODULES,
            modules_to_save=[name.rpartition(".")[2] for name in there],
        )
