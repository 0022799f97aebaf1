"""What is wrong with a setting, in one sentence, and which settings there are."""

import difflib
from collections.abc import Iterator
from dataclasses import fields, is_dataclass
from typing import Any, get_args, get_origin

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from hanse.errors import UserError
from hanse.journal.yaml_text import Place
from hanse.registry import suggestion

NAME = r"^\w[\w.-]*$"  # of a run, of a client; also that of its folder
VISIBLE = r"\S"
SHOWN = 80  # most characters of a wrong value that a sentence repeats


class SettingError(UserError):
    """A sentence about a setting, and its place; whoever has the file says which line that is."""

    def __init__(self, sentence: str, place: Place = ()) -> None:
        super().__init__(sentence)
        self.place = place


def explain(
    error: ValidationError, model: type, home: Place = (), whole: str = "an experiment"
) -> SettingError:
    """The first of pydantic's errors as one sentence with a way out.

    home: where the model's settings stand: () in an experiment, ("clients", name) in a client's.
    whole: what a file of such settings is.
    """
    first = error.errors()[0]
    place = _place(first)
    there = (*home, *place)
    name = ".".join(map(str, there)) or f"the {whole.partition(' ')[2]}"
    if first["type"] in _UNKNOWN:
        said = _unknown(model, place, home, whole)
    elif first["type"] == "missing":
        said = f"{name} is missing."
    elif first["type"] == "value_error":
        said = f"{'.'.join(map(str, home))}: " if home else ""
        said += str(first["ctx"]["error"])
    else:
        came = repr(first["input"])
        came = came if len(came) <= SHOWN else f"{came[:SHOWN]}…"
        said = f"{name} is {came}; {_expected(error, model, place)}."
    return SettingError(said, there)


def _expected(error: ValidationError, model: type, place: Place) -> str:
    """What may stand at a place, of which an error says that something else came."""
    first = error.errors()[0]
    if first["type"] in _SECTIONS:
        return f"it is a section with the settings {', '.join(keys(model, place))}"
    if words := _PATTERNS.get(first.get("ctx", {}).get("pattern", "")):
        return words
    # A union says once for each of its branches what it would have taken.
    said = dict.fromkeys(e["msg"] for e in error.errors() if _place(e) == place)
    return ", or ".join(text[0].lower() + text[1:] for text in said)


def _unknown(model: type, place: Place, home: Place, whole: str) -> str:
    """That there is no such setting, and which one was probably meant."""
    *section, key = map(str, place)
    known, elsewhere = keys(model, place[:-1]), leaves(model)
    near = "" if key in elsewhere else suggestion(key.lower(), known)
    if not near and (found := difflib.get_close_matches(key, elsewhere, n=1, cutoff=0.75)):
        there = elsewhere[found[0]]
        level = " at the top" if len(there) == 1 else ""
        near = f" (did you mean {'.'.join(map(str, there))!r}{level}?)"
    where = ".".join([*map(str, home), *section]) or whole
    return f"there is no setting {key!r}{near}; {where} has {', '.join(known)}."


_SECTIONS = {"model_type", "model_attributes_type", "dataclass_type"}
_BRANCHES = {"bool", "int", "float", "str", "dict", "list", "function-after"}
_BRANCHES |= {"constrained-int", "constrained-float", "constrained-str"}
# Errors about a key, which is the last item of their location.
_UNKNOWN = {"extra_forbidden", "unexpected_keyword_argument", "invalid_key"}
_KEYED = {*_UNKNOWN, "missing"}
_PATTERNS = {  # in words
    NAME: "it is a name of letters, digits, '_', '.' and '-', and does not begin with the last two",
    VISIBLE: "it must have a letter, or another sign that can be seen",
}


def _place(error: ErrorDetails) -> Place:
    """Where in the file an error is: its location without the branches of unions."""
    *inner, last = error["loc"] or ("",)
    branches = inner if error["type"] in _KEYED else [*inner, last]
    kept = [p for p in branches if not str(p).endswith("]") and p not in _BRANCHES and p != ""]
    return tuple([*kept, last] if error["type"] in _KEYED else kept)


def keys(model: type, place: Place) -> list[str]:
    """The settings there are at a place inside a model."""
    found: Any = model
    for key in place:
        found = _section(_annotations(found).get(str(key)))
    return list(_annotations(found))


def leaves(model: type) -> dict[str, Place]:
    """Each setting's own name and its place, of those whose name only one setting has.

    Of what several kinds of adapters have, LoRA's is meant.
    """
    places: dict[str, list[Place]] = {}
    for place in _leaves(model, ()):
        places.setdefault(str(place[-1]), []).append(place)
    found = {}
    for name, there in places.items():
        if len(there) > 1 and all(place[0] == "adapter" for place in there):
            there = [place for place in there if place[1] == "lora"]
        if len(there) == 1:
            found[name] = there[0]
    return found


def _leaves(model: Any, place: Place) -> Iterator[Place]:
    for name, annotation in _annotations(model).items():
        section = _section(annotation)
        yield from _leaves(section, (*place, name)) if section else [(*place, name)]


def free(model: type, place: Place) -> bool:
    """Whether the keys at a place are the user's own, such as those of data.labels."""
    found: Any = model
    for key in place:
        if _is_mapping(found):
            return True
        annotation = _annotations(found).get(str(key))
        found = _section(annotation) or annotation
    return _is_mapping(found)


def _is_mapping(annotation: Any) -> bool:
    return get_origin(annotation) is dict or any(_is_mapping(a) for a in get_args(annotation))


def _annotations(model: Any) -> dict[str, Any]:
    if isinstance(model, type) and issubclass(model, BaseModel):
        return {f.alias or name: f.annotation for name, f in model.model_fields.items()}
    if is_dataclass(model):
        return {field.name: field.type for field in fields(model)}
    return {}


def _section(annotation: Any) -> Any:
    """The model that an annotation is, or that it is optionally; None for a plain setting."""
    options = [annotation, *get_args(annotation)]
    return next((a for a in options if isinstance(a, type) and _annotations(a)), None)
