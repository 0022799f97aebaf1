"""From a name to a part: "fedprox" is the class FedProx in federation/algorithms/fedprox.py.

The folders are the registry. A part from outside the package is written `path/to/file.py:Class`;
only local files are read, and only those that the user has named by hand are run.
"""

import ast
import difflib
import hashlib
import importlib
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
from hanse.security import trusted_code


@dataclass(frozen=True)
class ServerText:
    """Marks a setting that takes text with the text that a server may give a silo for it.

    Written as `Annotated[str, mark]`. A setting that takes text and has no mark cannot be set by a
    server at all: text may name files, tokenizers, hosts, or patterns that never end.

    fits: tells whether a value may come from a server. wanted: such values in words.
    """

    fits: Callable[[Any], bool]
    wanted: str


@dataclass(frozen=True)
class Setting:
    """One field of a part: its name, its type as written, and its default ("" if required)."""

    name: str
    type: str
    default: str


def _texts(value: Any) -> list[str]:
    """One text or a list of them as a list; values of another kind as Python writes them."""
    listed = value if isinstance(value, list | tuple) else [value]
    return [item if isinstance(item, str) else repr(item) for item in listed]


def plain_names(value: Any) -> bool:
    """Whether a value is nothing, or names of modules or functions: no path, no pattern."""
    return value is None or all(re.fullmatch(r"[\w.-]{1,200}", text) for text in _texts(value))


def bounded_patterns(value: Any) -> bool:
    """Whether a value is regular expressions that are matched in few steps.

    No group is repeated or looked around, nothing is referred back to, and at most two
    characters of an expression are repeated or optional: so the steps grow with the cube of a
    name's length. Fifty optional ones would take years.
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
    """The name of a folder of parts as users see it: "algorithms" for federation/algorithms."""
    return folder.rpartition("/")[2]


def names(folder: str) -> list[str]:
    """The names of the package's parts in one folder, sorted."""
    files = [file for root in hanse.__path__ for file in (Path(root) / folder).glob("*.py")]
    return sorted(file.stem for file in files if _declares_part(file))


def build(folder: str, spec: str | Mapping[str, Any]) -> Any:
    """The part that `spec` describes: "name", or {name: {setting: value}}.

    folder: where the package keeps such parts, such as "federation/algorithms".
    Raises UserError for an unknown name or setting, and for a value of a wrong type or range.
    """
    name, settings = split(folder, spec)
    found = find(folder, name)
    known = [field.name for field in fields(found)]
    for key in settings:
        if key not in known:
            allowed = f"its settings are {', '.join(known)}" if known else "it has no settings"
            raise UserError(f"{name} has no setting {key!r}{suggestion(key, known)}; {allowed}.")
    for key, value in settings.items():
        if isinstance(value, float) and not math.isfinite(value):
            raise UserError(f"{name}.{key} came as {value}: it must be finite.")
    try:
        return TypeAdapter(found).validate_python(dict(settings))
    except PydanticUserError as error:  # an annotation that means nothing
        raise UserError(f"the settings of {name} cannot be read: {error.message}") from error
    except ValidationError as error:
        first = error.errors()[0]
        if first["type"] == "missing":
            raise UserError(f"{name} needs its setting {first['loc'][0]!r}.") from None
        place = ".".join(str(item) for item in (name, *first["loc"]))
        raise UserError(
            f"{place} came as {first['input']!r:.200}: {first['msg'].lower()}."
        ) from None


def split(folder: str, spec: str | Mapping[str, Any]) -> tuple[str, dict[str, Any]]:
    """The name and the settings in a spec."""
    if isinstance(spec, str):
        return spec, {}
    if len(spec) != 1:
        raise UserError(
            f"one part of {label(folder)} is named as `name` or `name: {{setting: value}}`, "
            f"but {len(spec)} came: {', '.join(map(str, spec)) or 'nothing'}."
        )
    [(name, settings)] = spec.items()
    if settings is not None and not isinstance(settings, Mapping):
        raise UserError(
            f"the settings of {name} came as {settings!r:.200}; write {{setting: value}}."
        )
    return str(name), dict(settings or {})


def check_name(folder: str, name: str) -> None:
    """Raise UserError, with the nearest names, for a name that no part of the package has.

    No part is imported; a part from outside the package (`path/to/file.py:Class`) is not looked at.
    """
    known = names(folder)
    if ":" not in name and name not in known:
        raise UserError(
            f"there is no {name!r:.80} in {label(folder)}{suggestion(name, known)}; "
            f"there are {', '.join(known)}, or path/to/file.py:Class for one of your own."
        )


def find(folder: str, name: str) -> type:
    """The class that `name` stands for; raises UserError with the nearest names."""
    check_name(folder, name)
    if ":" in name:
        return _outside(name)
    module = importlib.import_module(f"hanse.{folder.replace('/', '.')}.{name}")
    classes = [value for value in vars(module).values() if isinstance(value, type)]
    return next(
        part
        for part in classes
        if part.__module__ == module.__name__ and _is_part(part.__name__, name)
    )


def name_of(part: Any) -> str:
    """The name by which an experiment chooses a part of the package: that of its file."""
    return type(part).__module__.rpartition(".")[2]


def settings(part: type) -> list[Setting]:
    """The settings of a part, as its dataclass declares them."""
    result = []
    for field in fields(part):
        kind = _readable(field.type)
        default = "" if field.default is MISSING else repr(field.default)
        if field.default_factory is not MISSING:
            default = repr(field.default_factory())
        # A default that depends on another setting is described. (Pydantic reads this key, too.)
        default = field.metadata.get("description", default)
        result.append(Setting(field.name, kind, default))
    return result


def _readable(kind: Any) -> str:
    """A type as a person would write it: a constrained number by its plain type."""
    options = get_args(kind)
    if get_origin(kind) is Annotated:
        return _readable(options[0])
    if get_origin(kind) in (Union, UnionType):
        return " | ".join(map(_readable, options))
    if get_origin(kind) is tuple:
        return f"list of {_readable(options[0])}"
    if get_origin(kind) is Literal:
        return " | ".join(map(str, options))
    if get_origin(kind) is not None:
        return str(kind)
    return "None" if kind is NoneType else getattr(kind, "__name__", str(kind))


def suggestion(name: str, known: Iterable[str]) -> str:
    """' (did you mean …?)' when a known name is near, else nothing."""
    near = difflib.get_close_matches(str(name), list(known), n=1, cutoff=0.6)
    return f" (did you mean {near[0]!r}?)" if near else ""


@cache
def _declares_part(file: Path) -> bool:
    """Whether a file declares the class of its name; it is read, not imported."""
    statements = ast.parse(file.read_bytes()).body
    return any(isinstance(s, ast.ClassDef) and _is_part(s.name, file.stem) for s in statements)


def _is_part(class_name: str, file_name: str) -> bool:
    """Whether a class is the part of a file: the names are equal but for case and underscores."""
    return class_name.lower() == file_name.replace("_", "")


def _empty(file: Path) -> ModuleType:
    """A module for the code in a file, known by a name that no other has."""
    module = ModuleType(
        f"hanse_part_{file.stem}_{hashlib.sha256(str(file).encode()).hexdigest()[:8]}"
    )
    module.__file__ = str(file)
    sys.modules[module.__name__] = module
    return module


def _outside(name: str) -> type:
    """The class in a local file, `path/to/file.py:Class`; `trusted_code` says which may run."""
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
        line = [
            f.lineno for f in traceback.extract_tb(error.__traceback__) if f.filename == str(file)
        ]
        place = f"{file}:{line[-1]}" if line else file
        raise UserError(f"{place} cannot be used: {type(error).__name__}: {error}.") from error
    found = getattr(module, wanted, None)
    if not isinstance(found, type):
        known = [key for key, value in vars(module).items() if isinstance(value, type)]
        raise UserError(f"{file} has no class {wanted!r}{suggestion(wanted, known)}.")
    if not is_dataclass(found) or isabstract(found):
        lacking = ", ".join(sorted(getattr(found, "__abstractmethods__", ())))
        need = f"define {lacking}" if lacking else "put @dataclass(frozen=True) above it"
        raise UserError(f"{name} is not a whole part: {need}.")
    return found
