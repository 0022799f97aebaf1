"""From somebody's data to an experiment that runs: `hanse init`."""

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import count
from pathlib import Path

from hanse import atomic_files
from hanse.errors import UserError
from hanse.experiment.loading import default_name
from hanse.learners.models.model_files import DEFAULT as DEFAULT_MODEL
from hanse.learners.models.model_files import PACKAGED, locate
from hanse.planning.first_experiment.data_summary import (
    PLACES,
    Source,
    held_files,
    look,
    silo_names,
)
from hanse.planning.first_experiment.defaults import MANY, Plan, plan
from hanse.planning.first_experiment.yaml_page import page

SILOS = 4  # if nothing says how many
ENCODER = "minilm-l6"  # what tags words unless another model is named
DEFAULT = "silo-"  # how clients begin that nobody named


@dataclass(frozen=True)
class Start:
    """The file that was written, what it was written from, and what it chose."""

    file: Path
    sources: Mapping[str, Source]  # by the silo's name, if each has its own
    plan: Plan
    held: Mapping[str, Source]  # files of their own for test or validation, by the split


def start(
    paths: Sequence[str],
    silos: int | None,
    model: str,
    out: Path | None,
    columns: Mapping[str, str],
) -> Start:
    """Look at the data and write an experiment for them.

    paths: one, whose rows are divided among the silos, or one for each silo.
    silos: none: as many as there are paths, or files in a folder, or 4.
    Raises UserError if the data cannot be read, are too few, or if the file is there already.
    """
    file = out or Path(f"{_name(paths[0]) if len(paths) == 1 else 'silos'}.yaml")
    if os.path.exists(file):  # not Path.exists, which raises for a name that is too long
        raise UserError(f"{file} is there already; name another with --out, or remove it.")
    _refuse_number(silos, len(paths))
    if model not in PACKAGED and not model.endswith(".gguf"):
        locate(model)
    found = [look(path, columns) for path in paths]
    if len(paths) == 1:
        held = _held(paths[0], found[0].columns)
    else:
        held, found = {}, list(map(_unheld, paths, found))
    sources = dict(zip(_silo_names(paths), found, strict=True))
    if model == DEFAULT_MODEL and all(row.kind == "tagged" for own in found for row in own.rows):
        model = ENCODER
    silos = silos or (len(paths) if len(paths) > 1 else _as_stored(found[0]))
    chosen = plan(sources, silos, held)
    where = str(Path(model).resolve()) if os.path.exists(model) else model
    text = page(
        file,
        default_name(file),
        where,
        sources,
        chosen,
        {split: source.path for split, source in held.items()},
    )
    atomic_files.write(file, text.encode())
    return Start(file, sources, chosen, held)


def _refuse_number(silos: int | None, paths: int) -> None:
    """Raise UserError for a number of silos that cannot be, or that is not that of the places."""
    if silos is not None and silos < 1:
        raise UserError(f"--silos is {silos}; there must be at least one.")
    if paths > 1 and silos not in (None, paths):
        raise UserError(
            f"--from names {paths} places, each of which is a silo, but --silos is {silos}; "
            "leave --silos out, or put the files into one folder and name that."
        )


def _held(path: str, columns: Mapping[str, str]) -> dict[str, Source]:
    """What a folder holds for test and validation."""
    return {split: look(file, columns, split) for split, file in held_files(path).items()}


def _unheld(path: str, source: Source) -> Source:
    """One silo's source, with a remark on files for test and validation: they are not read."""
    if unused := " and ".join(held_files(path)):
        remark = f"only files named for training are read, not those for {unused}."
        return replace(source, remarks=[*source.remarks, remark])
    return source


def _name(path: str) -> str:
    """What a place is called, in words that a file's and a client's name may have."""
    return default_name(Path(path).resolve() if os.path.exists(path) else Path(path))


def _silo_names(paths: Sequence[str]) -> list[str]:
    """A name for each silo from its file's: all different, and none that stands for another."""
    names: list[str] = []
    for path in paths:
        name = _name(path)
        name = f"own-{name}" if name.startswith(DEFAULT) else name
        more = (f"{name}-{number}" for number in count(2))
        names.append(name if name not in names else next(n for n in more if n not in names))
    return names


def _as_stored(source: Source) -> int:
    """As many silos as a folder has folders or files, if these are a few; else the usual number."""
    for column in PLACES:
        if 1 < len(silo_names(source, column)) <= MANY:
            return len(silo_names(source, column))
    return min(SILOS, len(source.rows))
