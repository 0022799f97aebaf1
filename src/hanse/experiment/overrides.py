"""Changes that a command line makes to an experiment: `key.key=value` words."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from hanse.errors import UserError
from hanse.experiment.part_kinds import PART_KINDS
from hanse.journal.yaml_text import UNREADABLE, Place, Values, _loaded, _Loader

# Where one part is chosen by name: there, another name replaces the choice.
CHOICES: set[Place] = {kind.place for kind in PART_KINDS if not kind.several}


@dataclass(frozen=True)
class Change:
    """One `key.key=value` word of a command line."""

    place: Place
    value: Any
    word: str


_Loader.add_constructor("tag:yaml.org,2002:int", _Loader.construct_yaml_int)


def change(word: str) -> Change:
    """The change that a `key.key=value` word asks for; its value is read as YAML."""
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
    """The values with changes made to them, in their order.

    Where a part is chosen ("algorithm"), a key that it does not have chooses another part:
    `algorithm.fedprox.mu=0.1` turns FedAvg into FedProx. Raises UserError for two changes of which
    the later would silently undo the earlier.
    """
    made: list[Change] = []
    for new in changes:
        for old in made:
            _refuse_both(old, new)
        made.append(new)
        values = _with(values, new.place, new.value, ())
    return values


def _refuse_both(old: Change, new: Change) -> None:
    """Two words may give one setting twice, but not undo each other in a way that is not seen."""
    both = f"the overrides {old.word!r} and {new.word!r}"
    spelled = [change.word.partition("=")[0] for change in (old, new)]
    if old.place == new.place and spelled[0] == spelled[1]:
        return
    if old.place == new.place:
        raise UserError(f"{both} set the same; leave one of them out.")
    for place in CHOICES:
        first, second = _chosen(old, place), _chosen(new, place)
        if first and second and first != second:
            where = ".".join(map(str, place))
            raise UserError(f"{both} choose differently for {where}; leave one of them out.")
    if old.place[: len(new.place)] == new.place:
        raise UserError(f"of {both} the second undoes the first; leave one of them out.")


def _chosen(change: Change, place: Place) -> set[str]:
    """The names that a change chooses at a place; none if it is about something else."""
    depth = len(place)
    if change.place[:depth] == place and len(change.place) > depth:
        taken_back = change.value is None and len(change.place) == depth + 1
        return set() if taken_back else {str(change.place[depth])}
    if change.place != place:
        return set()
    if isinstance(change.value, Mapping):
        return set(map(str, change.value))
    return {change.value} if isinstance(change.value, str) else set()


def merge(values: Mapping[str, Any], over: Mapping[str, Any], place: Place = ()) -> Values:
    """`values` with `over` laid upon it, key by key."""
    result = dict(values)
    for key, value in over.items():
        below = (*place, key)
        if isinstance(value, Mapping) and isinstance(result.get(key), Mapping):
            if below in CHOICES and not value.keys() <= result[key].keys():
                result[key] = dict(value)
            else:
                result[key] = merge(result[key], value, below)
        else:
            result[key] = value
    return result


def _with(values: Any, keys: Place, value: Any, place: Place) -> Values:
    """`values` with one value set deep inside; what stands in the way is replaced."""
    result = dict(values) if isinstance(values, Mapping) else {}
    key, rest = keys[0], keys[1:]
    if place in CHOICES and key not in result:
        result = {}
    result[str(key)] = _with(result.get(str(key)), rest, value, (*place, key)) if rest else value
    return result
