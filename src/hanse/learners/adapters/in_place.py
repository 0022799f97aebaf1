"""No adapter: all weights of the base model change in place."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

from pydantic import ConfigDict

from hanse.errors import UserError
from hanse.learners.injection.adapter import IN_PLACE, Adapter


@dataclass(frozen=True)
class InPlace(Adapter):
    """Nothing is put into the model; an algorithm changes its weights, such as fedkseed.

    What a run saves is the seed of random directions of all weights, and the amount of each.
    """

    __pydantic_config__ = ConfigDict(extra="forbid")

    kind: ClassVar[str] = IN_PLACE
    injected: ClassVar[bool] = False

    def config(self, model: Any) -> Any:
        raise UserError(
            "adapter.in_place (adapter: none) puts nothing into the model; choose another kind of "
            "adapter, such as lora."
        )

    @classmethod
    def read(cls, written: Mapping[str, Any]) -> "InPlace":
        return cls()
