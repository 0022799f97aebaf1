"""Standard output that reports in one sentence why it cannot be written."""

import io
import os
import sys

from hanse.errors import UserError

UNREAD = 141  # the exit code of a command that SIGPIPE ends


class UnreadError(UserError):
    """Nobody reads the output any more, as after `| head`; the command ends silently."""

    code = UNREAD


class Output(io.TextIOWrapper):
    """A stream to the same file as another stream.

    Characters that its encoding lacks are written as escapes.
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
        """Write the buffer; raises UserError if it cannot be written."""
        try:
            super().flush()
        except OSError as error:
            raise self._lost(error) from None

    def _lost(self, error: OSError) -> UserError:
        """Drop all further output, and return the error to raise."""
        os.dup2(os.open(os.devnull, os.O_WRONLY), self.fileno())
        if isinstance(error, BrokenPipeError):
            return UnreadError()
        return UserError(
            f"the command's output could not be written ({error.strerror}); mend that."
        )


def guard() -> None:
    """Replace this process's standard output by such a stream."""
    if type(sys.stdout) is io.TextIOWrapper:  # not a stream that a test has put there
        sys.stdout.flush()
        sys.stdout = Output(sys.stdout)
