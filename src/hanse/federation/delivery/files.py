"""Files that every client is sent once, before it trains: a model, a codec's weights.

The server's halves of the parts write them before round 1, and the run's folder keeps them. A
request of the kind `prepare` offers all of them, each with its hash and size, and may bring one
chunk of one of them. The client replies how many bytes of each it has, so that both sides go on
from there after an interruption. A file is never executed or unpickled.
"""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from hanse import atomic_files
from hanse.content_hash import content_hash
from hanse.errors import UserError
from hanse.federation.messages import (
    FILE_NAME,
    MOST_FILES,
    PREPARE,
    Instruction,
    Request,
    Update,
    validate_update,
)
from hanse.tensors import json_text
from hanse.tensors.named import Layout
from hanse.tensors.serialization import MessageError, whole_number

FOLDER = "files"  # in a run's folder, and in the folder of a machine's clients
MANIFEST = "files.json"
BEFORE_ROUNDS = 0  # the round of requests that bring a model, which a client needs to join
# Bytes of a file in one request. Flower takes three to four seconds for a message of any size, and
# each side holds a message in memory up to four times: encoded, decoded, and in its envelope.
CHUNK = 16 * 2**20
OFFSET = "#offset"  # the number that says where a chunk begins; no file has such a name
HELD = "held"  # the tensor of a reply: how many bytes of each file the client has


@dataclass(frozen=True)
class OfferedFile:
    """A file as the server announces it."""

    name: str
    digest: str
    size: int


@dataclass(frozen=True)
class PreparedFile(OfferedFile):
    """A file of a run on the server's disk."""

    path: Path

    def chunk(self, offset: int) -> Tensor:
        """The bytes from `offset` on, at most CHUNK of them; the rest is not read."""
        data = bytearray(min(CHUNK, self.size - offset))
        with open(self.path, "rb") as file:
            file.seek(offset)
            if file.readinto(data) != len(data):
                raise UserError(f"{self.path} has become shorter; bring it back from a copy.")
        return torch.frombuffer(data, dtype=torch.uint8)


@dataclass(frozen=True)
class RunFiles:
    """The files of one run, sorted by name."""

    files: tuple[PreparedFile, ...] = ()

    @staticmethod
    def on_disk(paths: Mapping[str, Path]) -> "RunFiles":
        """Files that lie on this disk already, by name, such as those of a model."""
        return RunFiles(
            tuple(
                PreparedFile(name, content_hash(path), path.stat().st_size, path)
                for name, path in sorted(paths.items())
            )
        )

    @property
    def size(self) -> int:
        """The bytes of all files."""
        return sum(file.size for file in self.files)

    @property
    def hashes(self) -> dict[str, str]:
        """The hash of each file, by name."""
        return {file.name: file.digest for file in self.files}

    @property
    def paths(self) -> dict[str, Path]:
        """The path of each file, by name."""
        return {file.name: file.path for file in self.files}

    @property
    def chunks(self) -> int:
        """The number of chunks of all files."""
        return sum(-(-file.size // CHUNK) for file in self.files)

    @property
    def layout(self) -> Layout:
        """The layout of a reply to `offer` or `part`."""
        return {HELD: torch.empty(len(self.files), dtype=torch.int64, device="meta")}

    def held(self, update: Update) -> list[int]:
        """The bytes of each file that a client has; raises MessageError for an odd reply."""
        validate_update(update, self.layout)
        held: list[int] = update.tensors[HELD].tolist()
        for file, length in zip(self.files, held, strict=True):
            if not 0 <= length <= file.size:
                raise MessageError(f"it has {length:,} of {file.size:,} bytes of {file.name}")
        return held

    def missing(self, held: Sequence[int]) -> PreparedFile | None:
        """The first file that a client lacks, or lacks a part of; None if it has all."""
        pairs = zip(self.files, held, strict=True)
        return next((file for file, length in pairs if length < file.size), None)

    def offer(self, round: int) -> Request:
        """The request that announces all files and asks which bytes of them the client has."""
        sizes = {file.name: float(file.size) for file in self.files}
        return Request(PREPARE, round, instruction=Instruction({}, sizes), files=self.hashes)

    def part(self, round: int, file: PreparedFile, offset: int) -> Request:
        """The same request with the chunk of one file that begins at `offset`."""
        sizes = {other.name: float(other.size) for other in self.files}
        numbers = {**sizes, OFFSET: float(offset)}
        instruction = Instruction({file.name: file.chunk(offset)}, numbers)
        return Request(PREPARE, round, instruction=instruction, files=self.hashes)


def offered(request: Request) -> list[OfferedFile]:
    """The files that a request announces, sorted by name; raises UserError for odd sizes."""
    numbers = dict(request.instruction.numbers)
    numbers.pop(OFFSET, None)
    if numbers.keys() != request.files.keys() or not request.files:
        raise UserError("the server offers files without a size each, or sizes without files.")
    files = [
        OfferedFile(name, digest, _whole(numbers, name))
        for name, digest in sorted(request.files.items())
    ]
    for file in files:
        if not file.size:
            raise UserError(f"the server offers the file {file.name}, which is empty.")
    if len({(file.digest, file.size) for file in files}) > len({file.digest for file in files}):
        raise UserError("the server offers one file with two sizes.")
    return files


@dataclass(frozen=True)
class Chunk:
    """A part of a file that begins at the byte `offset`."""

    file: OfferedFile
    offset: int
    data: Tensor


def chunk(request: Request, files: list[OfferedFile]) -> Chunk | None:
    """The chunk in a request that offers these files; None if it has none.

    Raises UserError for anything else than one chunk of bytes of an offered file.
    """
    tensors, numbers = request.instruction.tensors, request.instruction.numbers
    if not tensors and OFFSET not in numbers:
        return None
    by_name = {file.name: file for file in files}
    if len(tensors) != 1 or not tensors.keys() <= by_name.keys():
        raise UserError("the server sent bytes that are no chunk of one file that it offers.")
    [(name, data)] = tensors.items()
    if data.dtype != torch.uint8 or data.dim() != 1 or not 0 < len(data) <= CHUNK:
        raise UserError(f"the server sent a chunk of {name} that is not 1 to {CHUNK:,} bytes.")
    return Chunk(by_name[name], _whole(numbers, OFFSET), data)


def _whole(numbers: Mapping[str, float], name: str) -> int:
    try:
        return whole_number(numbers, name)
    except MessageError as error:
        raise UserError(f"the server offers files with an odd number: {error}.") from None


Prepare = Callable[[Path], Mapping[str, Path]]


def prepare(run_folder: Path, make: Prepare) -> RunFiles:
    """The run's files: those that an earlier process of the server made, or else new ones.

    make: writes files into a folder and returns them by name. All of them, with their hashes,
        appear in the run's folder at once.
    """
    if not (run_folder / FOLDER).exists():
        with atomic_files.folder(run_folder / FOLDER) as folder:
            _write_manifest(folder, make(folder))
    return read(run_folder)


def read(run_folder: Path) -> RunFiles:
    """The run's files; raises UserError if one is missing or is not what its hash says."""
    folder = run_folder / FOLDER
    try:
        manifest: Any = json_text.parse(atomic_files.read(folder / MANIFEST) or b"")
        files = [
            PreparedFile(name, entry["sha256"], entry["size"], folder / entry["path"])
            for name, entry in sorted(manifest.items())
        ]
    except (ValueError, AttributeError, KeyError, TypeError, RecursionError):
        raise _damaged(folder / MANIFEST) from None
    for file in files:
        if not file.path.is_file() or content_hash(file.path) != file.digest:
            raise _damaged(file.path)
    return RunFiles(tuple(files))


def _damaged(path: Path) -> UserError:
    return UserError(
        f"{path} is missing or damaged, and the clients of this run need it; bring it back from a "
        "copy, or begin a new run."
    )


def _write_manifest(folder: Path, files: Mapping[str, Path]) -> None:
    """Write names, hashes and sizes of files below `folder` beside them.

    Raises UserError for files that cannot be sent.
    """
    if len(files) > MOST_FILES:
        raise UserError(f"there are {len(files)} files to be sent, and {MOST_FILES} may be.")
    manifest = {}
    for name, path in files.items():
        _refuse_unfit(folder, name, path)
        place = str(path.resolve().relative_to(folder.resolve()))
        manifest[name] = {
            "sha256": content_hash(path),
            "size": path.stat().st_size,
            "path": place,
        }
    atomic_files.write(folder / MANIFEST, json.dumps(manifest, indent=2).encode())


def _refuse_unfit(folder: Path, name: str, path: Path) -> None:
    """Raise UserError unless a file can be sent under this name."""
    if not FILE_NAME.fullmatch(name):
        raise UserError(
            f"a file to be sent is named {name!r:.80}; a name has up to 100 letters, digits, _, - "
            "and dots."
        )
    if not path.is_file() or not path.resolve().is_relative_to(folder.resolve()):
        raise UserError(f"the file {name} to be sent is {path}, which is no file in {folder}.")
    if not path.stat().st_size:
        raise UserError(f"the file {name} to be sent is empty; leave it out.")
