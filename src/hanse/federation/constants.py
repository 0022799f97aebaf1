"""Constants: an adapter's untrained tensors, which must be the same on all machines.

An example is LoRA-XS's B and A. Each machine could compute them, but threads and processors round
differently. The server therefore sends its own to each client once, with the first request. Every
request names them by their hash; a client that has lost them says so, and gets them again. Server
and clients keep them on disk, in files named by that hash.
"""

import hashlib
from dataclasses import dataclass, field
from pathlib import Path

from hanse import atomic_files
from hanse.errors import UserError
from hanse.tensors.named import Tensors, digest, shapes
from hanse.tensors.serialization import MessageError, pack, unpack

KIND = "constants"
FOLDER = "constants"  # in a run's folder, and in the folder of its clients' memories
MOST = 8  # of one machine's clients; a run has one, and a client that lacks it gets it again


@dataclass(frozen=True)
class Constants:
    """An adapter's constants and their hash; the hash is empty if the adapter has none."""

    tensors: Tensors = field(default_factory=dict)
    digest: str = ""

    @staticmethod
    def of(tensors: Tensors) -> "Constants":
        """These tensors with their hash, which covers names, shapes, dtypes and values."""
        text = f"{shapes(tensors)} {digest(tensors)}"
        return Constants(tensors, hashlib.sha256(text.encode()).hexdigest() if tensors else "")


@dataclass(frozen=True)
class ConstantStore:
    """Constants on disk, in files named by their hash; the clients of one machine share a store.

    most: how many of the newest are kept; None: all. A store with a bound is a client's, and only
        its owner may read it.
    """

    folder: Path
    most: int | None = None

    def keep(self, constants: Constants) -> None:
        """Write constants to disk, unless they are empty or exist there."""
        file = self._file(constants.digest)
        if constants.digest and not file.exists():
            header = {"message": KIND, "kind": KIND}
            private = self.most is not None
            atomic_files.write(file, pack(header, {}, {KIND: constants.tensors}), private=private)
            for old in self._oldest_first()[: -self.most] if self.most else []:
                old.unlink(missing_ok=True)

    def _oldest_first(self) -> list[Path]:
        files = [file for file in atomic_files.listed(self.folder) if file.suffix == ".safetensors"]
        return sorted(files, key=lambda file: file.stat().st_mtime_ns)

    def find(self, digest: str) -> Constants | None:
        """The constants with this hash; None if there are none. A damaged file is removed."""
        file = self._file(digest)
        if (data := atomic_files.read(file)) is None:
            return None
        try:
            constants = Constants.of(unpack(data, KIND)[2].get(KIND, {}))
        except MessageError:
            constants = Constants()
        if constants.digest == digest:
            return constants
        file.unlink()
        return None

    def read(self, digest: str) -> Constants:
        """The same; raises UserError if there are none."""
        constants = self.find(digest) if digest else Constants()
        if constants is None:
            raise UserError(
                f"{self._file(digest)} is missing or damaged; it holds the adapter's untrained "
                "tensors. Bring it back from a copy, or begin a new run."
            )
        return constants

    def _file(self, digest: str) -> Path:
        return self.folder / f"{digest}.safetensors"
