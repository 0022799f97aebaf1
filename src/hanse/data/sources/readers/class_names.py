"""Names of classes that `datasets` stores beside a table, in place of the columns' numbers."""

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from hanse.tensors import json_text
from hanse.tensors.json_text import JsonError

Naming = Callable[[Any], Any]  # a column's value with names for numbers
KEY = b"huggingface"  # of the description in a table's metadata


@dataclass(frozen=True)
class ClassSettings:
    """The values of classes in an experiment's settings, which are their names or their numbers.

    labels: the keys of `data.labels`. filter: `data.filter`.
    """

    labels: Collection[str] = ()
    filter: Mapping[str, str] = field(default_factory=dict)

    def by_number(self, column: str, names: Collection[str]) -> bool:
        """True if the settings give numbers for the classes of a column, not their names."""
        if column in self.filter:
            values = {self.filter[column]}
        else:  # perhaps that of the label, which a filter may call "label", too
            values = {*self.labels} or {self.filter.get("label", "")}
        return values <= {*map(str, range(len(names)))} and not values <= {*names}


NO_CLASSES = ClassSettings()


def of_metadata(
    metadata: Mapping[bytes, bytes] | None, settings: ClassSettings = NO_CLASSES
) -> dict[str, Naming]:
    """The naming of each column with named classes, from the metadata of a table's schema."""
    try:
        description = json_text.parse_object((metadata or {}).get(KEY, b"{}"))
        return of_features(description.get("info", {}).get("features", {}), settings)
    except (JsonError, AttributeError):
        return {}


def of_features(
    features: Mapping[str, Any], settings: ClassSettings = NO_CLASSES
) -> dict[str, Naming]:
    """The naming of each column with named classes, from the features as plain values.

    A column whose classes the settings give by their numbers keeps the numbers.
    """
    namings = {
        column: _naming(feature, partial(settings.by_number, column))
        for column, feature in features.items()
    }
    return {column: naming for column, naming in namings.items() if naming}


def named(record: Mapping[str, Any], namings: Mapping[str, Naming]) -> Mapping[str, Any]:
    """A record with names in place of numbers."""
    values = {column: naming(record[column]) for column, naming in namings.items()}
    return {**record, **values} if values else record


def _naming(feature: Any, by_number: Callable[[Collection[str]], bool]) -> Naming | None:
    """The naming of one feature: a class, or a list of such features; None for any other.

    by_number: tells by the names of the classes if their numbers stay.
    """
    if isinstance(feature, list) and len(feature) == 1:
        feature = {"feature": feature[0]}
    if not isinstance(feature, Mapping):
        return None
    names = feature.get("names")
    if feature.get("_type") == "ClassLabel" and isinstance(names, list):
        return None if by_number(names) else partial(_name, names)
    inner = _naming(feature["feature"], by_number) if "feature" in feature else None
    return partial(_each, inner) if inner else None


def _name(names: list[str], value: Any) -> Any:
    """The name of a class; None for −1, which stands for a label that is kept secret."""
    if not isinstance(value, int):
        return value
    return names[value] if 0 <= value < len(names) else None


def _each(naming: Naming, value: Any) -> Any:
    return [naming(item) for item in value] if isinstance(value, list) else value
