"""An emulator at a silo: the whole model that it was made of may be on this machine already."""

import contextlib
from collections.abc import Iterator
from pathlib import Path

from hanse.deployment.silo.settings import SiloSettings
from hanse.errors import UserError
from hanse.learners.models import model_files
from hanse.learners.models.emulators import record
from hanse.learners.models.emulators.record import EmulatorRecord
from hanse.learners.models.model_hash import hash_of


def is_here(name: str) -> bool:
    """True if the files of the model of this name are on this machine, in a folder or as GGUF."""
    with contextlib.suppress(UserError):
        return model_files.gguf(name) is not None or Path(name).is_dir()
    return False


def whole_model_remark(silo: SiloSettings, delivered: Path, emulator: EmulatorRecord) -> str:
    """A sentence if a silo has the model that an emulator was made of; "" if it knows of none.

    delivered: the folder of the models that servers have sent. The same model in other files, such
    as those of another precision, has another hash and is not noticed.
    """
    place = next(_places(silo, delivered, emulator.source.sha256), "")
    return place and (
        f"{silo.name} knows the whole model that this emulator was made of ({place}; its hash is "
        f"source.sha256 of {record.FILE}), so offsite tuning hides nothing from it; ask the "
        "server's administrator to train the model itself, such as with fedavg, or set "
        "policy.emulators to refuse if you want no part in this"
    )


def _places(silo: SiloSettings, delivered: Path, digest: str) -> Iterator[str]:
    """The places where a silo has the model of a hash, or names the hash, quick ones first."""
    if digest in silo.policy.models:
        yield "policy.models lists its hash"
    if (delivered / digest).is_dir():
        yield f"a server has sent it, into {delivered / digest}"
    own = {"model": silo.model, **{f"models.{name}": path for name, path in silo.models.items()}}
    packages = [("an installed package", name) for name in model_files.PACKAGED]
    for setting, path in [*own.items(), *packages]:
        with contextlib.suppress(UserError, OSError):  # one that cannot be read is no copy
            if path is not None and hash_of(path) == digest:
                yield f"{setting}: {path}"
