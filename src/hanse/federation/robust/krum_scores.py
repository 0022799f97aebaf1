"""Krum's scores (Blanchard et al. 2017), from which Krum and Bulyan choose updates."""

from torch import Tensor


def ranked(distances: Tensor, attackers: int) -> list[int]:
    """The places of n updates, the one with the lowest score first.

    distances: (n, n) squared. A score is the sum of the n − f − 2 smallest distances to others, of
    one at least. Two updates that are each other's nearest may have the same score; then that with
    the smaller sum of all distances comes first, so that the order of clients decides nothing.
    """
    n = len(distances)
    nearest = max(1, n - attackers - 2)
    ordered = distances.sort(dim=1).values  # the first one is the distance to itself
    scores, totals = ordered[:, 1 : 1 + nearest].sum(dim=1).tolist(), ordered.sum(dim=1).tolist()
    return sorted(range(n), key=lambda place: (scores[place], totals[place]))


def chosen(distances: Tensor, attackers: int, number: int) -> list[int]:
    """The places of updates that are chosen one after another, each by the scores of what is left.

    distances: (n, n) squared.
    """
    left = list(range(len(distances)))
    places = []
    for _ in range(number):
        best = ranked(distances[left][:, left], attackers)[0]
        places.append(left.pop(best))
    return places
