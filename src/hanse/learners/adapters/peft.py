"""Any other method of PEFT, by the name that PEFT gives it."""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from importlib.util import find_spec
from pathlib import Path
from runpy import run_path
from types import NoneType
from typing import Annotated, Any, ClassVar

from pydantic import ConfigDict

from hanse.errors import UserError
from hanse.lazy_imports import lazy_imports
from hanse.learners.injection.adapter import DERIVED, Adapter
from hanse.registry import NAMES, ServerText, plain_names, suggestion

with lazy_imports():
    import peft

    from hanse.learners.injection import attached_adapter
    from hanse.learners.injection import target_modules as modules

# Methods of PEFT that cannot be trained by minimizing a loss of each row, with the reason.
UNFIT = {
    "adalora": "has to move its ranks between the steps of training",
    "cpt": "has a loss of its own, over tokens whose kind it needs to know",
    "lily": "mixes its factors by a mean over all tokens of a batch, so its output for a row "
    "depends on the other rows and on later tokens",
    "multitask_prompt_tuning": "needs the task of every row",
    "poly": "needs the task of every row",
    "xlora": "mixes adapters that were trained before",
}


# Settings whose text is names of modules; other text among PEFT's settings may name files or hosts.
MODULES = ("target_modules", "exclude_modules", "modules_to_save", "feedforward_modules")


def _harmless(settings: Any) -> bool:
    """Tell if settings hold nothing but numbers, switches and plain names of modules."""
    return isinstance(settings, dict) and all(
        plain_names(value)
        if name in MODULES
        else isinstance(value, bool | float | NoneType)
        or (isinstance(value, int) and abs(value) <= LARGEST)
        for name, value in settings.items()
    )


LARGEST = 4_096  # a whole number may be a size, and a larger one would take a silo's memory
PEFT_SETTINGS = ServerText(
    _harmless,
    f"switches, numbers up to {LARGEST:,} and, in {', '.join(MODULES)}, plain names of modules",
)


@dataclass(frozen=True)
class Peft(Adapter):
    """PEFT's method of this name, such as vera, with PEFT's own settings for it.

    Also written as `adapter: {vera: {…}}`.
    """

    __pydantic_config__ = ConfigDict(extra="forbid")

    method: Annotated[str, NAMES]
    settings: Annotated[dict[str, Any], PEFT_SETTINGS] = field(default_factory=dict, hash=False)

    # PEFT's methods raise many errors for settings and layers; OSError: a tokenizer does not load.
    refusals: ClassVar[tuple[type[Exception], ...]] = (
        *(ValueError, TypeError, LookupError, AttributeError, RuntimeError, re.error, OSError),
    )

    def config(self, model: Any) -> "peft.PeftConfig":
        peft_type = peft.PeftType.__members__.get(self.method.upper())
        config = peft.PEFT_TYPE_TO_CONFIG_MAPPING.get(peft_type) if peft_type else None
        if config is None:
            known = methods()
            raise UserError(
                f"adapter: PEFT has no method {self.method!r}{suggestion(self.method, known)}; "
                f"it has {', '.join(known)}."
            )
        if reason := UNFIT.get(self.method.lower()):
            raise UserError(
                f"adapter: {self.method} {reason}, which hanse cannot do; choose another adapter, "
                "such as lora."
            )
        allowed = _settings(config)
        for name in self.settings:
            if name not in allowed:
                raise UserError(
                    f"adapter.{self.method} has no setting {name!r}{suggestion(name, allowed)}; "
                    f"PEFT has {', '.join(sorted(allowed))}."
                )
        try:
            return config(**self.settings)
        except (TypeError, ValueError, ImportError) as error:
            raise UserError(f"adapter.{self.method}: {error}.") from None

    def refusal(self, model: Any, error: Exception) -> str:
        reason = next(iter(str(error).splitlines()), type(error).__name__).rstrip(".")
        names = ", ".join(name for name, _ in modules.linears(model).most_common())
        allowed = _settings(peft.PEFT_TYPE_TO_CONFIG_MAPPING[peft.PeftType(self.method.upper())])
        return (
            f"{self.method} cannot be put into this model, whose linear layers are {names}: "
            f"{reason}; change its settings, which in PEFT are {', '.join(sorted(allowed))}, or "
            "choose another adapter."
        )

    def check(self, model: "peft.PeftModel", name: str) -> None:
        """Raise UserError if nothing would be trained: some methods ignore wrong settings."""
        model.set_adapter(name)
        live = attached_adapter.parameters(model, name).values()
        if not any(parameter.requires_grad and parameter.numel() for parameter in live):
            raise UserError(self.refusal(model, ValueError("nothing would be trained")))

    @classmethod
    def read(cls, written: Mapping[str, Any]) -> Adapter:
        defaults = peft.PEFT_TYPE_TO_CONFIG_MAPPING[written["peft_type"]]().to_dict()
        names = sorted(defaults.keys() & written.keys() - DERIVED)
        settings = {name: written[name] for name in names if written[name] != defaults[name]}
        return cls(str(written["peft_type"]).lower(), settings)


def _settings(config: Any) -> set[str]:
    """The names of the settings that a method's configuration has."""
    return set(config().to_dict().keys() - DERIVED)


@lru_cache
def methods() -> list[str]:
    """PEFT's names of its methods, in lower case.

    Only the file that lists them is run: names are checked before PEFT is imported.
    """
    home = find_spec("peft")
    assert home is not None and home.origin is not None  # hanse depends on it
    listed = run_path(str(Path(home.origin).parent / "utils" / "peft_types.py"))["PeftType"]
    return sorted(kind.value.lower() for kind in listed)
