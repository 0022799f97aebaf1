"""The console on which commands print texts from any source."""

import os
import textwrap
from collections.abc import Iterable, Iterator
from typing import Any

from rich.console import Console, ConsoleOptions, RenderableType
from rich.segment import Segment

from hanse.errors import cleaned

USUAL, LEAST = 80, 20  # columns: the default, and the fewest that COLUMNS may name


class Screen(Console):
    """A rich console that writes no control characters of the texts that it shows.

    Rows, labels, answers and file names come from others; an escape code in them could erase or
    forge the lines above, or change the terminal.
    """

    def __init__(self, **settings: Any) -> None:
        super().__init__(**settings)
        if self.width < LEAST:  # by COLUMNS
            self.width = USUAL

    @property
    def wraps(self) -> bool:
        """True if lines are as wide as a terminal; a pipe has one line for each sentence."""
        return self.is_terminal or "COLUMNS" in os.environ

    def tell(self, text: str, indent: int = 0) -> None:
        """Print a text without cutting words; `indent` spaces begin its further lines."""
        if self.wraps:
            text = textwrap.fill(
                text,
                self.width,
                subsequent_indent=" " * indent,
                break_long_words=False,
                break_on_hyphens=False,
            )
        self.print(text, soft_wrap=True)

    def render(
        self, renderable: RenderableType, options: ConsoleOptions | None = None
    ) -> Iterable[Segment]:
        """The segments of a renderable, without control characters in their texts."""
        return self._cleaned(super().render(renderable, options))

    @staticmethod
    def _cleaned(segments: Iterable[Segment]) -> Iterator[Segment]:
        for segment in segments:
            if segment.control:
                yield segment
            else:
                yield segment._replace(text=cleaned(segment.text, most=None, lines=True))
