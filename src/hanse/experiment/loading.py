"""From a YAML file to an experiment: overrides, local paths, checks that need more than a type."""

import os
import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from hanse.data.sources import files
from hanse.data.sources.corpora import CORPORA
from hanse.data.sources.split_files import TEST, VALIDATION
from hanse.errors import UserError
from hanse.experiment import renaming
from hanse.experiment.client_settings import check_clients
from hanse.experiment.overrides import Change, change, override
from hanse.experiment.part_kinds import AT_SILOS, NAMED, changed_at, spec_name
from hanse.experiment.schema import Experiment, build_parts
from hanse.experiment.validation import SettingError, explain
from hanse.journal import claims, yaml_text
from hanse.journal.yaml_text import Values
from hanse.learners.models.model_files import PACKAGED
from hanse.security import trusted_code

LOCAL = (  # settings that may name a local file or folder
    *(("data", "path"), ("data", "test"), ("data", "validation")),
    *(("model", "model_name_or_path"), ("adapter", "from")),
)


def load(path: Path, overrides: Iterable[str] = (), trusted: bool = False) -> Experiment:
    """The experiment in a YAML file that the user names, with overrides.

    trusted: whether all code that it names may run, although a run has left the file; one that the
        user wrote may name what it likes.
    Raises UserError for anything wrong, with the line in the file or the override that is at fault.
    """
    return _load(path, overrides, trusted or not claims.is_left(path))


def load_left(path: Path, overrides: Iterable[str] = (), trusted: bool = False) -> Experiment:
    """The experiment that a run or a baseline comparison has left in its folder, with overrides.

    The folder may come from somebody else, so it may run only code that this user has named by hand
    before; trusted: or any.
    """
    return _load(path, overrides, trusted)


def _load(path: Path, overrides: Iterable[str], by_hand: bool) -> Experiment:
    written, text = yaml_text.read(path)
    with trusted_code.granting(by_hand):
        return compose(written, text, path, overrides)


def compose(written: Values, text: str, path: Path, overrides: Iterable[str]) -> Experiment:
    """The experiment of settings that stand in a file of this text, or stem from one (no text)."""
    changes = [found for word in overrides for found in _changes(word)]
    for found in changes:
        _grant_named(found.value)
    try:
        values = renaming.settled({"name": default_name(path), **written})
    except SettingError as error:
        raise _in_file(error, path, text) from None
    try:
        return _built(override(values, changes), path)
    except SettingError as error:
        if at_fault := _at_fault(error, values, changes, path):
            raise _in_word(error, at_fault) from None
        raise _in_file(error, path, text) from None


def _changes(word: str) -> list[Change]:
    """What a word of the command line changes, under our names."""
    try:
        return renaming.changed(change(word))
    except SettingError as error:
        raise _in_word(error, word) from None


def _grant_named(value: Any) -> None:
    """Let code run that a word of the command line names by a path from the current folder."""
    if isinstance(value, dict | list):
        for inner in value:
            _grant_named(inner)
    elif isinstance(value, str):
        path, colon, _ = value.partition(":")
        if colon and path.endswith(".py") and os.path.isfile(path):
            trusted_code.grant(Path(path).resolve())


def _in_word(error: SettingError, word: str) -> UserError:
    return UserError(f"the override {word!r}: {error}")


def _in_file(error: SettingError, path: Path, text: str) -> UserError:
    line = renaming.line(text, error.place)
    return UserError(f"{path}:{line}: {error}" if line else f"{path}: {error}")


def default_name(path: Path) -> str:
    """What an experiment in a file of this name is called unless it says so itself."""
    return re.sub(r"[^\w.-]+", "-", path.stem).lstrip(".-") or "run"


def _at_fault(error: SettingError, values: Values, changes: list[Change], path: Path) -> str | None:
    """The first override with which this is wrong; none if it is wrong in the file."""
    for count in range(len(changes)):
        try:
            _built(override(values, changes[:count]), path)
        except SettingError as earlier:
            if str(earlier) == str(error):
                return changes[count - 1].word if count else None
    return changes[-1].word if changes else None


def _built(values: Values, path: Path) -> Experiment:
    """The experiment that these settings are, every part of it built once; raises SettingError."""
    try:
        whole = _with_splits(_absolute(values, path.resolve().parent))
        experiment = Experiment.model_validate(whole)
    except ValidationError as error:
        raise explain(error, Experiment) from None
    build_parts(experiment)
    check_clients(experiment)
    return experiment


def refuse_foreign(experiment: Experiment) -> None:
    """Raise UserError for a part from outside the package: code does not travel to silos."""
    names = [spec_name(spec) for kind in AT_SILOS for spec in kind.specs(experiment)]
    for name in names:
        if ":" in name:
            raise UserError(
                f"{name} is a part from outside the package, and code does not travel to silos; "
                "take one of the package's own."
            )


def _absolute(values: dict[str, Any], home: Path) -> dict[str, Any]:
    """Local files by their full path, so that the resolved YAML works from any folder."""
    result = dict(values)
    for place in LOCAL:
        result = changed_at(result, place, lambda path: _found(path, home))
    for kind in NAMED:
        result = changed_at(result, kind.place, lambda specs: _parts_found(specs, home))
    clients = result.get("clients")
    if isinstance(clients, dict):
        result["clients"] = {
            name: _absolute(over, home) if isinstance(over, dict) else over
            for name, over in clients.items()
        }
    return result


def _with_splits(values: Values) -> Values:
    """The settings with a folder's own files for test and validation, if they say nothing else."""
    data = values.get("data")
    path = data.get("path") if isinstance(data, dict) else None
    if not isinstance(data, dict) or not isinstance(path, str) or path in CORPORA:
        return values
    found = files.splits(Path(path))
    own = {name: path for name in (TEST, VALIDATION) if name in found and name not in data}
    return {**values, "data": {**data, **own}} if own else values


def _parts_found(spec: Any, home: Path) -> Any:
    """A spec, or a list of them, with the full path of each file from outside the package."""
    if isinstance(spec, list):
        return [_parts_found(item, home) for item in spec]
    if isinstance(spec, dict):
        return {_parts_found(n, home): _encoder_found(own, home) for n, own in spec.items()}
    if not isinstance(spec, str):
        return spec
    path, colon, name = spec.partition(":")
    return f"{_found(path, home)}:{name}" if colon else spec


def _encoder_found(own: Any, home: Path) -> Any:
    """A part's settings with the full path of its encoder, if that is a folder."""
    encoder = own.get("encoder") if isinstance(own, dict) else None
    return {**own, "encoder": _found(encoder, home)} if isinstance(encoder, str) else own


def _found(path: Any, home: Path) -> Any:
    """The full path of a file or folder, here or beside the experiment; else as it came."""
    if not isinstance(path, str) or path in CORPORA or path in PACKAGED:
        return path
    places = [Path.cwd() / Path(path).expanduser(), home / path]
    try:
        return next((str(place.resolve()) for place in places if path and place.exists()), path)
    except (OSError, ValueError, RuntimeError):  # too long for a file's name, or not one at all
        return path
