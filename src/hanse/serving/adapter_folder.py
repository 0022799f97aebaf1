"""Refuse folders without an adapter, which takes neither torch nor a model."""

from pathlib import Path

from hanse.errors import UserError
from hanse.journal.run_settings import EXPERIMENT
from hanse.learners.injection.adapter_layout import CONFIG, WEIGHTS


def refuse_other(folder: Path) -> None:
    """Raise UserError unless a folder is that of a run, finished or not, or of a PEFT adapter."""
    if not (folder / EXPERIMENT).is_file() and not (folder / CONFIG).is_file():
        raise UserError(
            f"{folder} holds neither a run ({EXPERIMENT}) nor a PEFT adapter ({CONFIG}); name the "
            "folder of one."
        )


def refuse_unfinished(folder: Path) -> None:
    """Raise UserError unless a folder is that of a finished run, or of a PEFT adapter."""
    refuse_other(folder)
    if (folder / EXPERIMENT).is_file() and not (folder / "adapter" / WEIGHTS).is_file():
        raise UserError(f"{folder} is not finished; run `hanse resume {folder}` first.")
