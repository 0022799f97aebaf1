"""What is trained inside a frozen model: the role of an adapter's settings."""

import re
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import fields
from typing import Annotated, Any, ClassVar

from pydantic import Field, NonNegativeInt, TypeAdapter

from hanse.lazy_imports import lazy_imports
from hanse.registry import NAMES

with lazy_imports():
    import peft

# What PEFT writes about where an adapter comes from, and what it finds out by itself.
CIRCUMSTANCES = {
    *("auto_mapping", "base_model_name_or_path", "revision", "peft_type", "task_type"),
    *("inference_mode", "peft_version", "fan_in_fan_out"),
    *("token_dim", "num_layers", "num_attention_heads", "num_transformer_submodules"),
    "encoder_hidden_size",  # of a reparametrization, if there is one
}
# Words of an adapter's own before a text; more would take memory before a model is asked.
VirtualTokens = Annotated[int, Field(ge=1, le=4_096)]
# Names of modules, or a regular expression, which a silo does not take from a server.
Targets = Annotated[tuple[str, ...] | str | None, NAMES]
Layers = Annotated[tuple[NonNegativeInt, ...], Field(min_length=1)]  # counted from 0
BOTTLENECK, LORA_XS = "BOTTLENECK", "LORA_XS"  # the kinds that PEFT does not have itself
HEADED = ("SEQ_CLS", "TOKEN_CLS")  # tasks whose models have a head of their own


class Adapter(ABC):
    """One way of adapting a frozen model. Its fields are its settings; PEFT does what they say.

    kind: what PEFT calls it in adapter_config.json. told: settings that must stand there.
    own: settings that the clients of a run may have otherwise; sizes: those in which they may
        differ where the algorithm combines adapters of unequal ranks.
    refusals: what PEFT raises where it cannot put this adapter into a model.
    """

    kind: ClassVar[str] = ""
    told: ClassVar[tuple[str, ...]] = ()
    own: ClassVar[tuple[str, ...]] = ()
    sizes: ClassVar[tuple[str, ...]] = ()
    refusals: ClassVar[tuple[type[Exception], ...]] = (ValueError, TypeError, re.error)

    @abstractmethod
    def config(self, model: Any) -> "peft.PeftConfig":
        """What PEFT is told for this model; raises UserError if the model cannot be adapted so."""

    def refused(self, model: Any, error: Exception) -> str:
        """What is wrong and what to do, when PEFT cannot put this adapter into the model."""
        said = str(error).rstrip(".")
        return (
            f"{type(self).__name__} cannot be put into this model: {said}; choose another "
            "adapter, such as lora."
        )

    @property
    def kinds(self) -> "tuple[Adapter, ...]":
        """All that is put into a model; in one layer each is around those before it."""
        return (self,)

    def trains(self, name: str) -> bool:
        """Whether this parameter, of those that PEFT has put into the model, is trained."""
        return True

    def check(self, model: "peft.PeftModel", name: str) -> None:  # noqa: B027 (most need none)
        """Raise UserError if what was put into the model under this name makes no sense."""

    @classmethod
    def read(cls, written: Mapping[str, Any]) -> "Adapter":
        """The settings in what PEFT has written about an adapter.

        Raises ValueError if it says more than the settings can.
        """
        if lacking := set(cls.told) - written.keys():
            raise ValueError(f"does not say {min(lacking)}")
        known = {field.name for field in fields(cls)}  # type: ignore[arg-type]
        # A head that is new has to be saved with the adapter.
        headed = {"modules_to_save"} if written.get("task_type") in HEADED else set()
        usual = peft.PEFT_TYPE_TO_CONFIG_MAPPING[written["peft_type"]]().to_dict()
        for name in sorted(usual.keys() & written.keys() - known - CIRCUMSTANCES - headed):
            if written[name] and written[name] != usual[name]:
                raise ValueError(f"has {name}: {written[name]!r}")
        values = {name: written[name] for name in known & written.keys()}
        plain = {
            n: tuple(sorted(v)) if n == "target_modules" and isinstance(v, list) else v
            for n, v in values.items()
        }
        return TypeAdapter(cls).validate_python(plain)
