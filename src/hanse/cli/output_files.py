"""Checks of the files that a command is to write, made before it works for long."""

from pathlib import Path

from hanse.errors import UserError


def refuse_unwritable(file: Path) -> None:
    """Raise UserError if a folder stands in the file's place, or if its own folder is missing."""
    if file.is_dir():
        raise UserError(f"{file} is a folder, and a file is to be written there; name a file.")
    if not file.absolute().parent.is_dir():
        raise UserError(
            f"{file.parent} is no folder, so {file.name} cannot be written there; make it, or "
            "name another."
        )
