"""The plan of a secure sum: how many clients must answer, and which clients share their secrets."""

import random
from collections.abc import Sequence
from dataclasses import dataclass
from math import log10
from typing import Literal

from hanse.errors import UserError
from hanse.federation.secure_sums.ring import Ring, rounded_down, smallest_ring

_SETTING = "aggregator.secagg."
LEAST = 3  # clients; each of two would get the other's update from their sum


@dataclass(frozen=True)
class Plan:
    """The threshold and the graph of a round of secure sums.

    Each client's secrets are split into shares for its `neighbours` and itself; `threshold` of
    these shares rebuild a secret, and a client reveals shares only under a list of survivors that
    it has signed and that `threshold` clients among its neighbours and itself have signed.

    clients: of the round. neighbours: others that a client shares its secrets with, `clients - 1`
    in the complete graph, otherwise even. colluders, dropouts: numbers of clients that the plan
    was made for. security, correctness: the odds that a random graph gives an update away, or
    that a round fails though no more than `dropouts` clients drop out, are 2^-security and
    2^-correctness; both are 0 for the complete graph.
    """

    clients: int
    threshold: int
    neighbours: int
    colluders: int = 0
    dropouts: int = 0
    security: int = 40
    correctness: int = 30

    def __post_init__(self) -> None:
        if not self.complete and self.neighbours % 2:
            raise ValueError("a ring has as many neighbours before a client as after it")

    @property
    def complete(self) -> bool:
        """True if each client shares its secrets with all others."""
        return self.neighbours >= self.clients - 1

    @property
    def tolerated(self) -> int:
        """Drop-outs that a round survives whichever clients they are."""
        return (self.clients if self.complete else self.neighbours) - self.threshold

    @property
    def quorum(self) -> int:
        """Clients that every phase needs, and below which a client refuses to go on.

        On a ring these are all but the drop-outs that it was planned for: among fewer clients the
        colluders' share would be greater.
        """
        return self.threshold if self.complete else self.clients - self.dropouts

    def sentence(self) -> str:
        """One line for the user: who must answer, and what stays hidden from whom."""
        if self.complete:
            colluders = min(2 * self.threshold - self.clients - 1, self.threshold - 2)
            return (
                f"{self.clients} silos, each of which shares its secrets with all others; "
                f"{self.threshold} of {self.clients} must answer in every phase, so "
                f"{self.tolerated} may drop out; the server sees no single update, even with the "
                f"help of {_silos(colluders)}"
            )
        always = max(0, min(2 * self.threshold - self.neighbours, self.threshold) - 2)
        return (
            f"{self.clients} silos, each of which shares its secrets with {self.neighbours} "
            f"others; of each silo and these {self.threshold} must answer in every phase; up to "
            f"{_silos(self.dropouts)} may drop out, and a round then fails with a probability of "
            f"at most {_odds(self.correctness)}; a server that draws the others at random, even "
            f"with the help of {_silos(self.colluders)}, sees a single update with a probability "
            f"of at most {_odds(self.security)}; with the help of at most {_silos(always)} no "
            "server does, however it draws"
        )


def plan(
    clients: int,
    colluders: float,
    dropouts: float,
    security: int = 40,
    correctness: int = 30,
    threshold: int | None = None,
    neighbours: int | Literal["complete"] | None = None,
) -> Plan:
    """The plan with the least threshold, on a ring if half the neighbours are enough.

    colluders, dropouts: shares of the clients, in [0, 1), rounded down to whole clients. The
    colluders help a server that may break the protocol. A given threshold without neighbours
    implies the complete graph.

    Complete graph: the least t with 2t > n + c and t <= n - d (Bonawitz et al. 2017, theorem
    6.5): at most one list of survivors is signed by t clients, and no server gets t shares of both
    secrets of a client. t is 3 at least. Ring: see `ring.Ring`; one drop-out at least is planned
    for.

    Raises UserError if no plan is possible, or if the given threshold or neighbours are not safe.
    """
    if clients < LEAST:
        raise UserError(
            f"a round of secure sums has {_silos(clients)}, and the sum of two silos' updates "
            f"tells each the other's; let at least {LEAST} take part (num_clients, fraction_train)."
        )
    c, d = rounded_down(colluders, clients), rounded_down(dropouts, clients)
    _check_shares(clients, c, d)
    ring = Ring(clients, c, max(1, d), security, correctness)
    if isinstance(neighbours, int) and neighbours < clients - 1:
        degree, t = neighbours, _ring_threshold(ring, neighbours, threshold)
    elif threshold is None and neighbours is None and (found := smallest_ring(ring)):
        degree, t = found
    else:
        t = _complete_threshold(clients, c, d, threshold)
        return Plan(clients, t, clients - 1, c, d, security, correctness)
    return Plan(clients, t, degree, c, ring.dropouts, security, correctness)


def graph(names: Sequence[str], plan: Plan, generator: random.Random) -> dict[str, tuple[str, ...]]:
    """Each client's neighbours, in the order of `names`: all others, or those near it on a ring.

    names: clients that advertised keys, `plan.quorum` at least. generator: the draw of the ring,
    the same at server and clients, from a seed that the server cannot choose: one that tries many
    seeds finds a ring on which colluders surround a client.
    """
    count = len(names)
    if plan.neighbours >= count - 1 or plan.complete:
        return {name: (*names[:i], *names[i + 1 :]) for i, name in enumerate(names)}
    draws = [generator.random() for _ in names]  # unlike `shuffle`, the same in every Python
    ring = sorted(range(count), key=draws.__getitem__)
    half = plan.neighbours // 2
    steps = [*range(-half, 0), *range(1, half + 1)]
    return {
        names[index]: tuple(names[i] for i in sorted(ring[(at + step) % count] for step in steps))
        for at, index in sorted(enumerate(ring), key=lambda place: place[1])
    }


def _silos(count: int, kind: str = "") -> str:
    return f"{count} {kind}{'silo' if count == 1 else 'silos'}"


def _numbers(least: int, most: int) -> str:
    return str(least) if least == most else f"a number from {least} to {most}"


def _odds(bits: int) -> str:
    """The probability 2^-bits of a round in words."""
    return f"2^-{bits}, less than once in 10^{int(bits * log10(2))} rounds"


def _least_threshold(clients: int, c: int) -> int:
    return max(LEAST, (clients + c) // 2 + 1)


def _check_shares(clients: int, c: int, d: int) -> None:
    if clients - c < 2:
        raise UserError(
            f"{c} of {clients} silos collude by {_SETTING}colluders, and they know the others' "
            f"update from the sum; lower {_SETTING}colluders so that two honest silos are left."
        )
    least = _least_threshold(clients, c)
    if least > clients - d:
        raise UserError(
            f"of {clients} silos {c} may collude ({_SETTING}colluders), so {least} must answer, "
            f"but {d} may drop out ({_SETTING}dropouts), which leaves {clients - d}; lower one of "
            "the two, or let more silos take part."
        )


def _complete_threshold(clients: int, c: int, d: int, threshold: int | None) -> int:
    """The threshold of the complete graph: the given one if it is safe, or the least."""
    least, most = _least_threshold(clients, c), clients - d
    if threshold is None or least <= threshold <= most:
        return least if threshold is None else threshold
    given = f"{_SETTING}threshold is {threshold}"
    if threshold > clients:
        raise UserError(
            f"{given}, but only {clients} silos take part; set it to {_numbers(least, most)}."
        )
    if 2 * threshold <= clients:
        raise UserError(
            f"{given}, no majority of {clients} silos, and two halves of the silos could each "
            f"give the server another one of a silo's secrets; set it to {_numbers(least, most)}."
        )
    if 2 * threshold <= clients + c:
        raise UserError(
            f"{given}, but {_silos(c)} of {clients} may collude ({_SETTING}colluders), and with "
            f"their help the server could get both secrets of a silo; set it to at least {least}, "
            f"or lower {_SETTING}colluders."
        )
    if threshold < least:
        raise UserError(
            f"{given}, and the sum of two silos' updates tells each the other's; set it to at "
            f"least {least}."
        )
    raise UserError(
        f"{given}, but {d} of {clients} silos may drop out ({_SETTING}dropouts), which leaves "
        f"{most}; set it to at most {most}, or lower {_SETTING}dropouts."
    )


def _ring_threshold(ring: Ring, neighbours: int, threshold: int | None) -> int:
    """The threshold on a ring of a given degree: the given one if it is safe, or the least."""
    given = f"{_SETTING}neighbours is {neighbours}"
    if neighbours < 2 or neighbours % 2 or neighbours not in ring.degrees:
        raise UserError(
            f"{given}, but {ring.clients} silos form a ring with an even number of neighbours "
            f"from 2 to {max(ring.degrees, default=2)}; set it to such a number, or to complete."
        )
    least, most = ring.thresholds(neighbours)
    if least > most:
        found = smallest_ring(ring)
        enough = f"at least {found[0]}, or to complete" if found else "complete"
        raise UserError(
            f"{given}, too few for {_silos(ring.colluders, 'colluding ')} and {ring.dropouts} "
            f"that drop out of {ring.clients}; set it to {enough}."
        )
    if threshold is not None and not least <= threshold <= most:
        raise UserError(
            f"{_SETTING}threshold is {threshold}, but with {neighbours} neighbours, "
            f"{_silos(ring.colluders, 'colluding ')} and {ring.dropouts} that drop out of "
            f"{ring.clients} it must be from {least} to {most}; set it to such a number, or leave "
            "it out."
        )
    return least if threshold is None else threshold
