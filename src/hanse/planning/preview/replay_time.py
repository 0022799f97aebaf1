"""The time of replays in a run that trains a whole model along random directions.

A client that trains first sets the weights to the server's model, which takes one direction for
each amount that is not 0. The first instruction has no such amount, so no probe shows this time.
"""

import time

from hanse.experiment.assembly.assemble import Simulation
from hanse.federation.exchange.round import RoundExchange
from hanse.federation.interfaces.whole_model import WholeModel
from hanse.tensors import directions

TIMED = 2  # directions of the timed replay


def replay_seconds(simulation: Simulation, exchange: RoundExchange, clients: int) -> float:
    """The seconds of all replays in a run; 0 for a method that trains an adapter.

    clients: of a round. Each replays the server's model once; its evaluation leaves the replayed
    weights to the first client. The model after the last round is replayed once, to be scored.
    """
    if not exchange.algorithm.whole_model:
        return 0.0
    whole = simulation.learner.whole_model
    [change, *_] = (instruction.tensors for instruction in exchange.instructions.values())
    seeds, rounds = len(change[directions.AMOUNTS]), simulation.experiment.rounds
    amounts = [_distinct(seeds, clients * whole.steps * round) for round in range(rounds + 1)]
    return (clients * sum(amounts[:-1]) + amounts[-1]) * _seconds_each(whole)


def _distinct(seeds: int, steps: int) -> float:
    """The mean number of different seeds that so many steps draw: K·(1 − (1 − 1/K)^steps)."""
    return float(seeds * (1 - (1 - 1 / seeds) ** steps))


def _seconds_each(whole: WholeModel) -> float:
    """The seconds for each direction that is added to the weights, which are then restored."""
    weights, amounts = whole.weights(), dict.fromkeys(range(TIMED), 1e-9)
    begin = time.perf_counter()
    directions.add(weights, 0, amounts)
    seconds = (time.perf_counter() - begin) / TIMED
    whole.restore()
    return seconds
