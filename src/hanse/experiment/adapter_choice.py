"""The section `adapter`: the kinds of adapters that are put into the model, with their settings."""

from typing import TYPE_CHECKING, Any

from pydantic import Field, create_model, model_validator

from hanse.experiment.part_kinds import ADAPTER
from hanse.experiment.sections import SettingsModel
from hanse.learners.adapters.peft import methods
from hanse.learners.injection.adapter import Adapter
from hanse.learners.injection.mixed import Mixed


class AdapterChoice(SettingsModel):
    """A fresh adapter, or one from a run or a PEFT folder whose training goes on.

    AnyAdapter adds one setting for each file of learners/adapters.
    """

    source: str | None = Field(default=None, alias="from")

    @model_validator(mode="before")
    @classmethod
    def _read_short_forms(cls, value: Any) -> Any:
        """A kind by its name alone, a method of PEFT by PEFT's name, and `none` for in_place."""
        if isinstance(value, str):
            value = {"in_place" if value == "none" else value: {}}
        if not isinstance(value, dict) or len(value) != 1:
            return value
        [(name, settings)] = value.items()
        if name not in cls.model_fields and name in methods():
            return {"peft": {"method": name, "settings": settings or {}}}
        return {name: {} if settings is None and name != "from" else settings}

    @model_validator(mode="after")
    def _has_one_source(self) -> "AdapterChoice":
        if (self.source is None) != bool(self._kinds):
            raise ValueError(
                "adapter takes either one kind, such as lora: {…}, or from: a run or PEFT folder, "
                "not both or neither."
            )
        self.fresh  # noqa: B018 (raises for kinds that do not go together)
        return self

    @property
    def _kinds(self) -> list[Adapter]:
        return [settings for _, settings in self if isinstance(settings, Adapter)]

    @property
    def fresh(self) -> Adapter | None:
        """The settings of a fresh adapter; none if the adapter comes from a folder."""
        kinds = self._kinds
        return Mixed.of(kinds) if len(kinds) > 1 else next(iter(kinds), None)


def _with_kinds() -> type[AdapterChoice]:
    """AdapterChoice with one setting for each kind of adapter."""
    kinds = {name: ADAPTER.find(name) for name in ADAPTER.names()}
    settings: dict[str, Any] = {name: (kind | None, None) for name, kind in kinds.items()}
    return create_model("AdapterChoice", __base__=AdapterChoice, **settings)


if TYPE_CHECKING:
    AnyAdapter = AdapterChoice
else:
    AnyAdapter = _with_kinds()


def resolved_adapter(adapter: dict[str, Any]) -> dict[str, Any]:
    """The values of an AnyAdapter without the kinds that are not chosen.

    A method of PEFT stands under PEFT's name for it, so that an override merges with its settings.
    """
    kinds = {name: settings for name, settings in adapter.items() if settings is not None}
    method = kinds.get("peft", {}).get("method")
    if method in methods() and method not in AnyAdapter.model_fields:
        return {method: kinds["peft"]["settings"]}
    return kinds
