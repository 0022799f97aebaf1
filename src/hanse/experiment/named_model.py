"""The section `models`: models beside the one that the federation trains."""

from dataclasses import dataclass
from typing import Annotated, Any

from pydantic import BeforeValidator

from hanse.experiment.adapter_choice import AnyAdapter, resolved_adapter
from hanse.learners.models.settings import BaseModelSettings


def _none(value: Any) -> Any:
    return None if value == "none" else value


@dataclass(frozen=True)
class NamedModel(BaseModelSettings):
    """The settings of a model beside the trained one: those of `model`, and its own adapter.

    adapter: as in `adapter`; none: the model is frozen.
    """

    adapter: Annotated[AnyAdapter | None, BeforeValidator(_none)] = None

    @staticmethod
    def resolved(values: dict[str, Any]) -> dict[str, Any]:
        """The plain values of a named model without the kinds of adapters that are not chosen."""
        adapter = values["adapter"]
        return values | {"adapter": None if adapter is None else resolved_adapter(adapter)}
