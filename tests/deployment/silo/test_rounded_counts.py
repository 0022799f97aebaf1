"""Silos round the numbers of rows that they declare, and no account is lower for it."""

from pathlib import Path
from typing import Any

import pytest

from hanse.deployment.envelopes import Envelope, SiloReply
from hanse.deployment.silo.enforcement import rounded
from hanse.deployment.silo.policy import Policy
from hanse.deployment.silo.settings import Rows, SiloSettings
from hanse.deployment.silo.worker import SiloWorker
from hanse.experiment.assembly.assemble import simulate
from hanse.experiment.assembly.privacy import sampling
from hanse.experiment.loading import load
from hanse.experiment.schema import Experiment
from hanse.federation.accounting.run_account import worst
from hanse.federation.accounting.sampling_bounds import SamplingBounds, exactly
from hanse.federation.messages import ClientProfile
from hanse.federation.privacy.example_dp import ExampleDp
from hanse.journal.privacy_record import PrivacyRecord
from hanse.journal.yaml_text import dump
from hanse.learners.models.model_hash import hash_of
from hanse.randomness import RoundContext

CONTEXT = RoundContext(0, 2, rounds=3)


def declared(experiment: Experiment, rows: int, step: int) -> SamplingBounds:
    """What the server knows of the training on so many rows."""
    profile = ClientProfile("silo-1", rounded(rows, step), rounding=step)
    return sampling(experiment, profile)


@pytest.mark.parametrize("step", [1, 5, 10, 64])
@pytest.mark.parametrize("settings", ["max_steps: 3", "num_train_epochs: 1.5", ""])
def test_no_training_is_beyond_what_is_declared(
    experiment_file: Path, step: int, settings: str
) -> None:
    text = f"train={{per_device_train_batch_size: 10, {settings}}}"
    experiment = load(experiment_file, [text])
    for rows in range(1, 200):
        own, bounds = experiment.train.sampling(rows), declared(experiment, rows, step)
        least, most = bounds.cheapest, bounds.dearest
        assert least.probability <= own.probability <= most.probability
        assert least.steps <= own.steps <= most.steps
        assert bounds.exact == (step == 1) or settings.startswith("max_steps")


def cost(part: ExampleDp, bounds: SamplingBounds) -> PrivacyRecord:
    record = worst(part, [bounds], CONTEXT.round, CONTEXT)
    assert record is not None and record.epsilon is not None
    return record


@pytest.mark.extras
@pytest.mark.parametrize(
    "part",
    [
        {"epsilon": None, "noise_multiplier": 1.0},
        {"epsilon": 8.0},
        {"epsilon": 30.0, "noise_multiplier": 1.0},
    ],
)
def test_the_account_of_the_run_is_not_below_that_of_a_silo(
    experiment_file: Path, part: dict[str, Any]
) -> None:
    """15 rows are declared as 20, and 11 as 10, of which one step reads all; 25 as 20."""
    pytest.importorskip("dp_accounting")
    mechanism = ExampleDp(**part)
    experiment = load(experiment_file, ["train={per_device_train_batch_size: 10}"])
    for rows in (15, 11, 25, 200):
        own = cost(mechanism, exactly(experiment.train.sampling(rows)))
        known = cost(mechanism, declared(experiment, rows, 10))
        assert (known.epsilon or 0) >= (own.epsilon or 0) > 0 and not known.exceeds
        assert len(known.assumptions) == len(own.assumptions) + 1
        if rows == 200:
            assert (known.epsilon or 0) < 1.1 * (own.epsilon or 0)


def test_a_silo_says_to_what_it_rounds(
    experiment_file: Path, review_file: Path, tmp_path: Path
) -> None:
    server = simulate(load(experiment_file, ["clients_per_pass=off"]))
    values = server.experiment.resolved() | {"output_dir": None}
    model = hash_of(server.experiment.model.model_name_or_path) or ""
    policy = Policy(data_settings=("template", "labels"), min_examples=1, count_rounding=7)
    rows, state = Rows(path=str(review_file)), tmp_path / "state"
    worker = SiloWorker(
        SiloSettings(name="silo-1", server="127.0.0.1:1", data=rows, state=state, policy=policy)
    )
    envelope = Envelope("a1", dump(values), server.dataset.digest, model)
    profile = SiloReply.parse(worker.answer(envelope.pack())).profile
    assert profile is not None and profile.rounding == 7 and not profile.examples % 7
