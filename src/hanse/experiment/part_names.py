"""Names of parts in any case, such as FedAvg, and parts that other tools know by more names."""

from collections.abc import Mapping
from typing import Any

from hanse.experiment.part_kinds import ALGORITHM, PartKind

# Variants of one algorithm that Flower and OpenFedLLM name by themselves.
FEDOPT = {"fedadam": "adam", "fedyogi": "yogi", "fedadagrad": "adagrad", "fedavgm": "momentum"}


def plain(kind: PartKind, key: Any) -> Any:
    """The name of a part from its name in any case, with dashes or without; else unchanged."""
    if not isinstance(key, str) or key in (names := kind.names()):
        return key
    if kind is ALGORITHM and _letters(key) in FEDOPT:
        return "fedopt"
    return {_letters(name): name for name in names}.get(_letters(key), key)


def spelled(kind: PartKind, spec: Any) -> Any:
    """The spec of a part, or a list of specs, with names of ours."""
    if isinstance(spec, list):
        return [spelled(kind, item) for item in spec]
    if isinstance(spec, str):
        optimizer = _optimizer(kind, spec)
        return {"fedopt": {"optimizer": optimizer}} if optimizer else plain(kind, spec)
    if isinstance(spec, Mapping) and len(spec) == 1:
        [(name, settings)] = spec.items()
        optimizer = _optimizer(kind, name)
        if optimizer and (settings is None or isinstance(settings, Mapping)):
            return {"fedopt": {"optimizer": optimizer, **(settings or {})}}
    return spec


def _optimizer(kind: PartKind, name: Any) -> str | None:
    """The server's optimizer that a name of FedOpt says; None for other names."""
    return FEDOPT.get(_letters(str(name))) if kind is ALGORITHM else None


def _letters(name: str) -> str:
    return name.lower().replace("-", "").replace("_", "")
