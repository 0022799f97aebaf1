"""Named tensors that are made when they are asked for, and not kept."""

from collections.abc import Callable, Iterable, Iterator, Mapping

from torch import Tensor


class Lazy(Mapping[str, Tensor]):
    """Named tensors, each made by `make(name)` every time that it is asked for.

    A loop over them has one tensor in memory at a time. `dict(lazy)` makes and keeps all of them.
    """

    def __init__(self, names: Iterable[str], make: Callable[[str], Tensor]) -> None:
        self._names, self._make = dict.fromkeys(names), make

    def __getitem__(self, name: str) -> Tensor:
        if name not in self._names:
            raise KeyError(name)
        return self._make(name)

    def __contains__(self, name: object) -> bool:
        return name in self._names

    def __iter__(self) -> Iterator[str]:
        return iter(self._names)

    def __len__(self) -> int:
        return len(self._names)


def map_each(function: Callable[[Tensor], Tensor], tensors: Mapping[str, Tensor]) -> Lazy:
    """The results of `function`, each computed when it is asked for."""
    return Lazy(tensors, lambda name: function(tensors[name]))
