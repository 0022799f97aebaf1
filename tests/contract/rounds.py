"""Rounds of one algorithm on toys, with all that its clients' trainings began with and came to."""

from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple

import torch
from torch import Tensor

from contract.cases import CASES, Case, files_of
from hanse.federation.interfaces.algorithm import Algorithm, Client, Server
from hanse.federation.interfaces.results import Aggregate, Memory, State, TrainResult
from hanse.federation.messages import ClientProfile, Update
from hanse.randomness import RoundContext
from hanse.tensors.named import RunningMean
from toy_learners import QUICK, Toy, ToyLearner, points
from toys import held_out, silos

# Algorithms whose step is a mean with these settings only.
MEANS: dict[str, dict[str, Any]] = {
    "fedopt": {"optimizer": "momentum", "beta_1": 0.0},
    "fedcollm": {"public_steps": 0},
    "diloco": {"learning_rate": 1.0, "momentum": 0.0},
}
PROBE = points(7, 20)


class Sizes(NamedTuple):
    """Rank and s of the clients, and of the server."""

    client: tuple[int, float]
    server: tuple[int, float]


ALIKE = Sizes((2, 1.0), (2, 1.0))


@dataclass
class Training:
    """One training: what it moved, from where to where, and what it left as it was."""

    start: dict[str, Tensor]
    fixed: dict[str, Tensor]  # frozen parameters, and the change of the base
    end: dict[str, Tensor]
    logits: Tensor  # on PROBE, at the end


class Noting(ToyLearner):
    """Notes its trainings."""

    trainings: list[Training]

    def fit(self, *args: Any, **settings: Any) -> TrainResult:
        start = copied(self.tensors())
        fixed = copied({n: p.data for n, p in self._live.items() if n not in start})
        if self._residual is not None:
            fixed["residual"] = self._residual.product()
        done = super().fit(*args, **settings)
        self.trainings.append(Training(start, fixed, copied(self.tensors()), logits(self)))
        return done


@dataclass(frozen=True)
class Noted(Toy):
    """Makes learners that note their trainings in one list."""

    trainings: list[Training] = field(default_factory=list)

    def __call__(self, context: RoundContext, optimizer_state: Memory) -> Noting:
        learner = Noting(self, context, optimizer_state)
        learner.trainings = self.trainings
        return learner


def copied(tensors: Any) -> dict[str, Tensor]:
    return {name: tensor.detach().clone() for name, tensor in tensors.items()}


def logits(learner: ToyLearner) -> Tensor:
    with torch.no_grad():
        return learner.forward(learner.batch(PROBE))


class Round(NamedTuple):
    """What one round made of client c0, whose first training is the one of the global model."""

    training: Training
    update: Update
    state: State
    server: Tensor  # logits on PROBE


def first(name: str) -> Case:
    """An algorithm's first case, with the settings that make its step a mean."""
    case = next(case for case in CASES if case.name == name)
    return Case(name, MEANS.get(name, case.settings))


def rounds(
    algorithm: Algorithm, case: Case, sizes: Sizes = ALIKE, clients: int = 1, count: int = 3
) -> list[Round]:
    """Rounds with clients whose memory lasts, and plain means."""
    (rank, scale), (server_rank, server_scale) = sizes
    own, of_lora = case.adapter, min(case.adapter["rank"], 1)
    serving = replace(held_out(**{**own, "rank": of_lora * server_rank}), scale=server_scale)
    makes, profiles, memories = {}, {}, {}
    for name, toy in silos(clients, QUICK, **{**own, "rank": of_lora * rank}).items():
        makes[name], memories[name] = Noted(**{**vars(toy), "scale": scale}), {}
        profiles[name] = ClientProfile(name, 8, {"rank": float(rank), "scaling": scale})
    found: list[Round] = []
    beginning = Server(serving(RoundContext(0), {}), clients, RoundContext(0))
    files = beginning.files = files_of(algorithm, beginning)
    state = algorithm.init(beginning)
    for number in range(1, count + 1):
        updates, begun = [], len(makes["c0"].trainings)
        for name, make in makes.items():
            instruction = algorithm.instruction(state, profiles[name], RoundContext(0, number))
            assert instruction is not None
            context = RoundContext(0, number, name)
            learner, memory = make(context, {}), memories[name]
            client = Client(profiles[name], learner, memory, {}, context, files=files)
            updates.append((profiles[name], algorithm.train(instruction, client)))
        learner = serving(RoundContext(0, number), {})
        server = Server(learner, clients, RoundContext(0, number))
        state = algorithm.step(state, combined(algorithm, updates), server)
        learner.load(algorithm.model(state))
        training = makes["c0"].trainings[begun]
        found.append(Round(training, updates[0][1], state, logits(learner)))
    return found


def combined(algorithm: Algorithm, updates: list[tuple[ClientProfile, Update]]) -> Aggregate:
    """The updates as the aggregator mean has them."""
    if algorithm.combines:
        return algorithm.combine(updates)
    mean, numbers = RunningMean(), RunningMean()
    for _, update in updates:
        mean.add(update.tensors, update.weight)
        own = {n: torch.tensor(v, dtype=torch.float64) for n, v in update.numbers.items()}
        numbers.add(
            {n: own[n] for n in own if not n.endswith(("seconds", "joules"))}, update.weight
        )
    means = {name: float(value) for name, value in numbers.value().items()}
    return Aggregate(mean.value(), means, mean.weight, tuple(p.name for p, _ in updates))
