"""The ring of a secure sum among many clients: fewest neighbours that keep it safe."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from fractions import Fraction
from functools import lru_cache
from math import inf, lgamma, log, log2

_SLACK = 1e-6  # bits; far above the rounding of logarithms of factorials


@dataclass(frozen=True)
class Ring:
    """Conditions on degree and threshold of a ring against a server that breaks the protocol.

    The m >= clients - dropouts clients that advertise keys stand in a random order, and each
    shares its secrets with itself and its k neighbours, the k/2 before and after it. A client
    reveals shares under a list of survivors that it and t - 1 neighbours have signed. The server
    may send each client another list, drop whom it likes, and knows what the colluders know. With
    n clients, a threshold t is safe but for a probability of 2^-security over the order, half of
    it for 1 and half for 2. A round fails with 2^-correctness at most, if no more than `dropouts`
    clients drop out and they don't depend on the order.

    1. No secret pair: X colluders among a client's k neighbours give shares of both its secrets,
       the other holders of one, so n·P[2t <= k + 1 + X] <= 2^-security / 2.
    2. No cut, by which the server learns the sum of a piece of the ring: at its ends the next k/2
       clients are colluders or dropped, so t shares of the last client's secret take t - k/2 - 1
       colluders there. Over the pairs of disjoint blocks of k/2 clients:
       m²/2·P[colluders in both >= t - k/2 - 1] <= 2^-security / 2, where P is at most the square
       of the probability for one block (the two are negatively associated), and at most that
       of twice as many in k clients.
    3. Enough answers: n·P[survivors among k neighbours < t] <= 2^-correctness.

    The graph is that of SecAgg+ (Bell et al. 2020, section 3), whose server sends one list.
    """

    clients: int
    colluders: int
    dropouts: int
    security: int
    correctness: int

    @property
    def degrees(self) -> range:
        """The even degrees of a ring that stays short of the complete graph after drop-outs."""
        return range(2, self.clients - self.dropouts - 1, 2)

    def safe(self, k: int, t: int) -> bool:
        """True if conditions 1 and 2 hold; with a greater t they hold too."""
        return max(self.log_pair(k, t), self.log_cut(k, t)) <= -self.security - 1

    def log_pair(self, k: int, t: int) -> float:
        """log2 of the bound in condition 1."""
        others = self.clients - self.dropouts - 1
        return log2(self.clients) + log_tail(others, self.colluders, k, max(0, 2 * t - k - 1))

    def log_cut(self, k: int, t: int) -> float:
        """log2 of the bound in condition 2."""
        m, half = self.clients - self.dropouts, k // 2
        end = max(0, t - half - 1)
        one, both = (log_tail(m, self.colluders, half * i, end * i) for i in (1, 2))
        return 2 * log2(m) - 1 + min(2 * one, both)

    def answered(self, k: int, t: int) -> bool:
        """True if condition 3 holds; with a smaller t it holds too."""
        return _answered(self.clients, self.dropouts, self.correctness)(k, t)

    def thresholds(self, k: int) -> tuple[int, int]:
        """The least and the greatest safe threshold; none is safe if the least is above it."""
        least = next(t for t in range(1, k + 3) if self.safe(k, t) or t == k + 2)
        most = next(t for t in range(k, -1, -1) if self.answered(k, t))
        return least, most


@lru_cache(maxsize=64)
def smallest_ring(ring: Ring) -> tuple[int, int] | None:
    """The least degree for which a threshold is safe, and the least such threshold.

    None if that takes more than half of the others: such a ring would save little, and survives
    fewer drop-outs than the complete graph, which asks for no luck at all.
    """
    degrees = ring.degrees[: (ring.clients - 1) // 4]
    return _search(degrees, ring.safe, ring.answered)


def least_neighbours(
    clients: int,
    colluders: float,
    dropouts: float,
    security: int = 40,
    correctness: int = 30,
    equivocation: bool = True,
) -> int:
    """The least number of neighbours that is safe; `clients - 1` where no graph saves any.

    colluders, dropouts: shares of the clients, rounded down; a ring is planned for one drop-out at
    least.

    equivocation=True: the conditions of Ring. equivocation=False: those of SecAgg+ (Bell et al.
    2020, section 3), against a server that sends one list to all: for k neighbours drawn among
    n - 1 others, odd k too, n·P[colluders among k >= t] <= 2^-security and
    n·P[survivors among k < t] <= 2^-correctness for some t. With a fifth colluding, a twentieth
    dropping out, 2^-40 and 2^-30 these give 8, 24, 57 and 67 at n = 32, 100, 1,000 and 10,000;
    without the factors n they would give 8, 23, 45 and 48.
    """
    c, d = rounded_down(colluders, clients), rounded_down(dropouts, clients)
    if equivocation:
        found = smallest_ring(Ring(clients, c, max(1, d), security, correctness))
    else:
        limit = -security - log2(clients)
        found = _search(
            range(1, clients - 1),
            lambda k, t: log_tail(clients - 1, c, k, t) <= limit,
            _answered(clients, d, correctness),
        )
    return found[0] if found else clients - 1


def rounded_down(share: float, clients: int) -> int:
    """The share of the clients in whole clients: 0.29 of 100 are 29, though 0.29 * 100 < 29."""
    return int(Fraction(share).limit_denominator(1_000_000) * clients)


def log_tail(population: int, marked: int, drawn: int, least: int) -> float:
    """An upper bound of log2 P[X >= least], tight to 2e-6 bits above the mean of X.

    X: the marked ones among `drawn` of the population, of which `marked` are marked
    (hypergeometric). -inf if X cannot be that great, 0 if `least` is not above the mean. Summed in
    logarithms: no probability is too small to be told from zero.
    """
    most = min(marked, drawn)
    if least > most:
        return -inf
    if least * population <= marked * drawn:
        return 0.0
    others = population - marked - drawn
    term = total = 1.0  # in units of P[X = least]; terms fall from there on, ever faster
    for i in range(least, most):
        ratio = (marked - i) * (drawn - i) / ((i + 1) * (others + i + 1))
        rest = term * ratio / (1 - ratio)  # at least the sum of all further terms
        if rest < 1e-7 * total:
            total += rest
            break
        term *= ratio
        total += term
    first = (
        _log_choose(marked, least)
        + _log_choose(population - marked, drawn - least)
        - _log_choose(population, drawn)
    )
    return min(0.0, first + log2(total) + _SLACK)


def _log_choose(n: int, k: int) -> float:
    return (lgamma(n + 1) - lgamma(k + 1) - lgamma(n - k + 1)) / log(2)


def _answered(clients: int, dropouts: int, correctness: int) -> Callable[[int, int], bool]:
    """The test that of a client's k neighbours t survive, but for n·2^-correctness."""
    limit = -correctness - log2(clients)
    return lambda k, t: log_tail(clients - 1, dropouts, k, k - t + 1) <= limit


def _search(
    degrees: Iterable[int], safe: Callable[[int, int], bool], answered: Callable[[int, int], bool]
) -> tuple[int, int] | None:
    """The first degree with a threshold that meets both tests, and the least such threshold.

    The least safe and the greatest answered threshold never fall from a degree to a greater one,
    so the search goes on from those of the degree before.
    """
    least, most = 1, 0
    for k in degrees:
        while not safe(k, least):
            least += 1
        while most < k and answered(k, most + 1):
            most += 1
        if least <= most:
            return k, least
    return None
