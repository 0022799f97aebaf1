"""Any other method of PEFT, by the name that PEFT gives it."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from peft import PEFT_TYPE_TO_CONFIG_MAPPING, PeftConfig, PeftType
from pydantic import ConfigDict

from hanse.errors import UserError
from hanse.learners.adapter import CIRCUMSTANCES, Adapter
from hanse.parts import suggestion


@dataclass(frozen=True)
class Peft(Adapter):
    """PEFT's method of this name, such as vera, with PEFT's own settings for it.

    Also written as `adapter: {vera: {…}}`.
    """

    __pydantic_config__ = ConfigDict(extra="forbid")

    method: str
    settings: dict[str, Any] = field(default_factory=dict, hash=False)

    def config(self, model: Any) -> PeftConfig:
        name = PeftType.__members__.get(self.method.upper())
        kind = PEFT_TYPE_TO_CONFIG_MAPPING.get(name) if name else None
        if kind is None:
            known = methods()
            raise UserError(
                f"adapter: PEFT has no method {self.method!r}{suggestion(self.method, known)}; "
                f"it has {', '.join(known)}."
            )
        allowed = kind().to_dict().keys() - CIRCUMSTANCES
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

    @classmethod
    def read(cls, written: Mapping[str, Any]) -> Adapter:
        usual = PEFT_TYPE_TO_CONFIG_MAPPING[written["peft_type"]]().to_dict()
        given = usual.keys() & written.keys() - CIRCUMSTANCES
        settings = {name: written[name] for name in sorted(given) if written[name] != usual[name]}
        return cls(str(written["peft_type"]).lower(), settings)


def methods() -> list[str]:
    """PEFT's names of its methods, in lower case."""
    return sorted(kind.value.lower() for kind in PeftType if kind in PEFT_TYPE_TO_CONFIG_MAPPING)
