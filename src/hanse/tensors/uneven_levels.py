"""Codes of levels at unequal distances, such as NF4's, without a search for each number."""

import torch
from torch import Tensor

# The sixteen levels of NF4 (Dettmers et al. 2023, 2305.14314, appendix E).
NF4_LEVELS = torch.tensor(
    [
        *(-1.0, -0.6961928009986877, -0.5250730514526367, -0.39491748809814453),
        *(-0.28444138169288635, -0.18477343022823334, -0.09105003625154495, 0.0),
        *(0.07958029955625534, 0.16093020141124725, 0.24611230194568634, 0.33791524171829224),
        *(0.44070982933044434, 0.5626170039176941, 0.7229568362236023, 1.0),
    ]
)
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
