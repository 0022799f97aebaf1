"""Find the class that a name stands for: "fedprox" is FedProx in federation/algorithms/fedprox.py.

The folders are the registry. A part from outside the package is written `path/to/file.py:Class`.
Only local files are read, and only those that the user has named by hand are run.
"""

import ast
import difflib
import hashlib
import math
import os
import re
import sys
import traceback
from collections.abc import Callable, Iterable, Mapping
from dataclasses import MISSING, dataclass, fields, is_dataclass
from functools import cache
from inspect import isabstract
from pathlib import Path
from types import ModuleType, NoneType, UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin

from pydantic import PydanticUserError, TypeAdapter, ValidationError

import hanse
from hanse.errors import UserError
from hanse.lazy_imports import imported
from hanse.security import trusted_code


@dataclass(frozen=True)
class ServerText:
    """The text that a server may give a silo for a setting, written as `Annotated[str, ...]`.

    A server cannot change a setting that takes text and has no such annotation: text may name
    files, tokenizers, hosts, or patterns that never finish.

    fits: true for a value that may come from a server. wanted: such values in words.
    """

    fits: Callable[[Any], bool]
    wanted: str


@dataclass(frozen=True)
class Setting:
    """One field of a part: its name, its type in words, and its default ("" if required)."""

    name: str
    type: str
    default: str


def _texts(value: Any) -> list[str]:
    """A text or a list of texts as a list; other values by their `repr`."""
    items = value if isinstance(value, list | tuple) else [value]
    return [item if isinstance(item, str) else repr(item) for item in items]


def plain_names(value: Any) -> bool:
    """True for None, and for names of modules or functions, which are no paths and no patterns."""
    return value is None or all(re.fullmatch(r"[\w.-]{1,200}", text) for text in _texts(value))


def bounded_patterns(value: Any) -> bool:
    """True for regular expressions whose matching takes few steps.

    They repeat no group, have no lookaround and no back-reference, and at most two of their
    characters are repeated or optional. The steps then grow with the cube of a name's length;
    with fifty optional characters they would take years.
    """
    return all(
        len(text) <= 200
        and not re.search(r"\)[*+?{]|\(\?|\\[1-9]", text)
        and len(re.findall(r"(?<!\\)[*+?{]", text)) <= 2
        for text in _texts(value)
    )


COLUMN = ServerText(
    lambda value: isinstance(value, str) and len(value) <= 200, "names of at most 200 characters"
)
NAMES = ServerText(plain_names, "plain names of letters, digits, _, - and dots")
PATTERNS = ServerText(
    bounded_patterns,
    "patterns of at most 200 characters with at most two repetitions and no repeated group",
)


def label(folder: str) -> str:
    """A folder's name in messages, such as "algorithms" for federation/algorithms."""
    return folder.rpartition("/")[2]


def names(folder: str) -> list[str]:
    """The names of the package's parts in one folder, sorted; no part is imported."""
    files = [file for root in hanse.__path__ for file in (Path(root) / folder).glob("*.py")]
    return sorted(file.stem for file in files if _declares_part(file))


def build(folder: str, spec: str | Mapping[str, Any]) -> Any:
    """Build the part that `spec` describes: "name", or {name: {setting: value}}.

    folder: the package's folder of such parts, such as "federation/algorithms".
    Raises UserError for an unknown name or setting, and for a value of a wrong type or range.
    """
    name, settings = split(folder, spec)
    part = find(folder, name)
    known = [field.name for field in fields(part)]
    for key in settings:
        if key not in known:
            allowed = f"its settings are {', '.join(known)}" if known else "it has no settings"
            raise UserError(f"{name} has no setting {key!r}{suggestion(key, known)}; {allowed}.")
    for key, value in settings.items():
        if isinstance(value, float) and not math.isfinite(value):
            raise UserError(f"{name}.{key} is {value}; it must be a finite number.")
    try:
        return TypeAdapter(part).validate_python(_with_none(part, settings))
    except PydanticUserError as error:  # an annotation that means nothing
        raise UserError(f"the settings of {name} cannot be read: {error.message}") from error
    except ValidationError as error:
        first = error.errors()[0]
        if first["type"] == "missing":
            raise UserError(f"{name} needs its setting {first['loc'][0]!r}.") from None
        place = ".".join(str(item) for item in (name, *first["loc"]))
        raise UserError(f"{place} is {first['input']!r:.200}; {_lowered(first['msg'])}.") from None


def split(folder: str, spec: str | Mapping[str, Any]) -> tuple[str, dict[str, Any]]:
    """Split a spec into the part's name and its settings."""
    if isinstance(spec, str):
        return spec, {}
    if len(spec) != 1:
        raise UserError(
            f"one part of {label(folder)} is written as `name` or `name: {{setting: value}}`, "
            f"but there are {len(spec)}: {', '.join(map(str, spec)) or 'none'}."
        )
    [(name, settings)] = spec.items()
    if settings is not None and not isinstance(settings, Mapping):
        raise UserError(f"the settings of {name} are {settings!r:.200}; write {{setting: value}}.")
    return str(name), dict(settings or {})


def check_name(folder: str, name: str) -> None:
    """Raise UserError, with the nearest name, if the package has no part of this name.

    No part is imported, and the name of a file (`path/to/file.py:Class`) is not checked.
    """
    known = names(folder)
    if ":" not in name and name not in known:
        listed = ", ".join(known) or "none yet"
        raise UserError(
            f"there is no {name!r:.80} in {label(folder)}{suggestion(name, known)}; "
            f"there are {listed}, or path/to/file.py:Class for one of your own."
        )


def find(folder: str, name: str) -> type:
    """Import the class that `name` stands for; raises UserError with the nearest name."""
    check_name(folder, name)
    if ":" in name:
        return _outside(name)
    module = imported(f"hanse.{folder.replace('/', '.')}.{name}")
    classes = [value for value in vars(module).values() if isinstance(value, type)]
    return next(
        part
        for part in classes
        if part.__module__ == module.__name__ and _is_part(part.__name__, name)
    )


def name_of(part: Any) -> str:
    """The name by which an experiment chooses a part of the package: its file's name."""
    return type(part).__module__.rpartition(".")[2]


def settings(part: type) -> list[Setting]:
    """List the settings of a part, as its dataclass declares them."""
    result = []
    for field in fields(part):
        default = "" if field.default is MISSING else repr(field.default)
        if field.default_factory is not MISSING:
            default = repr(field.default_factory())
        # A default that depends on another setting has a description (a key of pydantic's, too).
        default = field.metadata.get("description", default)
        result.append(Setting(field.name, _readable(field.type), default))
    return result


def _with_none(part: type, settings: Mapping[str, Any]) -> dict[str, Any]:
    """Settings with None for the word none, where None is allowed and no text is."""
    kinds = {field.name: _readable(field.type).split(" | ") for field in fields(part)}
    left_out = {
        key
        for key, value in settings.items()
        if value == "none" and "None" in kinds[key] and not {"str", "none"} & {*kinds[key]}
    }
    return {key: None if key in left_out else value for key, value in settings.items()}


def _readable(kind: Any) -> str:
    """Write a type for people: a constrained number by its plain type."""
    options = get_args(kind)
    if get_origin(kind) is Annotated:
        return _readable(options[0])
    if get_origin(kind) in (Union, UnionType):
        return " | ".join(map(_readable, options))
    if get_origin(kind) is tuple:
        return f"list of {_readable(options[0])}"
    if get_origin(kind) is dict:
        return "{" + ": ".join(map(_readable, options)) + "}"
    if get_origin(kind) is Literal:
        return " | ".join(map(str, options))
    if get_origin(kind) is not None:
        return str(kind)
    return "None" if kind is NoneType else getattr(kind, "__name__", str(kind))


def suggestion(name: str, known: Iterable[str]) -> str:
    """The words ' (did you mean …?)' if a known name is similar, else an empty text."""
    return suggestions(name, known, most=1)


def suggestions(name: str, known: Iterable[str], most: int = 3) -> str:
    """The same words with up to `most` known names that are similar, the nearest first."""
    near = difflib.get_close_matches(str(name), list(known), n=most, cutoff=0.6)
    return f" (did you mean {' or '.join(map(repr, near))}?)" if near else ""


@cache
def _declares_part(file: Path) -> bool:
    """True if a file declares the class of its name; the file is read, not imported."""
    statements = ast.parse(file.read_bytes()).body
    return any(isinstance(s, ast.ClassDef) and _is_part(s.name, file.stem) for s in statements)


def _is_part(class_name: str, file_name: str) -> bool:
    """True if a class has its file's name, apart from case and underscores."""
    return class_name.lower() == file_name.replace("_", "")


def _lowered(sentence: str) -> str:
    """A sentence of another library, to stand behind a semicolon."""
    return sentence[0].lower() + sentence[1:]


def _empty(file: Path) -> ModuleType:
    """An empty module for the code of a file, under a name that no other module has."""
    module = ModuleType(
        f"hanse_part_{file.stem}_{hashlib.sha256(str(file).encode()).hexdigest()[:8]}"
    )
    module.__file__ = str(file)
    sys.modules[module.__name__] = module
    return module


def _outside(name: str) -> type:
    """Run a local file and take the class from it; `trusted_code` decides which files may run."""
    path, _, wanted = name.partition(":")
    file = (Path.cwd() / path).resolve()
    if not os.path.isfile(file):  # not Path.is_file, which raises for a name that is too long
        raise UserError(f"there is no file {path!r} for the part {name!r} (looked in {file}).")
    module = _empty(file)
    try:
        # Compiled from what was checked; an import might take a file from __pycache__ instead.
        code = compile(trusted_code.source(file), str(file), "exec", dont_inherit=True)
    except (SyntaxError, ValueError) as error:
        raise UserError(f"{file} is not valid Python: {error}.") from None
    try:
        exec(code, vars(module))  # noqa: S102 (the user named the file by hand)
    except (Exception, SystemExit) as error:
        frames = traceback.extract_tb(error.__traceback__)
        lines = [frame.lineno for frame in frames if frame.filename == str(file)]
        place = f"{file}:{lines[-1]}" if lines else file
        raise UserError(f"{place} cannot be used: {type(error).__name__}: {error}.") from error
    part = getattr(module, wanted, None)
    if not isinstance(part, type):
        known = [key for key, value in vars(module).items() if isinstance(value, type)]
        raise UserError(f"{file} has no class {wanted!r}{suggestion(wanted, known)}.")
    if not is_dataclass(part) or isabstract(part):
        missing = ", ".join(sorted(getattr(part, "__abstractmethods__", ())))
        advice = f"define {missing}" if missing else "put @dataclass(frozen=True) above it"
        raise UserError(f"{name} is no complete part; {advice}.")
    return part
