"""Explain a wrong setting in one sentence, and list the settings that there are."""

import difflib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, fields, is_dataclass
from functools import lru_cache
from typing import Any, get_args, get_origin

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from hanse.errors import UserError
from hanse.experiment.unused_keys import CODE, unused
from hanse.journal.yaml_text import Place
from hanse.registry import suggestion

NAME = r"^\w[\w.-]*$"  # of a run, of a client; also that of its folder
VISIBLE = r"\S"
HASH = r"^[0-9a-f]{64}$"
SHOWN = 80  # most characters of a wrong value, or of an unknown key, in a sentence
LISTED = 60  # most unknown keys in a sentence
SEARCHES = 2 * LISTED  # most searches for the settings that were probably meant


class SettingError(UserError):
    """A sentence about a setting, and the setting's place, from which the file's line follows."""

    def __init__(self, sentence: str, place: Place = ()) -> None:
        super().__init__(sentence)
        self.place = place


@dataclass(frozen=True)
class UnknownKey:
    """A key that is no setting. hint: the setting that was probably meant, in words, or "".

    reason: why the key means nothing here, if it is one of another tool's.
    """

    place: Place
    hint: str
    reason: str | None

    def shown(self, line: int | None) -> str:
        """The key's name with its line and its hint."""
        notes = [f"line {line}"] * bool(line) + [self.hint] * bool(self.hint)
        name = ".".join(map(str, self.place))
        return f"{name!r:.{SHOWN}} ({', '.join(notes)})" if notes else f"{name!r:.{SHOWN}}"


class UnknownKeysError(SettingError):
    """The sentence about all keys that are no settings."""

    def __init__(self, unknown: Sequence[UnknownKey]) -> None:
        self.unknown = unknown
        super().__init__(self.sentence(lambda place: None), unknown[0].place)

    def sentence(self, line: Callable[[Place], int | None], file: str = "") -> str:
        """The sentence with each key's line in a file; the key may be under any of its names."""
        lines = {key: line(key.place) for key in self.unknown}
        ordered = sorted(self.unknown, key=lambda key: lines[key] or 0)
        wrong = [key.shown(lines[key]) for key in ordered if not key.reason]
        foreign = [key.shown(lines[key]) for key in ordered if key.reason]
        parts = [f"there are no settings {_listed(wrong)}"] if wrong else []
        if foreign:
            parts.append(
                f"delete what other tools need and hanse does not, {_listed(foreign)}"
                + (f"; {CODE}" if any(key.reason == CODE for key in self.unknown) else "")
            )
        else:
            parts.append("correct or delete them")
        if foreign and file:
            parts.append(f"`hanse convert {file}` writes an experiment without them")
        return f"{'; '.join(parts)}."


def _listed(names: Sequence[str]) -> str:
    """Names with commas, as many as a message holds."""
    more = f" and {len(names) - LISTED} more" if len(names) > LISTED else ""
    return ", ".join(names[:LISTED]) + more


def explain(
    error: ValidationError, model: type, home: Place = (), whole: str = "an experiment"
) -> SettingError:
    """Turn the first of pydantic's errors into one sentence that says what to do.

    Unknown keys come first, all in one sentence.

    home: the place of the model's settings: () in an experiment, ("clients", name) for a client's.
    whole: a file of such settings in words, such as "an experiment".
    """
    unknown = list(_unknown_keys(error, model, home))
    if len(unknown) > 1 or any(key.reason for key in unknown):
        return UnknownKeysError(unknown)
    first = next((e for e in error.errors() if e["type"] in _UNKNOWN), error.errors()[0])
    place = _place(first)
    full_place = (*home, *place)
    name = ".".join(map(str, full_place)) or f"the {whole.partition(' ')[2]}"
    if first["type"] in _UNKNOWN:
        sentence = _unknown(model, place, home, whole)
    elif first["type"] == "missing":
        sentence = f"{name} is missing; write it."
    elif first["type"] == "value_error":
        prefix = f"{'.'.join(map(str, home))}: " if home else ""
        sentence = prefix + str(first["ctx"]["error"])
    else:
        value = repr(first["input"])
        value = value if len(value) <= SHOWN else f"{value[:SHOWN]}…"
        sentence = f"{name} is {value}; {_expected(error, model, place)}."
    return SettingError(sentence, full_place)


def _unknown_keys(error: ValidationError, model: type, home: Place) -> Iterator[UnknownKey]:
    """The unknown keys among pydantic's errors; of another tool's section, the keys in it.

    Only the first ones have hints, since a search for each of thousands takes long.
    """
    searches = iter(range(SEARCHES))

    def hint(place: Place) -> str:
        return "" if next(searches, None) is None else _hint(model, place)

    for item in error.errors():
        if item["type"] in _UNKNOWN:
            for place, value in _foreign_leaves(_place(item), item["input"], hint):
                reason = unused(place[-1], value)
                yield UnknownKey((*home, *place), "" if reason else hint(place), reason)


def _foreign_leaves(
    place: Place, value: Any, hint: Callable[[Place], str]
) -> Iterator[tuple[Place, Any]]:
    """The keys that a section of another tool has, or the key itself.

    hint: the words about the setting of ours that a key probably is, or "".
    """
    if isinstance(value, Mapping) and value and not hint(place):
        for key, inner in value.items():
            yield from _foreign_leaves((*place, key), inner, hint)
    else:
        yield place, value


def _hint(model: type, place: Place) -> str:
    """The words "did you mean …?" about the setting that an unknown key probably is, or ""."""
    *_, key = map(str, place)
    known, elsewhere = keys(model, place[:-1]), leaves(model)
    near = "" if key in elsewhere else suggestion(key.lower(), known)
    if not near and (matches := difflib.get_close_matches(key, elsewhere, n=1, cutoff=0.75)):
        other = elsewhere[matches[0]]
        level = " at the top" if len(other) == 1 else ""
        return f"did you mean {'.'.join(map(str, other))!r}{level}?"
    return near.strip(" ()")


def _expected(error: ValidationError, model: type, place: Place) -> str:
    """The values that are allowed at the place of an error, in words."""
    first = error.errors()[0]
    if first["type"] in _SECTIONS:
        return f"it is a section with the settings {', '.join(keys(model, place))}"
    if words := _PATTERNS.get(first.get("ctx", {}).get("pattern", "")):
        return words
    # A union has one error for each of its branches.
    messages = dict.fromkeys(_message(e) for e in error.errors() if _place(e) == place)
    return ", or ".join(text[0].lower() + text[1:] for text in messages)


def _message(error: ErrorDetails) -> str:
    """The message of one error; a list is called a list, whatever type of Python holds it."""
    if error["type"] == "too_short":
        return f"it must have at least {error['ctx']['min_length']} item"
    is_list = error["type"] in ("list_type", "tuple_type")
    return "it must be a list, such as [a, b]" if is_list else error["msg"]


def _unknown(model: type, place: Place, home: Place, whole: str) -> str:
    """The sentence about an unknown setting, with the setting that was probably meant."""
    *section, key = map(str, place)
    known, hint = keys(model, place[:-1]), _hint(model, place)
    near = f" ({hint})" if hint else ""
    owner = ".".join([*map(str, home), *section]) or whole
    return f"there is no setting {key!r:.80}{near}; {owner} has {', '.join(known)}."


_SECTIONS = {"model_type", "model_attributes_type", "dataclass_type"}
_BRANCHES = {"bool", "int", "float", "str", "dict", "list", "function-after"}
_BRANCHES |= {"constrained-int", "constrained-float", "constrained-str"}
# Errors about a key; it is the last item of their location.
_UNKNOWN = {"extra_forbidden", "unexpected_keyword_argument", "invalid_key"}
_KEYED = {*_UNKNOWN, "missing"}
_PATTERNS = {  # patterns in words
    NAME: "it is a name of letters, digits, '_', '.' and '-', and begins with none of the last two",
    HASH: "it is a SHA-256 of 64 characters from 0 to 9 and a to f",
    VISIBLE: "it must have a letter or another visible character",
}


def _place(error: ErrorDetails) -> Place:
    """The place of an error in the file: its location without the branches of unions."""
    *inner, last = error["loc"] or ("",)
    branches = inner if error["type"] in _KEYED else [*inner, last]
    place = [p for p in branches if not str(p).endswith("]") and p not in _BRANCHES and p != ""]
    return tuple([*place, last] if error["type"] in _KEYED else place)


def keys(model: type, place: Place) -> list[str]:
    """The names of the settings at a place inside a model."""
    section: Any = model
    for key in place:
        section = _inside(section, str(key))
    return list(_annotations(section))


@lru_cache
def leaves(model: type) -> dict[str, Place]:
    """The places of all settings whose name is unique, by that name.

    A name that several kinds of adapters share stands for LoRA's setting, and one that a section
    and a section in it share for the outer one's.
    """
    by_name: dict[str, list[Place]] = {}
    for place in _leaves(model, ()):
        by_name.setdefault(str(place[-1]), []).append(place)
    unique = {}
    for name, places in by_name.items():
        if len(places) > 1 and all(place[0] == "adapter" for place in places):
            places = [place for place in places if place[1] == "lora"]
        outer = min(map(len, places), default=0)
        places = [place for place in places if len(place) == outer]
        if len(places) == 1:
            unique[name] = places[0]
    return unique


def _leaves(model: Any, place: Place) -> Iterator[Place]:
    for name, annotation in _annotations(model).items():
        section = None if _is_mapping(annotation) else _section(annotation)
        yield from _leaves(section, (*place, name)) if section else [(*place, name)]


def free(model: type, place: Place) -> bool:
    """True if the keys at a place are chosen by the user, such as those of data.labels."""
    section: Any = model
    for key in place:
        if _is_mapping(section) and _section(section) is None:
            return True
        section = _inside(section, str(key))
    return _is_mapping(section)


def _inside(section: Any, key: str) -> Any:
    """The section, or the annotation of a plain setting, under a key of a section.

    A mapping of sections, whose keys the user chooses, has the same section under every key.
    """
    if _is_mapping(section):
        return _section(section)
    annotation = _annotations(section).get(key)
    return annotation if _is_mapping(annotation) else _section(annotation) or annotation


def _is_mapping(annotation: Any) -> bool:
    return get_origin(annotation) is dict or any(_is_mapping(a) for a in get_args(annotation))


def _annotations(model: Any) -> dict[str, Any]:
    if isinstance(model, type) and issubclass(model, BaseModel):
        return {f.alias or name: f.annotation for name, f in model.model_fields.items()}
    if is_dataclass(model):
        return {field.name: field.type for field in fields(model)}
    return {}


def _section(annotation: Any) -> Any:
    """The model in an annotation, such as `Model | None`; None for a plain setting."""
    if isinstance(annotation, type) and _annotations(annotation):
        return annotation
    return next((found for a in get_args(annotation) if (found := _section(a))), None)
