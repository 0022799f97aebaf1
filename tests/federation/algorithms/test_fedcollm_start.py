"""FedCoLLM's first model, which a large one teaches, beside random adapters as they are."""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor

from hanse.federation.algorithms.fedcollm import FedCoLLM
from hanse.federation.interfaces.results import Memory
from hanse.learners.training.settings import TrainingSettings
from hanse.randomness import RoundContext
from toy_learners import Toy, ToyLearner, points
from toys import federate

WIDTH, RANK, ROWS = 16, 2, 30
TRAINING = TrainingSettings(
    learning_rate=0.3, per_device_train_batch_size=10, optim="sgd", max_steps=4
)


class Skilled(ToyLearner):
    """A model that has learned from many rows before the run."""

    learned: Mapping[str, Tensor]

    def initial(self) -> Mapping[str, Tensor]:
        return self.learned


def skill(seed: int) -> Mapping[str, Tensor]:
    training = replace(TRAINING, max_steps=200)
    teacher = Toy({"train": points(seed, 300)}, training, hidden=WIDTH)(RoundContext(seed), {})
    teacher.fit()
    return teacher.tensors()


def ends(folder: Path, seed: int, steps: int) -> list[float]:
    """The small model's loss on the server's rows, before the rounds and after them."""
    first = 1000 * seed
    splits = {"public": points(first, ROWS), "test": points(first + 1, 200)}
    own = Toy(splits, TRAINING, rank=RANK, models={"large": WIDTH})
    learned = skill(first + 2)

    def server(context: RoundContext, optimizer_state: Memory) -> ToyLearner:
        learner = own(context, optimizer_state)
        large = Skilled(replace(own, hidden=WIDTH, rank=0, models={}), context, {})
        large.learned = learned
        large.load(learned)
        learner.models = {"large": large}
        return learner

    clients = {
        f"c{n}": Toy({"train": points(first + 3 + n, 12), "test": ()}, TRAINING, rank=RANK)
        for n in range(3)
    }
    algorithm = FedCoLLM(public_steps=0, initial_steps=steps)
    outcome = federate(algorithm, clients, folder, server, rounds=2, seed=seed)
    return [outcome.records[place].test["loss"] for place in (0, -1)]


@pytest.mark.parametrize("seed", range(1, 6))
def test_an_adapter_that_the_large_model_has_taught_is_ahead_of_a_random_one(
    tmp_path: Path, seed: int
) -> None:
    """At the start, and still after the same rounds."""
    taught, drawn = (ends(tmp_path / f"{steps}", seed, steps) for steps in (40, 0))
    assert drawn[0] == pytest.approx(float(torch.tensor(3.0).log()))  # B is 0: all classes equal
    assert taught[0] < 0.7 * drawn[0]
    assert all(one < other for one, other in zip(taught, drawn, strict=True))
