"""Messages that wait on disk until their turn comes."""

import tempfile
from types import TracebackType


class Spool:
    """Messages in a file without a name: nobody else can open it, and it ends with this process.

    A message's place is not reused, so the file grows to the size of all messages together.
    """

    def __init__(self) -> None:
        self._file = tempfile.TemporaryFile()  # noqa: SIM115 (closed by __exit__)
        self._places: dict[str, tuple[int, int]] = {}  # start and length

    def __enter__(self) -> "Spool":
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        at: TracebackType | None,
    ) -> None:
        self._file.close()

    def __contains__(self, name: str) -> bool:
        return name in self._places

    def put(self, name: str, message: bytes) -> None:
        """Keep a message under a name; raises ValueError if the name is taken."""
        if name in self._places:
            raise ValueError(f"{name} waits already")
        start = self._file.seek(0, 2)
        self._file.write(message)
        self._places[name] = (start, len(message))

    def take(self, name: str) -> bytes:
        """The message of that name, which becomes free; raises KeyError if there is none."""
        start, length = self._places.pop(name)
        self._file.seek(start)
        return self._file.read(length)
