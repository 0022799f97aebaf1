"""Rename settings that are written under other tools' names, or with dashes, and their values.

Each renamed setting, and each value that is read as another one, is noted in the log.
"""

import difflib
import logging
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from hanse import registry
from hanse.experiment import foreign_values, part_names
from hanse.experiment.aliases import ALIASES, Alias
from hanse.experiment.overrides import CHOICES, Change, chooses
from hanse.experiment.part_kinds import NAMED, PartKind
from hanse.experiment.schema import Experiment
from hanse.experiment.validation import SettingError, free, keys
from hanse.journal import yaml_text
from hanse.journal.yaml_text import Place, Values
from hanse.learners.adapters.peft import methods

log = logging.getLogger(__name__)

# Sections that are also written as a plain value, with the setting in them that the value means.
SHORT: dict[Place, str] = {("compression",): "upload"}
KINDS: dict[Place, PartKind] = {kind.place: kind for kind in NAMED}


@dataclass(frozen=True)
class Moved:
    """A value that is written in another section than its setting: `written`, not `place`.

    off: it is a switch that is off, or another tool's name without a value. Any other value of the
        setting precedes it.
    """

    written: Place
    place: Place
    value: Any
    off: bool = False


def settled(values: Values) -> Values:
    """Rename the values of a file; each renamed one is noted in the log.

    Raises SettingError for a setting that is given two values under two names.
    """
    moved: list[Moved] = []
    result = _renamed(values, (), moved)
    for item in sorted(moved, key=lambda item: item.off):
        result = _placed(result, item)
    return result


def changed(change: Change) -> list[Change]:
    """Rename a command line's change; a section of another tool may become several changes."""
    nested = change.value
    for key in reversed(change.place):
        nested = {key: nested}
    moved: list[Moved] = []
    value: Any = _renamed(nested, (), moved)
    result = [replace(change, place=item.place, value=item.value) for item in moved]
    if value:
        place: Place = ()
        for _ in change.place:
            if len(value) > 1:  # a name that stands for a part with a setting
                break
            [(key, value)] = value.items()
            place = (*place, key)
        result.append(replace(change, place=place, value=value))
    return result


def line(text: str, place: Place) -> int | None:
    """The line of a setting in a file's text, under any of its names, or the nearest line."""
    return yaml_text.line(text, place, _meant_place)


def _meant_place(place: Place, key: Any, leaf: bool) -> Place:
    """The place of the setting that a key means."""
    return _meant(place, key, leaf)[0]


def _renamed(values: Mapping[Any, Any], place: Place, moved: list[Moved]) -> Values:
    """Rename the values at a place; those that belong to another section are added to `moved`."""
    result: dict[Any, Any] = {}
    for key, value in values.items():
        written, leaf = (*place, key), not isinstance(value, Mapping)
        target, alias = _meant(place, key, leaf)
        if target[: len(written)] != written:
            log.info("%s is read as %s", _dotted(written), _dotted(target))
        off = alias is not None and _is_off(key, value, alias)
        value = _value(target, alias, value, moved)
        if target[:-1] != place:
            moved.append(Moved(written, target, value, off))
            continue
        if target[-1] in result:
            raise SettingError(
                f"{_dotted(target)} is given twice, once as {key}; keep one.", target
            )
        inner = value if leaf else _renamed(value, target, moved)
        if inner or not value:  # else all of another tool's section was moved
            result[target[-1]] = inner
    return result


def _is_off(key: Any, value: Any, alias: Alias) -> bool:
    """True for a switch that is off, and for another tool's name without a value."""
    own_name = str(key).replace("-", "_") == alias.setting.rpartition(".")[2]
    return (value is None and not own_name) or (value is False and False in alias.values)


def _value(place: Place, alias: Alias | None, written: Any, moved: list[Moved]) -> Any:
    """The value of a setting as we write it; a change is noted in the log."""
    value = written
    if alias and isinstance(value, str | int):
        value = alias.values.get(value, value)
    setting = place[_client(place) :]
    value = foreign_values.ours(setting, value)
    if kind := KINDS.get(setting):
        value = part_names.spelled(kind, value)
        if isinstance(value, list):
            value = [_renamed(v, place, moved) if isinstance(v, Mapping) else v for v in value]
    elif value != written:
        log.info("%s: %s is read as %s", _dotted(place), written, value)
    return value


def _meant(place: Place, key: Any, leaf: bool) -> tuple[Place, Alias | None]:
    """The place of the setting that a key means, and the alias that the key is, if it is one.

    leaf: the key has a plain value; a mapping is always a section.
    """
    written, home = (*place, key), _client(place)
    section = place[home:]
    if section[:1] == ("models",):
        return _meant_of_model(place, key, leaf)
    if not isinstance(key, str) or place == ("clients",):
        return written, None
    if leaf and written[home:] in SHORT:
        return (*written, SHORT[written[home:]]), None
    if kind := KINDS.get(section):
        return (*place, part_names.plain(kind, key)), None
    plain = key.replace("-", "_")
    alias = _alias(section, plain)
    if alias is None and plain == key:  # nothing to rename; a part need not be imported for it
        return written, None
    known = _known(section)
    if key in known or plain in known:
        return (*place, key if key in known else plain), None
    exact = _dotted((*section, plain)) in ALIASES
    if alias is None or not leaf or (free(Experiment, section) and not exact):
        return written, None
    return (*place[:home], *alias.setting.split(".")), alias


def _meant_of_model(place: Place, key: Any, leaf: bool) -> tuple[Place, Alias | None]:
    """As `_meant`, in `models`: a key means there what it means in `model` and `adapter`."""
    home = _client(place) + 2
    if len(place) < home:  # the key is a model's name
        return (*place, key), None
    section = place[home:] if place[home : home + 1] == ("adapter",) else ("model", *place[home:])
    target, alias = _meant(section, key, leaf)
    return (*place[:home], *(target[1:] if target[0] == "model" else target)), alias


def _alias(section: Place, name: str) -> Alias | None:
    """The alias that a name stands for in a section, unless a setting there has this name."""
    if exact := ALIASES.get(_dotted((*section, name))):
        return exact
    alias = ALIASES.get(name)
    if alias and not _foreign(section):
        prefix = _dotted(section) + "." if section else ""
        alias = alias if alias.setting.startswith(prefix) else None
    return None if alias and _other_adapter(section, alias) else alias


def _client(place: Place) -> int:
    """The number of keys at the start of a place that only name a client: 2 or 0."""
    return 2 if len(place) > 1 and place[0] == "clients" else 0


def _foreign(section: Place) -> bool:
    """True if a section is another tool's or lies in one; false for a mistyped section of ours.

    A section where a part is chosen by name holds the settings of that part.
    """
    for depth, key in enumerate(section):
        known = keys(Experiment, section[:depth])
        if key not in known:
            if section[:depth] in CHOICES:
                return False
            near = difflib.get_close_matches(str(key).lower(), known, cutoff=0.8)
            return bool(known) and not near
    return False


def _other_adapter(section: Place, alias: Alias) -> bool:
    """True if an alias for one kind of adapter stands in the section of another kind.

    Some names, such as r, are settings of LoRA, of other kinds and of PEFT's other methods.
    """
    kinds = {*keys(Experiment, ("adapter",)), *methods()} - {"from", "peft"}
    setting = alias.setting.split(".")
    return setting[0] == "adapter" and any(key in kinds and key not in setting for key in section)


def _known(section: Place) -> list[str]:
    """The keys of a section, or the settings of a part that is named there."""
    kind = KINDS.get(section[:-1])
    if kind is None:
        return keys(Experiment, section)
    if section[-1] not in kind.names():
        return []
    return [setting.name for setting in registry.settings(kind.find(str(section[-1])))]


def _placed(values: Values, item: Moved) -> Values:
    """Put a moved value to its setting; raises SettingError if the setting has another value."""
    if item.off and item.value is None:
        return values
    result = dict(values)
    inner: dict[Any, Any] = result
    *above, last = item.place
    for depth, key in enumerate(above, 1):
        section, wanted = inner.get(key) or {}, item.place[depth]
        if section == wanted:  # a part named without settings
            section = {wanted: {}}
        choice = chooses(item.place[_client(item.place) : depth])
        if not isinstance(section, Mapping) or (choice and section and wanted not in section):
            if item.off:
                return values
            raise _given_twice(item, item.place[:depth])
        inner[key] = dict(section)
        inner = inner[key]
    if last in inner and inner[last] != item.value and not item.off:
        raise _given_twice(item, item.place)
    inner.setdefault(last, item.value)
    return result


def _given_twice(item: Moved, place: Place) -> SettingError:
    return SettingError(
        f"{_dotted(item.written)} means {_dotted(item.place)}, but {_dotted(place)} is given too; "
        "keep one of them.",
        item.place,
    )


def _dotted(place: Place) -> str:
    return ".".join(map(str, place))
