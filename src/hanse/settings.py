"""YAML text to a mapping and back, with overrides, and errors that name file, line and remedy."""

import json
from collections.abc import Iterable, Mapping
from dataclasses import fields, is_dataclass
from pathlib import Path
from typing import Any, get_args

import yaml
from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from hanse.errors import UserError
from hanse.parts import suggestion

Values = dict[str, Any]
Place = tuple[str | int, ...]

# What PyYAML raises for a text that is not YAML, or for a tag that does not fit its value.
UNREADABLE = (yaml.YAMLError, ValueError, KeyError, AttributeError, TypeError, RecursionError)


def read(path: Path) -> tuple[Values, str]:
    """The mapping in a YAML file, and its text; raises UserError with the line that is wrong."""
    try:
        text = path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is not UTF-8 text"
        raise UserError(f"the experiment {path} cannot be read: {reason}.") from None
    try:
        values = yaml.load(text, Loader=_Loader)  # noqa: S506 (a safe loader)
        json.dumps(values, default=str)  # an alias may contain itself; JSON may not
    except UNREADABLE as error:
        mark = getattr(error, "problem_mark", None)
        line = f":{mark.line + 1}" if mark else ""
        problem = getattr(error, "problem", None) or str(error).partition("\n")[0]
        raise UserError(f"{path}{line} is not valid YAML: {problem}.") from None
    if not isinstance(values, dict):
        raise UserError(f"{path} holds no settings; write `key: value` lines.")
    return values, text


class _Loader(yaml.SafeLoader):
    """YAML's safe loader, which also refuses a key that is given twice."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        seen = set()
        for key, _ in node.value:
            if isinstance(key, yaml.ScalarNode) and key.value in seen and key.value != "<<":
                problem = f"the key {key.value!r} is given twice"
                raise yaml.constructor.ConstructorError(None, None, problem, key.start_mark)
            seen.add(key.value if isinstance(key, yaml.ScalarNode) else id(key))
        return super().construct_mapping(node, deep)


def override(values: Values, words: Iterable[str]) -> Values:
    """The values with `key.key=value` words applied; a value is read as YAML.

    Where a part is chosen ("algorithm"), a key that it does not have chooses another part:
    `algorithm.fedprox.mu=0.1` turns FedAvg into FedProx.
    """
    for word in words:
        path, equals, text = word.partition("=")
        keys = path.split(".")
        if not equals or not all(keys):
            raise UserError(f"{word!r} is no override; write key=value, such as rounds=5.")
        try:
            value = yaml.safe_load(text)
        except UNREADABLE:
            raise UserError(f"the value in {word!r} is not valid YAML.") from None
        values = _with(values, keys, value, ())
    return values


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


# Where a part is chosen by name: there, another name replaces the choice.
CHOICES: set[Place] = {
    ("algorithm",),
    ("aggregator",),
    ("objective",),
    ("adapter",),
    ("data", "partition"),
}


def dump(values: Values) -> str:
    """The mapping as YAML, in its own order."""
    return yaml.safe_dump(values, sort_keys=False, allow_unicode=True, width=100)


def explain(error: ValidationError, model: type, text: str, source: str) -> UserError:
    """The first of pydantic's errors as one sentence with file, line and a way out."""
    first = error.errors()[0]
    place = _place(first)
    name = ".".join(map(str, place))
    where = f"{source}{_line(text, place)}"
    if first["type"] in _KEYED[:2]:
        known = keys(model, place[:-1])
        home = ".".join(map(str, place[:-1])) or "an experiment"
        return UserError(
            f"{where}: there is no setting {str(place[-1])!r}{suggestion(str(place[-1]), known)}; "
            f"{home} has {', '.join(known)}."
        )
    if first["type"] == "missing":
        return UserError(f"{where}: {name} is missing.")
    if first["type"] == "value_error":
        return UserError(f"{where}: {first['ctx']['error']}")
    # A union says once for each of its branches what it would have taken.
    said = dict.fromkeys(e["msg"] for e in error.errors() if _place(e) == place)
    message = ", or ".join(text[0].lower() + text[1:] for text in said)
    return UserError(f"{where}: {name or 'the experiment'} is {first['input']!r}; {message}.")


_BRANCHES = {"bool", "int", "float", "str", "dict", "list", "function-after"}
_BRANCHES |= {"constrained-int", "constrained-float", "constrained-str"}
_KEYED = ("extra_forbidden", "unexpected_keyword_argument", "missing")  # their last item is a key


def _place(error: ErrorDetails) -> Place:
    """Where in the file an error is: its location without the branches of unions."""
    *inner, last = error["loc"] or ("",)
    branches = inner if error["type"] in _KEYED else [*inner, last]
    kept = [p for p in branches if not str(p).endswith("]") and p not in _BRANCHES]
    return tuple([*kept, last] if error["type"] in _KEYED else kept)


def keys(model: type, place: Place) -> list[str]:
    """The settings there are at a place inside a model."""
    for key in place:
        model = _inner(_annotations(model).get(str(key)))
    return list(_annotations(model))


def _annotations(model: Any) -> dict[str, Any]:
    if isinstance(model, type) and issubclass(model, BaseModel):
        return {f.alias or name: f.annotation for name, f in model.model_fields.items()}
    if is_dataclass(model):
        return {field.name: field.type for field in fields(model)}
    return {}


def _inner(annotation: Any) -> Any:
    """The model inside an optional annotation."""
    options = [a for a in get_args(annotation) if isinstance(a, type)]
    return next((a for a in options if _annotations(a)), annotation)


def _line(text: str, place: Place) -> str:
    """ ":12" for the line of a key in YAML text; nothing if it is not there (an override)."""
    try:
        node = yaml.compose(text)
    except yaml.YAMLError:
        return ""
    line = None
    for key in place:
        if not isinstance(node, yaml.MappingNode):
            break
        pair = next((p for p in node.value if p[0].value == str(key)), None)
        if pair is None:
            break
        line, node = pair[0].start_mark.line + 1, pair[1]
    return f":{line}" if line else ""


def _with(values: Any, keys: list[str], value: Any, place: Place) -> Values:
    """`values` with one value set deep inside; what stands in the way is replaced."""
    result = dict(values) if isinstance(values, Mapping) else {}
    key, rest = keys[0], keys[1:]
    if place in CHOICES and key not in result:
        result = {}
    result[key] = _with(result.get(key), rest, value, (*place, key)) if rest else value
    return result
