"""An experiment file for the user's data: `hanse init`."""

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from itertools import count
from pathlib import Path

from hanse import atomic_files
from hanse.data.formats import column_remarks, label_spelling
from hanse.data.sources import folders, split_column
from hanse.data.sources.split_files import TRAIN
from hanse.errors import UserError
from hanse.experiment.assembly.dataset import source_remarks
from hanse.experiment.loading import default_name
from hanse.learners.models.model_files import DEFAULT as DEFAULT_MODEL
from hanse.learners.models.model_files import PACKAGED, locate
from hanse.planning.first_experiment import owners
from hanse.planning.first_experiment.data_summary import Source, held_files, look
from hanse.planning.first_experiment.defaults import MANY, Plan, plan
from hanse.planning.first_experiment.yaml_page import page

SILOS = 4  # unless the user or the data name another number
ENCODER = "minilm-l6"  # the model for tagged words, unless the user names another
ALONE = (
    "one silo is no federation: nothing is averaged, and the run is ordinary fine-tuning; give "
    "--silos 2 or more, or --from once for each silo's file."
)
DEFAULT = "silo-"  # prefix of the names of simulated clients


@dataclass(frozen=True)
class Start:
    """The written file, the data that it is for, and the chosen settings."""

    file: Path
    sources: Mapping[str, Source]  # by the silo's name, if each has its own
    plan: Plan
    model: str
    held: Mapping[str, Source]  # files for test or validation, by the split
    remarks: Sequence[str] = ()  # on the rows of all sources together


def start(
    paths: Sequence[str],
    silos: int | None,
    model: str,
    out: Path | None,
    columns: Mapping[str, str],
    skip_invalid: bool = False,
    encoding: str = "",
) -> Start:
    """Read the data and write an experiment for them.

    paths: one path, whose rows are divided among the silos, or one for each silo.
    silos: None means as many as paths, or as files in the folder, or 4.
    columns, skip_invalid, encoding: settings of `data` for reading the files.
    Raises UserError if the data cannot be read, are too few, or if the file exists already.
    """
    file = out or Path(f"{_name(paths[0]) if len(paths) == 1 else 'silos'}.yaml")
    if os.path.exists(file):  # not Path.exists, which raises for a name that is too long
        raise UserError(f"{file} exists already; name another file with --out, or remove it.")
    _refuse_number(silos, len(paths))
    if model not in PACKAGED and not model.endswith(".gguf"):
        locate(model)
    read = partial(look, columns=columns, skip_invalid=skip_invalid, encoding=encoding)
    sources, held = _sources(paths, read)
    rows = (row for source in sources.values() for row in source.rows)
    if model == DEFAULT_MODEL and all(row.kind == "tagged" for row in rows):
        model = ENCODER
    first = next(iter(sources.values()))
    usual = owners.stored(first, MANY) or min(SILOS, len(first.rows))
    silos = silos or (len(paths) if len(paths) > 1 else usual)
    settings = plan(sources, silos, model, held)
    every = [row for source in (*sources.values(), *held.values()) for row in source.rows]
    used = [name for name in (settings.owner, split_column.column(every)) if name]
    sources = {name: _with_columns(source, used) for name, source in sources.items()}
    model_path = str(Path(model).resolve()) if os.path.exists(model) else model
    held_paths = {split: source.path for split, source in held.items()}
    text = page(file, default_name(file), model_path, sources, settings, held_paths)
    atomic_files.write(file, text.encode())
    return Start(file, sources, settings, model, held, _remarks(sources, settings))


def _remarks(sources: Mapping[str, Source], settings: Plan) -> list[str]:
    """The remarks on the rows of all sources together, and on the silos."""
    remarks = _label_remarks(sources)
    if len(sources) == 1:
        source = next(iter(sources.values()))
        remarks += owners.remarks(source, settings.silos, settings.owner)
    return [*remarks, *([ALONE] if settings.silos == 1 else [])]


def _label_remarks(sources: Mapping[str, Source]) -> list[str]:
    """Remarks on labels that are spelled differently, with the silos that have them."""
    rows = [
        replace(row, place=f"{name}: {row.place}")
        for name, source in sources.items()
        for row in source.rows
    ]
    silos = {row.place: row.place.partition(":")[0] for row in rows} if len(sources) > 1 else None
    return label_spelling.remarks(rows, silos)


def _sources(
    paths: Sequence[str], read: Callable[[str], Source]
) -> tuple[dict[str, Source], dict[str, Source]]:
    """The source at each path by the silo's name, and a folder's files for test and validation."""
    sources = [read(path) for path in paths]
    if len(paths) > 1:
        sources = list(map(_with_remark, paths, sources))
        return dict(zip(_silo_names(paths), sources, strict=True)), {}
    (source,), (name,) = sources, _silo_names(paths)
    if held := _held(paths[0], source):
        return {name: source}, held
    source, held = _by_column(source)
    return {name: source}, held


def _by_column(source: Source) -> tuple[Source, dict[str, Source]]:
    """The rows for training and those of other splits, if a column of a file names splits."""
    splits = {} if os.path.isdir(source.path) else split_column.by_split(source.rows)
    if not splits:
        return source, {}
    remark = f"{split_column.column(source.rows)} tells which rows are for {', '.join(splits)}."
    training = replace(source, rows=splits[TRAIN], remarks=[*source.remarks, remark])
    held = {s: replace(source, rows=rows) for s, rows in splits.items() if s != TRAIN}
    return training, held


def _refuse_number(silos: int | None, paths: int) -> None:
    """Raise UserError for a number of silos below 1, or another one than that of the paths."""
    if silos is not None and silos < 1:
        raise UserError(f"--silos is {silos}; there must be at least one.")
    if paths > 1 and silos not in (None, paths):
        raise UserError(
            f"--from names {paths} paths, one for each silo, but --silos is {silos}; "
            "leave --silos out, or put the files into one folder and name that."
        )


def _with_columns(source: Source, used: Sequence[str]) -> Source:
    """A source with remarks on the columns that nothing uses; used: those that settings name."""
    return replace(source, remarks=[*source.remarks, *column_remarks.remarks(source.rows, used)])


def _held(path: str, training: Source) -> dict[str, Source]:
    """A folder's rows for test and validation, by the split, read like those for training."""
    sources = {
        split: look(file, training.columns, split, training.skip_invalid, training.encoding)
        for split, file in held_files(path).items()
    }
    return {
        split: replace(
            source, rows=split_column.by_split(source.rows, split).get(split, source.rows)
        )
        for split, source in sources.items()
    }


def _with_remark(path: str, source: Source) -> Source:
    """One silo's source, with remarks on files and rows for test or validation."""
    remarks = list(source.remarks)
    if unused := " and ".join(held_files(path)):
        remarks.append(f"only files named for training are read, not those for {unused}.")
    keeps = "data.filter: {} of this client"
    source_remarks.splits_in_use(path, source.rows, "trained on", keeps, remarks.append)
    return replace(source, remarks=remarks)


def _name(path: str) -> str:
    """A name for a path, with characters that names of files and clients may have."""
    place = Path(path).resolve() if os.path.exists(path) else Path(path)
    return default_name(Path(folders.uncompressed(place)))


def _silo_names(paths: Sequence[str]) -> list[str]:
    """A name for each silo, from its file: all different, and none like a default name."""
    names: list[str] = []
    for path in paths:
        name = _name(path)
        name = f"own-{name}" if name.startswith(DEFAULT) else name
        more = (f"{name}-{number}" for number in count(2))
        names.append(name if name not in names else next(n for n in more if n not in names))
    return names
