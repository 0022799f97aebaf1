"""Standard output that says in a sentence why it cannot be written."""

import io
import os
import sys

from hanse.errors import UserError

UNREAD = 141  # the exit code of a command that SIGPIPE has ended


class UnreadError(UserError):
    """Nobody reads on, as after `| head`: the command ends without a word."""

    code = UNREAD


class Output(io.TextIOWrapper):
    """A stream to the same place as another one.

    Signs that its encoding does not have are written as escapes.
    """

    def __init__(self, other: io.TextIOWrapper) -> None:
        raw = io.FileIO(other.fileno(), "wb", closefd=False)
        by_line = other.line_buffering
        super().__init__(
            io.BufferedWriter(raw), other.encoding, "backslashreplace", line_buffering=by_line
        )

    def write(self, text: str) -> int:
        """Write a text; raises UserError if it cannot be written."""
        try:
            return super().write(text)
        except OSError as error:
            raise self._lost(error) from None

    def flush(self) -> None:
        """Write what waits; raises UserError if it cannot be written."""
        try:
            super().flush()
        except OSError as error:
            raise self._lost(error) from None

    def _lost(self, error: OSError) -> UserError:
        """The sentence; all that is printed from now on is dropped."""
        os.dup2(os.open(os.devnull, os.O_WRONLY), self.fileno())
        if isinstance(error, BrokenPipeError):
            return UnreadError()
        return UserError(f"what the command prints could not be written: {error.strerror}.")


def guard() -> None:
    """Let what this process prints from now on go through such a stream."""
    if type(sys.stdout) is io.TextIOWrapper:  # and nothing that a test has put there
        sys.stdout.flush()
        sys.stdout = Output(sys.stdout)
