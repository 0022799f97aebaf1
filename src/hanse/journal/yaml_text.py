"""YAML text to a mapping and back, within bounds of size and depth."""

from collections.abc import Callable, Mapping
from functools import lru_cache
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
SPREAD = 4, 100_000  # bound of expanded aliases: so many times the text, and so many signs more


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

    place: the name of the text in error messages.
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

    named: a function of (place, key, whether the value is plain) that returns the key's place; by
        default the key below the place.
    """
    lines = _lines(text, named or _as_written)
    place = tuple(map(str, place))
    above = [place[:length] for length in range(len(place), 0, -1)]
    below = [key for key in lines if place and key[: len(place)] == place]
    return next((lines[key] for key in above + below if key in lines), None)


@lru_cache(maxsize=8)
def _lines(text: str, named: Callable[..., Place]) -> Mapping[Place, int]:
    """The line of every setting in a YAML text; a sentence may ask for hundreds of them."""
    lines: dict[Place, int] = {}
    _find(yaml.compose(text), (), named, lines)
    return lines


def _find(node: Any, place: Place, named: Callable[..., Place], lines: dict[Place, int]) -> None:
    """Note the line of every key below a node."""
    if isinstance(node, yaml.MappingNode):
        for key, value in node.value:
            inner = named(place, key.value, not isinstance(value, yaml.MappingNode))
            lines.setdefault(inner, key.start_mark.line + 1)
            _find(value, inner, named, lines)


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


def _loaded(text: str) -> Any:
    """The value of a YAML text; raises an error if its aliases expand to too much."""
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
    """The length of a node with every alias written out.

    sizes: of the nodes seen so far; None while a node is being measured.
    """
    if id(node) in sizes:
        known = sizes[id(node)]
        if known is None:
            problem = "an alias contains itself"
            raise yaml.constructor.ConstructorError(None, None, problem, node.start_mark)
        return known
    sizes[id(node)] = None
    below: list[yaml.Node] = []
    if isinstance(node, yaml.MappingNode):
        below = [inner for pair in node.value for inner in pair]
    elif isinstance(node, yaml.SequenceNode):
        below = node.value
    own = len(node.value) if isinstance(node, yaml.ScalarNode) else 0
    sizes[id(node)] = size = 1 + own + sum(_size(inner, sizes) for inner in below)
    return size


def dump(values: Values) -> str:
    """The mapping as YAML, in its own order."""
    return yaml.safe_dump(values, sort_keys=False, allow_unicode=True, width=100)
