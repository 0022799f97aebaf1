"""Codes of levels at unequal distances, such as NF4's, without a search for each number."""

import torch
from torch import Tensor

CELLS = 64  # equal parts of -1 to 1, none of which has two edges


class UnevenLevels:
    """Ascending levels from -1 to 1, more than 1/32 apart."""

    def __init__(self, levels: Tensor) -> None:
        self._levels = levels
        self._gaps = torch.cat([levels.diff(), torch.zeros(1)])
        self._midpoints = _Edges((levels[1:] + levels[:-1]) / 2)
        self._steps = _Edges(levels[1:])

    def codes(self, numbers: Tensor, draws: torch.Generator | None = None) -> Tensor:
        """The index of the nearest level of each number from -1 to 1, as uint8.

        With draws it is that of one of the two nearest levels, whose mean over draws is exact.
        """
        if draws is None:
            return self._midpoints.reached(numbers)
        below = self._steps.reached(numbers)
        index = below.flatten().int()
        above = numbers - self._levels.index_select(0, index).view_as(numbers)
        gaps = self._gaps.index_select(0, index).view_as(numbers)
        return below + (above > gaps * torch.rand(numbers.shape, generator=draws))


class _Edges:
    """Ascending edges between -1 and 1, at most one in each cell."""

    def __init__(self, edges: Tensor) -> None:
        cells = _cells(edges)
        if bool((cells.diff() == 0).any()):
            raise ValueError(f"two edges are within {2 / CELLS} of each other")
        self._lower = (cells < torch.arange(CELLS + 1)[:, None]).sum(dim=1).to(torch.uint8)
        self._edge = torch.full((CELLS + 1,), torch.inf).index_copy(0, cells.long(), edges)

    def reached(self, numbers: Tensor) -> Tensor:
        """The number of edges ≤ each number, as uint8; exact, since cells ascend with numbers."""
        cells = _cells(numbers).flatten()
        edge = self._edge.index_select(0, cells).view_as(numbers)
        return self._lower.index_select(0, cells).view_as(numbers) + (numbers >= edge)


def _cells(numbers: Tensor) -> Tensor:
    """The cell of each number from -1 to 1, from 0 to CELLS."""
    return ((numbers + 1) * (CELLS / 2)).int()
