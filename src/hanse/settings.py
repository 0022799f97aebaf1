"""YAML text to a mapping and back, and the changes that a command line makes to it."""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from hanse.errors import UserError

Values = dict[str, Any]
Place = tuple[str | int, ...]  # the keys that lead to a setting

# What PyYAML raises for a text that is not YAML, or for a tag that does not fit its value.
UNREADABLE = (yaml.YAMLError, ValueError, KeyError, AttributeError, TypeError, RecursionError)

LONGEST = 100  # characters of a whole number
DEEPEST = 100  # mappings and lists within each other
SPREAD = 4, 100_000  # what aliases may stand for: times the text's length, and so many signs more

# Where a part is chosen by name: there, another name replaces the choice.
CHOICES: set[Place] = {
    ("algorithm",),
    ("aggregator",),
    ("objective",),
    ("adapter",),
    ("data", "partition"),
}


@dataclass(frozen=True)
class Change:
    """One `key.key=value` word of a command line."""

    place: Place
    value: Any
    word: str


def read(path: Path, what: str = "experiment") -> tuple[Values, str]:
    """The mapping in a YAML file, and its text; raises UserError with the line that is wrong.

    what: what the file describes.
    """
    try:
        text = path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is not UTF-8 text"
        raise UserError(f"the {what} {path} cannot be read: {reason}.") from None
    return parse(text, str(path)), text


def parse(text: str, place: str) -> Values:
    """The mapping that a YAML text is; raises UserError with the line that is wrong.

    place: what the text is, or where it is from.
    """
    try:
        values = _loaded(text)
    except UNREADABLE as error:
        mark = getattr(error, "problem_mark", None)
        line = f":{mark.line + 1}" if mark else ""
        problem = getattr(error, "problem", None) or str(error).partition("\n")[0]
        raise UserError(f"{place}{line} is not valid YAML: {problem}.") from None
    if not isinstance(values, dict):
        raise UserError(f"{place} holds no settings; write `key: value` lines.")
    return values


def line(text: str, place: Place, named: Callable[..., Place] | None = None) -> int | None:
    """The line of a YAML text on which a setting stands, or the nearest one.

    named: the place that is meant by a key at a place, and whether its value is a plain one; by
        default the key below that place.
    """
    found: dict[Place, int] = {}
    _find(yaml.compose(text), (), named or _as_written, found)
    place = tuple(map(str, place))
    above = [place[:length] for length in range(len(place), 0, -1)]
    below = [there for there in found if place and there[: len(place)] == place]
    return next((found[there] for there in above + below if there in found), None)


def _find(node: Any, place: Place, named: Callable[..., Place], found: dict[Place, int]) -> None:
    """Note the line of every key below a node."""
    if isinstance(node, yaml.MappingNode):
        for key, value in node.value:
            there = named(place, key.value, not isinstance(value, yaml.MappingNode))
            found.setdefault(there, key.start_mark.line + 1)
            _find(value, there, named, found)


def _as_written(place: Place, key: Any, leaf: bool) -> Place:
    return (*place, key)


class _Loader(yaml.SafeLoader):
    """YAML's safe loader, which also refuses a key that is given twice, and what is nested deep."""

    depth = 0

    def compose_node(self, parent: yaml.Node | None, index: Any) -> yaml.Node | None:
        self.depth += 1
        if self.depth > DEEPEST:  # its time grows with the square of the depth
            problem = f"it is nested more than {DEEPEST} deep"
            raise yaml.composer.ComposerError(None, None, problem, self.get_mark())
        node: yaml.Node | None = super().compose_node(parent, index)
        self.depth -= 1
        return node

    def construct_yaml_int(self, node: yaml.ScalarNode) -> int:
        if len(node.value) > LONGEST:  # Python could not even write it in a sentence
            problem = f"a whole number has more than {LONGEST} characters"
            raise yaml.constructor.ConstructorError(None, None, problem, node.start_mark)
        return int(super().construct_yaml_int(node))

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        seen = set()
        for key, _ in node.value:
            if isinstance(key, yaml.ScalarNode) and key.value in seen and key.value != "<<":
                problem = f"the key {key.value!r} is given twice"
                raise yaml.constructor.ConstructorError(None, None, problem, key.start_mark)
            seen.add(key.value if isinstance(key, yaml.ScalarNode) else id(key))
        return super().construct_mapping(node, deep)


_Loader.add_constructor("tag:yaml.org,2002:int", _Loader.construct_yaml_int)


def _loaded(text: str) -> Any:
    """What a YAML text says, if its aliases stand for no more than a person would write out."""
    loader = _Loader(text)
    try:
        node = loader.get_single_node()
        if node is None:
            return None
        times, more = SPREAD
        if _size(node, {}) > (most := times * len(text) + more):
            problem = f"its aliases (*name) stand for more than {most:,} signs; write them out"
            raise yaml.constructor.ConstructorError(None, None, problem, node.start_mark)
        return loader.construct_document(node)
    finally:
        loader.dispose()


def _size(node: yaml.Node, sizes: dict[int, int | None]) -> int:
    """The length of what a node stands for, every alias written out.

    sizes: of the nodes seen so far; None while a node is being measured.
    """
    if id(node) in sizes:
        found = sizes[id(node)]
        if found is None:
            problem = "an alias contains itself"
            raise yaml.constructor.ConstructorError(None, None, problem, node.start_mark)
        return found
    sizes[id(node)] = None
    below: list[yaml.Node] = []
    if isinstance(node, yaml.MappingNode):
        below = [inner for pair in node.value for inner in pair]
    elif isinstance(node, yaml.SequenceNode):
        below = node.value
    own = len(node.value) if isinstance(node, yaml.ScalarNode) else 0
    sizes[id(node)] = size = 1 + own + sum(_size(inner, sizes) for inner in below)
    return size


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


def dump(values: Values) -> str:
    """The mapping as YAML, in its own order."""
    return yaml.safe_dump(values, sort_keys=False, allow_unicode=True, width=100)


def _with(values: Any, keys: Place, value: Any, place: Place) -> Values:
    """`values` with one value set deep inside; what stands in the way is replaced."""
    result = dict(values) if isinstance(values, Mapping) else {}
    key, rest = keys[0], keys[1:]
    if place in CHOICES and key not in result:
        result = {}
    result[str(key)] = _with(result.get(str(key)), rest, value, (*place, key)) if rest else value
    return result
