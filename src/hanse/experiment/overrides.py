"""Overrides: the `key.key=value` words with which a command line changes an experiment."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from hanse.errors import UserError
from hanse.experiment.part_kinds import PART_KINDS
from hanse.journal.yaml_text import UNREADABLE, Place, Values, _loaded, _Loader

# The places where one part is chosen by name; another name there replaces the choice.
CHOICES: set[Place] = {kind.place for kind in PART_KINDS if not kind.several}


def chooses(place: Place) -> bool:
    """True if one part is chosen by name at a place, such as at models.<name>.adapter."""
    return (place[2:] if place[:1] == ("models",) else place) in CHOICES


@dataclass(frozen=True)
class Change:
    """One `key.key=value` word of a command line."""

    place: Place
    value: Any
    word: str


_Loader.add_constructor("tag:yaml.org,2002:int", _Loader.construct_yaml_int)


def parse_change(word: str) -> Change:
    """Parse a `key.key=value` word of a command line; the value is YAML."""
    path, equals, text = word.partition("=")
    keys = path.split(".")
    if not equals or not all(keys):
        raise UserError(f"{word!r} is no override; write key=value, such as rounds=5.")
    try:
        value = _loaded(text)
    except UNREADABLE:
        raise UserError(f"the value in {word!r:.80} is not valid YAML.") from None
    return Change(tuple(keys), value, word)


def override(values: Values, changes: Iterable[Change]) -> Values:
    """Apply changes to the values, one after another.

    Where a part is chosen ("algorithm"), the name of another part replaces the choice:
    `algorithm.fedprox.mu=0.1` turns FedAvg into FedProx. Raises UserError if a later change would
    silently undo an earlier one.
    """
    applied: list[Change] = []
    for new in changes:
        for old in applied:
            _refuse_conflict(old, new)
        applied.append(new)
        values = _with(values, new.place, new.value, ())
    return values


def _refuse_conflict(old: Change, new: Change) -> None:
    """Refuse two words that undo each other; the same setting may be given twice."""
    both = f"the overrides {old.word!r} and {new.word!r}"
    same_key = old.word.partition("=")[0] == new.word.partition("=")[0]
    if old.place == new.place and same_key:
        return
    if old.place == new.place:
        raise UserError(f"{both} set the same; leave one of them out.")
    for place in CHOICES:
        first, second = _chosen(old, place), _chosen(new, place)
        if first and second and first != second:
            setting = ".".join(map(str, place))
            raise UserError(f"{both} choose differently for {setting}; leave one of them out.")
    if old.place[: len(new.place)] == new.place:
        raise UserError(f"of {both} the second undoes the first; leave one of them out.")


def _chosen(change: Change, place: Place) -> set[str]:
    """The names of parts that a change chooses at a place; empty if it concerns another place."""
    depth = len(place)
    if change.place[:depth] == place and len(change.place) > depth:
        removed = change.value is None and len(change.place) == depth + 1
        return set() if removed else {str(change.place[depth])}
    if change.place != place:
        return set()
    if isinstance(change.value, Mapping):
        return set(map(str, change.value))
    return {change.value} if isinstance(change.value, str) else set()


def merge(values: Mapping[str, Any], over: Mapping[str, Any], place: Place = ()) -> Values:
    """Merge `over` into `values`, key by key; `over` wins."""
    result = dict(values)
    for key, value in over.items():
        below = (*place, key)
        if isinstance(value, Mapping) and isinstance(result.get(key), Mapping):
            if chooses(below) and not value.keys() <= result[key].keys():
                result[key] = dict(value)
            else:
                result[key] = merge(result[key], value, below)
        else:
            result[key] = value
    return result


def _with(values: Any, keys: Place, value: Any, place: Place) -> Values:
    """Set one value deep inside; a plain value on the way to it is replaced by a section."""
    result = dict(values) if isinstance(values, Mapping) else {}
    key, inner = keys[0], keys[1:]
    if chooses(place) and key not in result:
        result = {}
    if inner:
        value = _with(result.get(str(key)), inner, value, (*place, key))
    return {**result, str(key): value}
