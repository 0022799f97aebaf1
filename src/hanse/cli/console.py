"""The console on which commands print: what it shows may come from anywhere."""

from collections.abc import Iterable, Iterator
from typing import Any

from rich.console import Console, ConsoleOptions, RenderableType
from rich.segment import Segment

from hanse.errors import cleaned

USUAL, LEAST = 80, 20  # columns: where fewer are named, and the fewest that are taken


class Screen(Console):
    """A console of rich's that writes no control character but its own.

    Rows, labels, answers and names of files are shown as they are; an escape code in one of them
    could erase or forge what stands above, or change the terminal.
    """

    def __init__(self, **settings: Any) -> None:
        super().__init__(**settings)
        if self.width < LEAST:  # by COLUMNS
            self.width = USUAL

    def render(
        self, renderable: RenderableType, options: ConsoleOptions | None = None
    ) -> Iterable[Segment]:
        """The pieces of text that show something, cleaned."""
        return self._cleaned(super().render(renderable, options))

    @staticmethod
    def _cleaned(segments: Iterable[Segment]) -> Iterator[Segment]:
        for segment in segments:
            if segment.control:
                yield segment
            else:
                yield segment._replace(text=cleaned(segment.text, most=None, lines=True))
