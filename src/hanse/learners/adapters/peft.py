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
from hanse.learners.injection.adapter import CIRCUMSTANCES, Adapter
from hanse.registry import NAMES, ServerText, plain_names, suggestion

with lazy_imports():
    import peft

    from hanse.learners.injection import attached_adapter
    from hanse.learners.injection import target_modules as modules

# What PEFT has, but a federation of learners that only minimize a loss could not train rightly.
UNFIT = {
    "adalora": "has to move its ranks between the steps of training",
    "cpt": "has a loss of its own, over tokens whose kind it has to be told",
    "lily": "mixes its factors by a mean over all tokens of a batch, so that what it says of a row "
    "depends on the rows beside it and on the tokens behind",
    "multitask_prompt_tuning": "has to be told the task of every row",
    "poly": "has to be told the task of every row",
    "xlora": "mixes adapters that were trained before",
}


# Settings whose text is names of modules; all other text of PEFT's may name files or hosts.
MODULES = ("target_modules", "exclude_modules", "modules_to_save", "feedforward_modules")


def _harmless(settings: Any) -> bool:
    """Whether settings hold numbers, switches and plain names of modules, and nothing else."""
    return isinstance(settings, dict) and all(
        plain_names(value)
        if name in MODULES
        else isinstance(value, bool | float | NoneType)
        or (isinstance(value, int) and abs(value) <= LARGEST)
        for name, value in settings.items()
    )


LARGEST = 4_096  # a whole number that sizes something; more would take a silo's memory
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

    # Its methods trip over settings and layers in many ways; OSError: of a tokenizer to load.
    refusals: ClassVar[tuple[type[Exception], ...]] = (
        *(ValueError, TypeError, LookupError, AttributeError, RuntimeError, re.error, OSError),
    )

    def config(self, model: Any) -> "peft.PeftConfig":
        name = peft.PeftType.__members__.get(self.method.upper())
        kind = peft.PEFT_TYPE_TO_CONFIG_MAPPING.get(name) if name else None
        if kind is None:
            known = methods()
            raise UserError(
                f"adapter: PEFT has no method {self.method!r}{suggestion(self.method, known)}; "
                f"it has {', '.join(known)}."
            )
        if reason := UNFIT.get(self.method.lower()):
            raise UserError(
                f"adapter: {self.method} {reason}, which is not done here; choose another adapter, "
                "such as lora."
            )
        allowed = _settings(kind)
        for own in self.settings:
            if own not in allowed:
                raise UserError(
                    f"adapter.{self.method} has no setting {own!r}{suggestion(own, allowed)}; "
                    f"PEFT has {', '.join(sorted(allowed))}."
                )
        try:
            return kind(**self.settings)
        except (TypeError, ValueError, ImportError) as error:
            raise UserError(f"adapter.{self.method}: {error}.") from None

    def refused(self, model: Any, error: Exception) -> str:
        said = next(iter(str(error).splitlines()), type(error).__name__).rstrip(".")
        names = ", ".join(name for name, _ in modules.linears(model).most_common())
        allowed = _settings(peft.PEFT_TYPE_TO_CONFIG_MAPPING[peft.PeftType(self.method.upper())])
        return (
            f"{self.method} cannot be put into this model, whose linear layers are {names}: "
            f"{said}; change its settings, of which PEFT has {', '.join(sorted(allowed))}, or "
            "choose another adapter."
        )

    def check(self, model: "peft.PeftModel", name: str) -> None:
        """Some methods do nothing, and say nothing, until their settings are right."""
        model.set_adapter(name)
        live = attached_adapter.parameters(model, name).values()
        if not any(parameter.requires_grad and parameter.numel() for parameter in live):
            raise UserError(self.refused(model, ValueError("nothing would be trained")))

    @classmethod
    def read(cls, written: Mapping[str, Any]) -> Adapter:
        usual = peft.PEFT_TYPE_TO_CONFIG_MAPPING[written["peft_type"]]().to_dict()
        given = usual.keys() & written.keys() - CIRCUMSTANCES
        settings = {name: written[name] for name in sorted(given) if written[name] != usual[name]}
        return cls(str(written["peft_type"]).lower(), settings)


def _settings(kind: Any) -> set[str]:
    """What may be set of a method."""
    return set(kind().to_dict().keys() - CIRCUMSTANCES)


@lru_cache
def methods() -> list[str]:
    """PEFT's names of its methods, in lower case.

    Only the file that lists them is run: names are checked before PEFT is imported.
    """
    home = find_spec("peft")
    assert home is not None and home.origin is not None  # hanse depends on it
    listed = run_path(str(Path(home.origin).parent / "utils" / "peft_types.py"))["PeftType"]
    return sorted(kind.value.lower() for kind in listed)
