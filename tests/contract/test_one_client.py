"""With one client, full rank and a server rate of 1, the server ends with that client's function.

This holds for every algorithm whose server step is a mean, with any α/r of client and server.
"""

from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import pytest
import torch
from torch import Tensor

from contract.cases import CASES, PERSONAL, Case, built
from hanse.interfaces import Algorithm, Client, Server
from hanse.messages import ClientProfile, Update
from hanse.randomness import Moment
from hanse.values import Combined, Fit, Memory, State
from toys import QUICK, Toy, ToyLearner, held_out, points, silos

# Algorithms whose step is a mean with these settings only.
MEANS: dict[str, dict[str, Any]] = {"fedopt": {"optimizer": "momentum", "beta_1": 0.0}}
NO_MEAN = {"feddyn": "its step takes h/α off the mean of the clients' tensors"}
PROBE = points(7, 20)
NAMES = sorted({case.name for case in CASES} - NO_MEAN.keys())


class Sizes(NamedTuple):
    """Rank and s of the client, and of the server."""

    client: tuple[int, float]
    server: tuple[int, float]


ALIKE = Sizes((2, 1.0), (2, 1.0))
UNLIKE = {"α": Sizes((2, 2.0), (2, 0.5)), "α and r": Sizes((2, 4.0), (4, 1.0))}


class Noting(ToyLearner):
    """Notes what it is after its first training: logits on PROBE, and tensors."""

    noted: tuple[Tensor, dict[str, Tensor]] | None = None

    def fit(self, *args: Any, **settings: Any) -> Fit:
        done = super().fit(*args, **settings)
        if self.noted is None:
            self.noted = logits(self), {n: t.clone() for n, t in self.tensors().items()}
        return done


@dataclass(frozen=True)
class Noted(Toy):
    """Makes `Noting` learners."""

    def __call__(self, moment: Moment, kept: Memory) -> Noting:
        return Noting(self, moment, kept)


def logits(learner: ToyLearner) -> Tensor:
    with torch.no_grad():
        return learner.forward(learner.batch(PROBE))


class Round(NamedTuple):
    """What one round made: of the client's training, of its update, and of the server."""

    trained: Noting
    update: Update
    server: ToyLearner
    state: State


def rounds(algorithm: Algorithm, case: Case, sizes: Sizes, count: int = 3) -> list[Round]:
    """Rounds with one client, whose memory lasts."""
    lora = case.adapter["rank"] > 0
    (rank, scale), (server_rank, server_scale) = sizes if lora else ((0, 1.0), (0, 1.0))
    made = silos(1, QUICK, rank=rank, beside=case.adapter["beside"])["c0"]
    make = Noted(**{**vars(made), "scale": scale})
    serving = replace(held_out(rank=server_rank, beside=case.adapter["beside"]), scale=server_scale)
    profile = ClientProfile("c0", 8, {"rank": float(rank), "scaling": scale})
    memory: Memory = {}
    found: list[Round] = []
    state = algorithm.init(Server(serving(Moment(0), {}), 1, Moment(0)))
    for number in range(1, count + 1):
        moment, learner = Moment(0, number, "c0"), make(Moment(0, number, "c0"), {})
        order = algorithm.order(state, profile, Moment(0, number))
        assert order is not None
        update = algorithm.train(order, Client(profile, learner, memory, {}, moment))
        if algorithm.combines:
            combined = algorithm.combine([(profile, update)])
        else:
            combined = Combined(update.tensors, update.numbers, update.weight, ("c0",))
        server = serving(Moment(0, number), {})
        state = algorithm.step(state, combined, Server(server, 1, Moment(0, number)))
        server.load(algorithm.model(state))
        found.append(Round(learner, update, server, state))
    return found


def first(name: str) -> Case:
    """The algorithm's first case, with the settings that make its step a mean."""
    case = next(case for case in CASES if case.name == name)
    return Case(name, MEANS.get(name, case.settings))


@pytest.mark.parametrize("name", NAMES)
def test_the_server_ends_with_the_clients_function(name: str) -> None:
    case = first(name)
    algorithm = built(case)
    for made in rounds(algorithm, case, ALIKE):
        assert made.trained.noted is not None
        said, tensors = made.trained.noted
        if name in PERSONAL:  # the server sees no more than what is sent
            model = algorithm.model(made.state)
            for shared in made.update.tensors:
                torch.testing.assert_close(model[shared], tensors[shared], atol=1e-6, rtol=1e-5)
        else:
            torch.testing.assert_close(logits(made.server), said, atol=1e-5, rtol=1e-5)
            assert said.abs().max() > 0.1


@pytest.mark.parametrize("sizes", UNLIKE.values(), ids=UNLIKE.keys())
@pytest.mark.parametrize("name", [name for name in NAMES if built(first(name)).unequal])
def test_whatever_their_scalings_are(name: str, sizes: Sizes) -> None:
    case = first(name)
    for made in rounds(built(case), case, sizes):
        assert made.trained.noted is not None
        said = made.trained.noted[0]
        torch.testing.assert_close(logits(made.server), said, atol=1e-5, rtol=1e-5)
        assert said.abs().max() > 0.1
