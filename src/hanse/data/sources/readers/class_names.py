"""Names of classes that `datasets` stores beside a table, in place of the columns' numbers."""

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

from hanse.tensors import json_text
from hanse.tensors.json_text import JsonError

Naming = Callable[[Any], Any]  # a column's value with names for numbers
KEY = b"huggingface"  # of the description in a table's metadata


def of_metadata(metadata: Mapping[bytes, bytes] | None) -> dict[str, Naming]:
    """The naming of each column with named classes, from the metadata of a table's schema."""
    try:
        description = json_text.parse_object((metadata or {}).get(KEY, b"{}"))
        return of_features(description.get("info", {}).get("features", {}))
    except (JsonError, AttributeError):
        return {}


def of_features(features: Mapping[str, Any]) -> dict[str, Naming]:
    """The naming of each column with named classes, from the features as plain values."""
    namings = {column: _naming(feature) for column, feature in features.items()}
    return {column: naming for column, naming in namings.items() if naming}


def named(record: Mapping[str, Any], namings: Mapping[str, Naming]) -> Mapping[str, Any]:
    """A record with names in place of numbers."""
    values = {column: naming(record[column]) for column, naming in namings.items()}
    return {**record, **values} if values else record


def _naming(feature: Any) -> Naming | None:
    """The naming of one feature: a class, or a list of such features; None for any other."""
    if isinstance(feature, list) and len(feature) == 1:
        feature = {"feature": feature[0]}
    if not isinstance(feature, Mapping):
        return None
    names = feature.get("names")
    if feature.get("_type") == "ClassLabel" and isinstance(names, list):
        return partial(_name, names)
    inner = _naming(feature["feature"]) if "feature" in feature else None
    return partial(_each, inner) if inner else None


def _name(names: list[str], value: Any) -> Any:
    """The name of a class; None for −1, which stands for a label that is kept secret."""
    if not isinstance(value, int):
        return value
    return names[value] if 0 <= value < len(names) else None


def _each(naming: Naming, value: Any) -> Any:
    return [naming(item) for item in value] if isinstance(value, list) else value
