"""The role of an adapter: its settings, and PEFT's configuration for a model."""

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

# Keys of a PEFT configuration that are no settings: PEFT finds them out by itself.
DERIVED = {
    *("auto_mapping", "base_model_name_or_path", "revision", "peft_type", "task_type"),
    *("inference_mode", "peft_version", "fan_in_fan_out"),
    *("token_dim", "num_layers", "num_attention_heads", "num_transformer_submodules"),
    "encoder_hidden_size",  # of the encoder of prompts, if there is one
}
# Limited, since they take memory before any model is asked.
VirtualTokens = Annotated[int, Field(ge=1, le=4_096)]
# Names of modules, or a regular expression; a silo takes no expression from a server.
Targets = Annotated[tuple[str, ...] | str | None, NAMES]
Layers = Annotated[tuple[NonNegativeInt, ...], Field(min_length=1)]  # counted from 0
# The kinds that PEFT lacks.
BOTTLENECK, LORA_XS, IN_PLACE = "BOTTLENECK", "LORA_XS", "IN_PLACE"
# Kinds that never have LoRA's factors A and B; of others it is known when they are in a model.
WITHOUT_FACTORS = (
    BOTTLENECK,
    LORA_XS,
    IN_PLACE,
    "IA3",
    "P_TUNING",
    "PREFIX_TUNING",
    "PROMPT_TUNING",
)
HEAD_TASKS = ("SEQ_CLS", "TOKEN_CLS")  # tasks whose models have a head that is trained


class Adapter(ABC):
    """A kind of adapter. Its fields are its settings; PEFT puts it into a model.

    kind: its peft_type in adapter_config.json. injected: whether PEFT puts it into the model.
    required: settings that this file must have.
    client_settings: settings in which the clients of a run may differ. rank_settings,
        layout_settings: settings in which they may differ, too, if the algorithm combines adapters
        of unequal ranks, or of unequal layouts.
    refusals: errors that PEFT raises if a model cannot have this adapter.
    """

    kind: ClassVar[str] = ""
    injected: ClassVar[bool] = True
    required: ClassVar[tuple[str, ...]] = ()
    client_settings: ClassVar[tuple[str, ...]] = ()
    rank_settings: ClassVar[tuple[str, ...]] = ()
    layout_settings: ClassVar[tuple[str, ...]] = ()
    refusals: ClassVar[tuple[type[Exception], ...]] = (ValueError, TypeError, re.error)

    @abstractmethod
    def config(self, model: Any) -> "peft.PeftConfig":
        """PEFT's configuration for this model; raises UserError if the model cannot have it."""

    def refusal(self, model: Any, error: Exception) -> str:
        """The message to the user if PEFT cannot put this adapter into the model."""
        reason = str(error).rstrip(".")
        return (
            f"{type(self).__name__} cannot be put into this model: {reason}; choose another "
            "adapter, such as lora."
        )

    @property
    def row_gradients(self) -> bool:
        """True if the gradient of each row is known for all that it trains.

        It is for parameters of torch's own layers, which these layers alone use.
        """
        return False

    @property
    def resizable(self) -> bool:
        """True if `resized` gives parts of this adapter."""
        return False

    def resized(self, model: Any, depth: int, width: int) -> "Adapter":
        """The adapter in its top `depth` layers alone, with `width` inner numbers in each.

        All of it if it has no more. Its tensors are leading blocks of the whole adapter's, and its
        effect is the same if the others' last factor is zero.
        """
        raise TypeError(f"{type(self).__name__} has no parts that train by themselves")

    @property
    def kinds(self) -> "tuple[Adapter, ...]":
        """The kinds that are put into a model; in a layer, each is around those before it."""
        return (self,)

    def trains(self, name: str) -> bool:
        """Tell if this parameter, one of those that PEFT has put into the model, is trained."""
        return True

    def check(self, model: "peft.PeftModel", name: str) -> None:  # noqa: B027 (most need none)
        """Raise UserError if the adapter of this name makes no sense in the model."""

    @classmethod
    def read(cls, written: Mapping[str, Any]) -> "Adapter":
        """The settings in an adapter_config.json.

        Raises ValueError if it lacks a required setting, or has one that this kind has not.
        """
        if missing := set(cls.required) - written.keys():
            raise ValueError(f"does not say {min(missing)}")
        known = {field.name for field in fields(cls)}  # type: ignore[arg-type]
        head = {"modules_to_save"} if written.get("task_type") in HEAD_TASKS else set()
        defaults = peft.PEFT_TYPE_TO_CONFIG_MAPPING[written["peft_type"]]().to_dict()
        for name in sorted(defaults.keys() & written.keys() - known - DERIVED - head):
            if written[name] and written[name] != defaults[name]:
                raise ValueError(f"has {name}: {written[name]!r}")
        values = {name: written[name] for name in known & written.keys()}
        if isinstance(targets := values.get("target_modules"), list):
            values["target_modules"] = tuple(sorted(targets))
        return TypeAdapter(cls).validate_python(values)
