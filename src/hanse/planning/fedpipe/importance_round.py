"""The scores of LoRA's matrices, from an ordinary round of simulated silos."""

import tempfile
from dataclasses import dataclass, replace
from itertools import combinations
from pathlib import Path

from scipy.stats import spearmanr

from hanse.experiment.adapter_choice import AnyAdapter
from hanse.experiment.assembly.assemble import Simulation
from hanse.experiment.schema import Experiment
from hanse.experiment.sections import CompressionSettings
from hanse.federation.algorithms.fedpipe import SCORES, matrices, scores
from hanse.federation.client_sampling import sample
from hanse.federation.exchange.round import open_round
from hanse.federation.server import start
from hanse.journal.run_folder import Journal
from hanse.learners.adapters.lora import Lora
from hanse.simulation.in_process import in_process

RANK = 4  # of all matrices, at most
STEPS = 8  # of the optimizer at each silo
MOST_SILOS = 16


@dataclass(frozen=True)
class Importance:
    """The scores of matrices, by their names in the model; they sum to 1.

    silos: those that were asked. agreement: the mean rank correlation of two silos' scores; None
        with one silo.
    """

    scores: dict[str, float]
    silos: tuple[str, ...]
    agreement: float | None


def probing(experiment: Experiment, adapter: Lora) -> Experiment:
    """The experiment of the round: uniform LoRA, a few steps, and nothing that hides or encodes.

    No message of a simulation leaves this process.
    """
    rank = min(RANK, adapter.r)
    small = replace(adapter, r=rank, lora_alpha=2 * rank, rank_pattern={})
    train = replace(experiment.train, max_steps=STEPS, num_train_epochs=None)
    own = {n: {"data": o["data"]} for n, o in experiment.clients.items() if "data" in o}
    return experiment.model_copy(
        update={
            "algorithm": {"fedpipe": {"probe": True}},
            "adapter": AnyAdapter(lora=small),  # type: ignore[call-arg]
            "train": train,
            "clients": own,
            "compression": CompressionSettings(),
            "privacy": None,
            "attack": None,
            "ownership": None,
            "clients_per_pass": "off",
            "report_to": [],
        }
    )


def importance(simulation: Simulation) -> Importance:
    """The scores that a round of such an experiment gives, weighted by the silos' examples."""
    with tempfile.TemporaryDirectory(prefix="hanse-plan-") as folder:
        journal = Journal(Path(folder))
        try:
            return _round(simulation, journal)
        finally:
            journal.close()


def _round(simulation: Simulation, journal: Journal) -> Importance:
    run = simulation.run(journal, in_process(simulation, journal.folder))
    profiles = run.profiles()
    asked = sample(profiles, min(1.0, MOST_SILOS / len(profiles)), run.context(1))
    exchange = open_round(run, 1, start(run, profiles), asked)
    updates = list(exchange.updates())
    model = simulation.learner.tensors()
    found = scores(run.method.algorithm.combine(updates), model)
    names = [model_name(name) for name in matrices(model)]
    total = float(found.sum()) or 1.0
    shares = [score / total for score in found.tolist()]
    scored = [update.tensors[SCORES].numpy() for _, update in updates]
    pairs = combinations([own for own in scored if own.max() > own.min()], 2)
    alike = [float(spearmanr(*pair).statistic) for pair in pairs]
    return Importance(
        dict(zip(names, shares, strict=True)),
        tuple(profile.name for profile, _ in updates),
        sum(alike) / len(alike) if alike else None,
    )


def model_name(tensor: str) -> str:
    """The name of a matrix in the model, from that of PEFT's layer around it."""
    return tensor.removeprefix("base_model.model.")
