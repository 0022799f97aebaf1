"""Constants: tensors of an adapter that nobody trains, and that all machines must have alike.

LoRA-XS's B and A are such. Each machine could compute them, but threads and processors round
differently. So the server's are sent to each client once, with the first request to it. Every
request names them by their hash, and a client that no longer has them says so, and is sent them
again. Both sides keep them on disk, in files named by that hash.
"""

import hashlib
from dataclasses import dataclass, field
from pathlib import Path

from hanse import atomic_files
from hanse.errors import UserError
from hanse.tensors.named import Tensors, digest, shapes
from hanse.tensors.serialization import MessageError, pack, unpack

KIND = "constants"
FOLDER = "constants"  # below a run's folder, and below its clients' memories
MOST = 8  # of a machine's clients; a run has one, and whoever lacks it is sent it again


@dataclass(frozen=True)
class Constants:
    """An adapter's constants and their hash, which is empty if it has none."""

    tensors: Tensors = field(default_factory=dict)
    digest: str = ""

    @staticmethod
    def of(tensors: Tensors) -> "Constants":
        """These tensors and their hash, which other shapes or types of the same bytes change."""
        told = f"{shapes(tensors)} {digest(tensors)}"
        return Constants(tensors, hashlib.sha256(told.encode()).hexdigest() if tensors else "")


@dataclass(frozen=True)
class ConstantStore:
    """Constants on disk, each in a file that is named by its hash; a machine's clients share it.

    most: how many are kept, the newest; None: all. A store with a bound is a client's, and only its
        owner may read it.
    """

    folder: Path
    most: int | None = None

    def keep(self, constants: Constants) -> None:
        """Write constants down, unless there are none or they are there already."""
        file = self._file(constants.digest)
        if constants.digest and not file.exists():
            header = {"message": KIND, "kind": KIND}
            private = self.most is not None
            atomic_files.write(file, pack(header, {}, {KIND: constants.tensors}), private=private)
            for left in self._oldest_first()[: -self.most] if self.most else []:
                left.unlink(missing_ok=True)

    def _oldest_first(self) -> list[Path]:
        files = [file for file in atomic_files.listed(self.folder) if file.suffix == ".safetensors"]
        return sorted(files, key=lambda file: file.stat().st_mtime_ns)

    def find(self, wanted: str) -> Constants | None:
        """The constants with this hash; None if they are not there. A damaged file is removed."""
        file = self._file(wanted)
        if not file.exists():
            return None
        with atomic_files.explained(file):
            data = file.read_bytes()
        try:
            found = Constants.of(unpack(data, KIND)[2].get(KIND, {}))
        except MessageError:
            found = Constants()
        if found.digest == wanted:
            return found
        file.unlink()
        return None

    def read(self, wanted: str) -> Constants:
        """The same; raises UserError if they are not there."""
        found = self.find(wanted) if wanted else Constants()
        if found is None:
            raise UserError(
                f"{self._file(wanted)} is missing or damaged, which holds what the adapter has "
                "beside its trained tensors; bring it back from a copy, or begin a new run."
            )
        return found

    def _file(self, wanted: str) -> Path:
        return self.folder / f"{wanted}.safetensors"
