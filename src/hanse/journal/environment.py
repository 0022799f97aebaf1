"""The environment of a run: with other data, threads or versions, resume is not bit-identical."""

import contextlib
import logging
import platform
from collections.abc import Mapping
from dataclasses import replace
from importlib.metadata import version
from pathlib import Path

import torch

from hanse.errors import UserError
from hanse.journal import record_files
from hanse.journal.record_files import RecordError
from hanse.journal.records import ENVIRONMENT, EnvironmentRecord
from hanse.observability.paired_timing import Measurement

log = logging.getLogger(__name__)

COMPARED = ("peft", "processor", "python", "torch", "transformers")  # a difference is a warning

Precision = dict[str, dict[str, bool | str]]


def note(
    folder: Path,
    data: str,
    speed: Mapping[str, float] | None = None,
    precision: Precision | None = None,
    public: str = "",
    measured: Mapping[str, Measurement] | None = None,
    models: Mapping[str, str] | None = None,
) -> None:
    """Write this machine's threads and versions, and the data's hash, into a run folder.

    public: the hash of the public rows; empty without any.
    models: the hashes of the models that are loaded, by their paths in the settings.
    speed: measured figures of the machine for the report; resume does not need them.
    precision: by model, the modes in which it computes. measured: the measurements of them.
    """
    noted = {"data": data, "public": public, "precision": precision or {}, **(speed or {})}
    noted |= {"measured": dict(measured or {}), "models": dict(models or {})}
    record = replace(_here(), **noted)  # type: ignore[arg-type]
    record_files.write(folder / ENVIRONMENT, record)


def follow(folder: Path) -> Precision:
    """Use as many threads as the run did, and warn about every other difference.

    Returns the precision that the run noted of its models; empty if it noted none.
    """
    noted, here = read(folder), _here()
    if noted.threads is not None and noted.threads > 0:
        torch.set_num_threads(noted.threads)
    for name in COMPARED:
        before, now = getattr(noted, name), getattr(here, name)
        if before not in (None, now):
            log.warning(
                "the run was made with %s %s, this is %s: it goes on, but not bit for bit",
                *(name, before, now),
            )
    return noted.precision


def same_data(folder: Path, data: str, public: str = "") -> None:
    """Raise UserError if the data are not those of the run: its test rows may be trained on.

    data, public: the hashes of the data and of the public rows, as in `note`.
    """
    noted = read(folder)
    if noted.data not in (None, data):
        raise UserError(
            f"the data have changed since {folder} was begun, so they would be divided otherwise; "
            "bring them back, or begin a new run."
        )
    if noted.public not in (None, public):
        raise UserError(
            f"the public data of {folder} had the hash {noted.public or '(none)'} when it was "
            f"begun, and have {public or '(none)'} now; bring them back, or begin a new run."
        )


def same_models(folder: Path, models: Mapping[str, str]) -> None:
    """Raise UserError if a model has changed since the run was begun: its rounds had the former.

    models: as in `note`. A run that has noted nothing of a model goes on with any.
    """
    noted = read(folder).models
    for path, digest in models.items():
        if (former := noted.get(path, digest)) != digest:
            raise UserError(
                f"the files of {path} had the hash {former} when {folder} was begun, and have "
                f"{digest} now; bring the former files back, or choose another output_dir for a "
                "new run."
            )


def read(folder: Path) -> EnvironmentRecord:
    """The environment of a run; empty, with a warning, if the file is missing or damaged.

    Raises UserError if the system refuses to read it: the data's hash would go unchecked.
    """
    with contextlib.suppress(RecordError):
        if record := record_files.read(folder / ENVIRONMENT, EnvironmentRecord):
            return record
    log.warning("%s cannot be read: whether all is as it was is not known", folder / ENVIRONMENT)
    return EnvironmentRecord()


def _here() -> EnvironmentRecord:
    """Threads, processor and versions of this process."""
    return EnvironmentRecord(
        threads=torch.get_num_threads(),
        processor=torch.backends.cpu.get_cpu_capability(),
        python=platform.python_version(),
        torch=version("torch"),
        transformers=version("transformers"),
        peft=version("peft"),
    )


def peak_gpu_memory() -> float | None:
    """The most bytes that torch has held on the GPU; None without a GPU."""
    if not torch.cuda.is_initialized():  # type: ignore[no-untyped-call]
        return None
    return float(torch.cuda.max_memory_allocated())


def gpu_use() -> float | None:
    """The share of time in which the GPU is at work; None without a GPU, or if nothing tells it."""
    if not torch.cuda.is_initialized():  # type: ignore[no-untyped-call]
        return None
    # Torch asks the driver through a package that may be missing, for a figure that not every GPU
    # has; no error of theirs may stop a run.
    with contextlib.suppress(Exception):
        return torch.cuda.utilization() / 100
    return None
