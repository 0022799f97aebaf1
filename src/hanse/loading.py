"""From a YAML file to an experiment: overrides, local paths, checks that need more than a type."""

import re
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from hanse import settings
from hanse.data.corpora import CORPORA
from hanse.errors import UserError
from hanse.experiment import Experiment, build_tasks
from hanse.learners.adapters import Lora
from hanse.learners.sources import PACKAGED
from hanse.parts import suggestion

# What one client may have otherwise; of its data, all but how they are held out and divided.
OVERRIDABLE = ("model", "adapter", "data", "train")
SHARED_DATA = ("test", "validation", "split_seed", "partition", "labels")


def load(path: Path, overrides: Iterable[str] = ()) -> Experiment:
    """The experiment in a YAML file, with overrides; raises UserError for anything wrong in it."""
    values, text = settings.read(path)
    values.setdefault("name", re.sub(r"[^\w.-]+", "-", path.stem).lstrip(".-") or "run")
    values = settings.override(values, overrides)
    values = _absolute(values, path.resolve().parent)
    try:
        experiment = Experiment.model_validate(values)
        _check_clients(experiment)
        experiment.resolved()  # builds every part once, so that wrong settings show now
        build_tasks(experiment)
    except ValidationError as error:
        raise settings.explain(error, Experiment, text, str(path)) from None
    except UserError as error:
        raise UserError(f"{path}: {error}") from None
    return experiment


def _check_clients(experiment: Experiment) -> None:
    known = experiment.client_names
    for name, over in experiment.clients.items():
        if name not in known:
            raise UserError(
                f"clients.{name} is no client{suggestion(name, known)}; they are "
                f"{known[0]} to {known[-1]}, or give every named client its own data.path."
            )
        for key in over:
            if key not in OVERRIDABLE:
                raise UserError(
                    f"clients.{name} cannot override {key!r}{suggestion(key, OVERRIDABLE)}; "
                    f"it can override {', '.join(OVERRIDABLE)}."
                )
        try:
            own = experiment.for_client(name)
        except ValidationError as error:
            raise settings.explain(error, Experiment, "", f"clients.{name}") from None
        _check_own_data(experiment, name, over.get("data") or {})
        mine, theirs = own.adapter, experiment.adapter
        if mine.source != theirs.source or _trained(mine.lora) != _trained(theirs.lora):
            raise UserError(
                f"clients.{name}.adapter trains another adapter than the other clients', and a "
                "mean of the two means nothing; only lora_dropout may differ."
            )


def _check_own_data(experiment: Experiment, name: str, data: dict[str, Any]) -> None:
    """Refuse what of a client's own data settings would be ignored."""
    alone = experiment.brings_own_data
    if "path" in data and (not alone or name in experiment.default_names):
        raise UserError(
            f"clients.{name} brings its own data.path, so every client must: give each one a name "
            "of its own and a path, or leave the paths out."
        )
    for key in data:
        if key in SHARED_DATA or (not alone and key != "template"):
            raise UserError(
                f"clients.{name}.data.{key} would change nothing: rows are loaded, held out and "
                "divided once for all clients; set it in data."
            )


def _trained(lora: Lora | None) -> Lora | None:
    """The adapter's settings without what only changes how a client trains it."""
    return None if lora is None else replace(lora, lora_dropout=0.0)


def _absolute(values: dict[str, Any], home: Path) -> dict[str, Any]:
    """Local files by their full path, so that the resolved YAML works from any folder."""
    result = dict(values)
    for section, key in (("data", "path"), ("model", "model_name_or_path"), ("adapter", "from")):
        inner = result.get(section)
        if isinstance(inner, dict) and isinstance(inner.get(key), str):
            result[section] = {**inner, key: _found(inner[key], home)}
    for key in ("algorithm", "aggregator", "objective"):
        if key in result:
            result[key] = _part_found(result[key], home)
    data, evaluation = result.get("data"), result.get("evaluation")
    if isinstance(data, dict) and "partition" in data:
        result["data"] = {**data, "partition": _part_found(data["partition"], home)}
    if isinstance(evaluation, dict) and isinstance(evaluation.get("tasks"), list):
        tasks = [_part_found(task, home) for task in evaluation["tasks"]]
        result["evaluation"] = {**evaluation, "tasks": tasks}
    clients = result.get("clients")
    if isinstance(clients, dict):
        result["clients"] = {
            name: _absolute(over, home) if isinstance(over, dict) else over
            for name, over in clients.items()
        }
    return result


def _part_found(spec: Any, home: Path) -> Any:
    """A part's spec with the full path of its file, if it is one from outside the package."""
    if isinstance(spec, dict):
        return {_part_found(name, home): settings for name, settings in spec.items()}
    if not isinstance(spec, str):
        return spec
    path, colon, name = spec.partition(":")
    return f"{_found(path, home)}:{name}" if colon else spec


def _found(path: str, home: Path) -> str:
    """The full path of a file or folder, here or beside the experiment; else as it came."""
    if path in CORPORA or path in PACKAGED:
        return path
    places = [Path.cwd() / Path(path).expanduser(), home / path]
    try:
        return next((str(place.resolve()) for place in places if path and place.exists()), path)
    except (OSError, ValueError, RuntimeError):  # too long for a file's name, or not one at all
        return path
