"""Load an experiment from a YAML file: overrides, local paths, and checks of the whole."""

import logging
import os
import re
import shlex
from collections.abc import Iterable, Sequence
from hashlib import sha256
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from hanse.data.sources import files
from hanse.data.sources.corpora import CORPORA
from hanse.data.sources.split_files import TEST, VALIDATION
from hanse.errors import UserError
from hanse.experiment import renaming
from hanse.experiment.client_settings import check_clients
from hanse.experiment.declared import check_declared
from hanse.experiment.named_parts import build_parts
from hanse.experiment.overrides import Change, override, parse_change
from hanse.experiment.part_kinds import AT_SILOS, NAMED, changed_at, spec_name
from hanse.experiment.schema import Experiment
from hanse.experiment.validation import SettingError, UnknownKeysError, explain
from hanse.journal import claims, yaml_text
from hanse.journal.yaml_text import Place, Values
from hanse.learners.models.model_files import PACKAGED
from hanse.security import trusted_code

log = logging.getLogger(__name__)

FORMER_MODEL = {"long_texts": "cut"}  # of runs before there was a choice
LOCAL = (  # settings that may name a local file or folder
    *(("data", "path"), ("data", "test"), ("data", "validation")),
    *(("data", "public"), ("data", "public", "path")),
    *(("model", "model_name_or_path"), ("adapter", "from"), ("ownership", "key")),
    ("model_name_or_path",),  # of a model in `models`
)


def load(path: Path, overrides: Iterable[str] = (), trusted: bool = False) -> Experiment:
    """Load the experiment in a YAML file that the user names, with overrides.

    trusted: let all Python files that it names run, even if the file was written by a run. A file
        that the user wrote may always do that.
    Raises UserError for every mistake, with the line of the file or the override that has it.
    """
    return _load(path, overrides, trusted or not claims.is_left(path))


def load_left(path: Path, overrides: Iterable[str] = (), trusted: bool = False) -> Experiment:
    """Load the experiment that a run or a baseline comparison wrote into its folder.

    The folder may come from somebody else, and may run only code that this user has named by hand
    before; trusted: or any code.
    """
    return _load(path, overrides, trusted)


def from_values(values: Values, overrides: Iterable[str] = ()) -> Experiment:
    """Build an experiment from settings in the user's own program, with overrides.

    Python files that they name may run. Relative paths start from the current folder. Raises
    UserError for every mistake.
    """
    with trusted_code.granting(True):
        return compose(values, "", Path("experiment.yaml"), overrides)


def _load(path: Path, overrides: Iterable[str], by_hand: bool) -> Experiment:
    values, text = yaml_text.read(path)
    if claims.is_left(path):
        values = _completed(values)
    with trusted_code.granting(by_hand):
        return compose(values, text, path, overrides)


def _completed(values: Values) -> Values:
    """The values of a file that a run wrote, with what versions without a setting did."""
    model, models = values.get("model"), values.get("models")
    if isinstance(model, dict):
        values = {**values, "model": {**FORMER_MODEL, **model}}
    if isinstance(models, dict):
        completed = {
            name: {**FORMER_MODEL, **settings} if isinstance(settings, dict) else settings
            for name, settings in models.items()
        }
        values = {**values, "models": completed}
    return values


def compose(values: Values, text: str, path: Path, overrides: Iterable[str]) -> Experiment:
    """Build an experiment from the values of a file and overrides.

    text: the file's text, in which the lines of mistakes are found; empty if there is no such file.
    path: the file. Relative paths in it start from its folder, those of overrides from the current
        one; if there is nothing there, from the other of both.
    """
    changes = [change for word in overrides for change in _changes(word)]
    for item in changes:
        _grant_named(item.value)
    try:
        values = renaming.settled({"name": default_name(path), **values})
        values = _absolute(values, (path.resolve().parent, Path.cwd()))
    except SettingError as error:
        raise _in_file(error, path, text) from None
    try:
        return _built(override(values, changes), path)
    except SettingError as error:
        if word := _wrong_word(error, values, changes, path):
            raise _in_word(error, word) from None
        raise _in_file(error, path, text) from None


def says(path: Path, overrides: Iterable[str], place: Place) -> bool:
    """True if a file that can be loaded, or an override, has a setting under any of its names."""
    values: Any = renaming.settled(yaml_text.read(path)[0])
    values = override(values, [change for word in overrides for change in _changes(word)])
    for key in place:
        if not isinstance(values, dict) or key not in values:
            return False
        values = values[key]
    return True


def _changes(word: str) -> list[Change]:
    """The changes that a word of the command line makes, under our names."""
    try:
        return renaming.changed(parse_change(word))
    except SettingError as error:
        raise _in_word(error, word) from None


def _grant_named(value: Any) -> None:
    """Let the Python files run that a value of the command line names."""
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
    if isinstance(error, UnknownKeysError) and text:
        sentence = error.sentence(lambda place: renaming.line(text, place), shlex.quote(str(path)))
        return UserError(f"{path}: {sentence}")
    line = renaming.line(text, error.place)
    return UserError(f"{path}:{line}: {error}" if line else f"{path}: {error}")


def default_name(path: Path) -> str:
    """The name of an experiment whose file, at this path, gives none."""
    return re.sub(r"[^\w.-]+", "-", path.stem).lstrip(".-") or "run"


def _wrong_word(
    error: SettingError, values: Values, changes: list[Change], path: Path
) -> str | None:
    """The first override that brings a mistake about; None if the file has it already."""
    for count in range(len(changes)):
        try:
            _built(override(values, changes[:count]), path)
        except SettingError as earlier:
            if str(earlier) == str(error):
                return changes[count - 1].word if count else None
    return changes[-1].word if changes else None


def _built(values: Values, path: Path) -> Experiment:
    """Validate settings, and build every part once to check it; raises SettingError.

    Local paths of the file are full already, so that relative ones are those of overrides.
    """
    try:
        values = _with_splits(_absolute(values, (Path.cwd(), path.resolve().parent)))
        experiment = Experiment.model_validate(values)
    except ValidationError as error:
        raise explain(error, Experiment) from None
    build_parts(experiment)
    check_clients(experiment)
    check_declared(experiment)
    return experiment


def refuse_foreign(experiment: Experiment) -> None:
    """Raise UserError for a part from outside the package that no silo's policy can allow."""
    for kind in AT_SILOS:
        for name in map(spec_name, kind.specs(experiment)):
            if ":" in name and kind.policy is None:
                raise UserError(
                    f"{name} is a part from outside the package, and no setting of a silo's policy "
                    f"allows a {kind.noun} of its own; take one of the package's own."
                )


def outside_code(experiment: Experiment) -> dict[str, str]:
    """The SHA-256 of each file from outside the package whose part silos build.

    The key names file and class without the folder, such as "mine.py:Mine", since each silo has its
    own copy. Server and silos compare them.
    """
    settings = [experiment, *map(experiment.for_client, experiment.clients)]
    specs = (spec for one in settings for kind in AT_SILOS for spec in kind.specs(one))
    files = {name: Path(name.rpartition(":")[0]) for name in map(spec_name, specs) if ":" in name}
    return {
        f"{file.name}:{name.rpartition(':')[2]}": sha256(trusted_code.source(file)).hexdigest()
        for name, file in files.items()
    }


def _absolute(values: dict[str, Any], homes: Sequence[Path]) -> dict[str, Any]:
    """Replace local files by their full paths, so that the resolved YAML works from any folder.

    homes: the folders from which relative paths may start; the first that has the file counts.
    """
    result = dict(values)
    for place in LOCAL:
        result = changed_at(result, place, lambda path: _full_path(path, homes))
    for kind in NAMED:
        result = changed_at(result, kind.place, lambda specs: _full_specs(specs, homes))
    for section in ("clients", "models"):
        result = changed_at(result, (section,), lambda named: _each_absolute(named, homes))
    return result


def _each_absolute(named: Any, homes: Sequence[Path]) -> Any:
    """The settings of each client, or of each model, by name, with full paths."""
    if not isinstance(named, dict):
        return named
    return {
        name: _absolute(settings, homes) if isinstance(settings, dict) else settings
        for name, settings in named.items()
    }


def _with_splits(values: Values) -> Values:
    """Add a folder's own files for test and validation, unless the settings have others."""
    data = values.get("data")
    path = data.get("path") if isinstance(data, dict) else None
    if not isinstance(data, dict) or not isinstance(path, str) or path in CORPORA:
        return values
    splits = files.splits(Path(path))
    held_out = {name: path for name in (TEST, VALIDATION) if name in splits and name not in data}
    return {**values, "data": {**data, **held_out}} if held_out else values


def _full_specs(spec: Any, homes: Sequence[Path]) -> Any:
    """A spec, or a list of them, with full paths for files from outside the package."""
    if isinstance(spec, list):
        return [_full_specs(item, homes) for item in spec]
    if isinstance(spec, dict):
        return {
            _full_specs(name, homes): _full_encoder(settings, homes)
            for name, settings in spec.items()
        }
    if not isinstance(spec, str):
        return spec
    path, colon, name = spec.partition(":")
    return f"{_full_path(path, homes)}:{name}" if colon else spec


def _full_encoder(settings: Any, homes: Sequence[Path]) -> Any:
    """A part's settings with the full path of its encoder, if that is a folder."""
    encoder = settings.get("encoder") if isinstance(settings, dict) else None
    if not isinstance(encoder, str):
        return settings
    return {**settings, "encoder": _full_path(encoder, homes)}


def _full_path(path: Any, homes: Sequence[Path]) -> Any:
    """The full path of a file or folder in the first home that has it; anything else unchanged.

    Another one of the same name in another home is logged.
    """
    if not isinstance(path, str) or not path or path in CORPORA or path in PACKAGED:
        return path
    try:
        places = [home / Path(path).expanduser() for home in homes]
        files = list(dict.fromkeys(place.resolve() for place in places if place.exists()))
    except (OSError, ValueError, RuntimeError):  # too long for a file's name, or not one at all
        return path
    for other in files[1:]:
        log.warning("%s is %s, not %s; write the full path to use that", path, files[0], other)
    return str(files[0]) if files else path
