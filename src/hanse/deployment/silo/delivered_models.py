"""The models that servers have sent to a silo, each in a folder named by its hash."""

import logging
import os
import shutil
from collections.abc import Mapping, Set
from dataclasses import dataclass
from pathlib import Path

from hanse import atomic_files
from hanse.content_hash import content_hash, keep_hash
from hanse.errors import UserError, explained
from hanse.learners.models.model_hash import unvetted_hash
from hanse.learners.models.vetting import vet

log = logging.getLogger(__name__)

FOLDER = "models"  # in a silo's state
PARTS = ".parts"  # after the hash of a model that is not complete yet


class WrongModelError(UserError):
    """The model that came is not that of its hash, or none that hanse loads."""


@dataclass(frozen=True)
class DeliveredModels:
    """Complete models, and files of incomplete ones. Only their owner reads them."""

    folder: Path

    def find(self, digest: str) -> Path | None:
        """The folder of the model of this hash; None if it is not here. A damaged one is removed.

        It becomes the model that was used last, which `prune` keeps longest. Raises UserError if
        the system refuses to read it: that says nothing about its content.
        """
        place = self.folder / digest
        if not place.is_dir():
            return None
        if reason := _damage(place, digest):
            log.warning("%s is damaged and was removed: %s", place, reason)
            shutil.rmtree(place)
            return None
        os.utime(place)
        return place

    def parts(self, digest: str) -> Path:
        """The folder of the files that have come of a model which is not complete yet."""
        return self.folder / f"{digest}{PARTS}"

    def settle(self, digest: str, files: Mapping[str, Path]) -> Path:
        """Make a model of its files, by name; all of it appears at once, after it was verified.

        Raises WrongModelError if hanse would not load the model, or if it has another hash, and
        UserError if it cannot be written.
        """
        target = self.folder / digest
        hashes = {name: content_hash(file) for name, file in files.items()}
        with atomic_files.folder(target) as aside:
            aside.chmod(0o700)
            for name, file in files.items():
                if _linked(file, aside / name):
                    keep_hash(aside / name, hashes[name])
            if reason := _damage(aside, digest, vetted=True):
                raise WrongModelError(f"the model that was sent is not used: {reason}")
        shutil.rmtree(self.parts(digest))
        for name in files:  # whose bytes are those that came, or the folder's hash would be another
            keep_hash(target / name, hashes[name])
        log.info("the model %s is complete, in %s", digest[:16], target)
        return target

    def keep_parts(self, digest: str, files: Set[str]) -> None:
        """Remove what has come of a model under other hashes of files than these."""
        folder = self.parts(digest)
        with explained(folder):
            for file in atomic_files.listed(folder):
                if file.stem not in files:
                    log.info("%s is removed: the server does not offer it any more", file)
                    file.unlink()

    def prune(self, used: str, most: int) -> None:
        """Remove what has come of other models beyond `most` bytes, that used last kept first."""
        total = 0
        with explained(self.folder):
            others = [place for place in atomic_files.listed(self.folder) if place.stem != used]
            for place in sorted(others, key=lambda place: -place.stat().st_mtime_ns):
                total += sum(file.stat().st_size for file in place.rglob("*"))
                if total > most:
                    log.info("%s is removed: policy.max_model_gb", place)
                    shutil.rmtree(place)


def _linked(file: Path, name: Path) -> bool:
    """Give a file another name; true if so, and false for a copy, where the disk has no links."""
    try:
        os.link(file, name)
    except OSError:
        shutil.copyfile(file, name)
        name.chmod(atomic_files.PRIVATE)
        return False
    return True


def _damage(folder: Path, digest: str, vetted: bool = False) -> str:
    """A sentence on why a folder is not the model of this hash; empty if it is.

    vetted: whether it is none, too, if hanse would not load it. Raises UserError if the system
    refuses to read the folder.
    """
    atomic_files.listed(folder)  # raises an error, where a pattern would match no file
    try:
        actual = unvetted_hash(folder)
        if vetted:
            vet(folder)
    except OSError as error:
        raise UserError(
            f"{folder} could not be read ({error.strerror or error}); nothing was changed: make it "
            "readable, or remove it, and the server sends it again."
        ) from error
    except UserError as error:
        return str(error)
    return "" if actual == digest else f"its hash is {actual}, and not {digest}."
