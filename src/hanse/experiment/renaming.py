"""Settings as people write them, under the names that they have here.

Other tools' names are read as ours and dashes as underscores, each with a note in the log.
"""

import difflib
import logging
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from hanse import registry
from hanse.experiment.aliases import ALIASES, Alias
from hanse.experiment.overrides import CHOICES, Change
from hanse.experiment.part_kinds import NAMED, PartKind
from hanse.experiment.schema import Experiment
from hanse.experiment.validation import SettingError, free, keys
from hanse.journal import yaml_text
from hanse.journal.yaml_text import Place, Values
from hanse.learners.adapters.peft import methods

log = logging.getLogger(__name__)

KINDS: dict[Place, PartKind] = {kind.place: kind for kind in NAMED}


@dataclass(frozen=True)
class Moved:
    """A value that stands elsewhere than its setting."""

    came: Place
    place: Place
    value: Any


def settled(values: Values) -> Values:
    """The values of a file under our names; what had another name is noted in the log.

    Raises SettingError for a setting that is given by two of its names.
    """
    moved: list[Moved] = []
    result = _renamed(values, (), moved)
    for item in moved:
        result = _placed(result, item)
    return result


def changed(change: Change) -> list[Change]:
    """A command line's change under our names; a section of another tool's may become several."""
    nested = change.value
    for key in reversed(change.place):
        nested = {key: nested}
    moved: list[Moved] = []
    rest: Any = _renamed(nested, (), moved)
    result = [replace(change, place=item.place, value=item.value) for item in moved]
    if rest:
        place: Place = ()
        for _ in change.place:
            [(key, rest)] = rest.items()
            place = (*place, key)
        result.append(replace(change, place=place, value=rest))
    return result


def line(text: str, place: Place) -> int | None:
    """The line of a file's text on which a setting stands, by whatever name; the nearest one."""
    return yaml_text.line(text, place, lambda *key: _meant(*key)[0])


def _renamed(values: Mapping[Any, Any], place: Place, moved: list[Moved]) -> Values:
    """The values at a place under our names, without those that belong elsewhere: `moved`."""
    result: dict[Any, Any] = {}
    for key, value in values.items():
        came, leaf = (*place, key), not isinstance(value, Mapping)
        there, alias = _meant(place, key, leaf)
        if there != came:
            log.info("%s is read as %s", _dotted(came), _dotted(there))
        if alias and isinstance(value, str | int):
            value = alias.values.get(value, value)
        value = _part_named(there, value, moved)
        if there[:-1] != place:
            moved.append(Moved(came, there, value))
            continue
        if there[-1] in result:
            raise SettingError(f"{_dotted(there)} is given twice, once as {key}; keep one.", there)
        below = value if leaf else _renamed(value, there, moved)
        if below or not value:  # else it was another tool's section, of which all is moved
            result[there[-1]] = below
    return result


def _part_named(place: Place, value: Any, moved: list[Moved]) -> Any:
    """What names a part, or a list of parts, without dashes."""
    kind = KINDS.get(place[_client(place) :])
    if kind and isinstance(value, str) and (plain := value.replace("-", "_")) != value:
        return plain if plain in kind.names() else value
    if kind and isinstance(value, list):
        return [
            _renamed(item, place, moved)
            if isinstance(item, Mapping)
            else _part_named(place, item, moved)
            for item in value
        ]
    return value


def _meant(place: Place, key: Any, leaf: bool) -> tuple[Place, Alias | None]:
    """Where the setting stands that a key at a place means, and by which alias if by one.

    leaf: the key has a plain value; a mapping is always a section.
    """
    came, home = (*place, key), _client(place)
    section = place[home:]
    if not isinstance(key, str) or place == ("clients",):
        return came, None
    plain = key.replace("-", "_")
    alias = _alias(section, plain)
    if alias is None and plain == key:  # no name but its own: what has it need not be imported
        return came, None
    known = _known(section)
    if key in known or plain in known:
        return (*place, key if key in known else plain), None
    if alias is None or not leaf or free(Experiment, section):
        return came, None
    return (*place[:home], *alias.setting.split(".")), alias


def _alias(section: Place, name: str) -> Alias | None:
    """The alias that a name in a section may be, if it is no setting's own name there."""
    if exact := ALIASES.get(_dotted((*section, name))):
        return exact
    alias = ALIASES.get(name)
    if alias and not _foreign(section):
        leads = _dotted(section) + "." if section else ""
        alias = alias if alias.setting.startswith(leads) else None
    return None if alias and _other_adapter(section, alias) else alias


def _client(place: Place) -> int:
    """How many keys of a place only say which client's settings these are."""
    return 2 if len(place) > 1 and place[0] == "clients" else 0


def _foreign(section: Place) -> bool:
    """Whether a section is another tool's, or lies in one; a mistyped one of ours is neither.

    Where a part is chosen, a section is the settings of the part that its name chooses.
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
    """Whether an alias means a setting of one kind of adapter, but stands in a section of another.

    Names of LoRA's settings, such as r, are also those of other kinds and of PEFT's other methods.
    """
    kinds = {*keys(Experiment, ("adapter",)), *methods()} - {"from", "peft"}
    meant = alias.setting.split(".")
    return meant[0] == "adapter" and any(key in kinds and key not in meant for key in section)


def _known(section: Place) -> list[str]:
    """The settings in a section; the parts, or the settings of a part, where parts are named."""
    if section in KINDS:
        return KINDS[section].names()
    kind = KINDS.get(section[:-1])
    if kind is None:
        return keys(Experiment, section)
    if section[-1] not in kind.names():
        return []
    return [setting.name for setting in registry.settings(kind.find(str(section[-1])))]


def _placed(values: Values, item: Moved) -> Values:
    """The values with a moved one where its setting stands, if nothing else stands there."""
    result = dict(values)
    inner: dict[Any, Any] = result
    *above, last = item.place
    for depth, key in enumerate(above, 1):
        below, wanted = inner.get(key) or {}, item.place[depth]
        if below == wanted:  # a part named without settings
            below = {wanted: {}}
        choice = item.place[_client(item.place) : depth] in CHOICES
        if not isinstance(below, Mapping) or (choice and below and wanted not in below):
            raise _both(item, item.place[:depth])
        inner[key] = dict(below)
        inner = inner[key]
    if last in inner:
        raise _both(item, item.place)
    inner[last] = item.value
    return result


def _both(item: Moved, place: Place) -> SettingError:
    return SettingError(
        f"{_dotted(item.came)} means {_dotted(item.place)}, but {_dotted(place)} is given too; "
        "keep one of them.",
        item.place,
    )


def _dotted(place: Place) -> str:
    return ".".join(map(str, place))
