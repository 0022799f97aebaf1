"""The ε that a silo accepts bounds what it trains, and not only the plan of the job."""

from pathlib import Path

import pytest

from hanse.deployment.envelopes import Envelope, SiloReply
from hanse.deployment.silo.policy import Policy, Privacy
from hanse.deployment.silo.settings import Rows, SiloSettings
from hanse.deployment.silo.worker import SiloWorker
from hanse.experiment.assembly.assemble import simulate
from hanse.experiment.loading import load
from hanse.federation.accounting.epsilon import GaussianReleases, epsilon
from hanse.federation.messages import Instruction, Reply, Request
from hanse.journal.yaml_text import dump
from hanse.learners.models.model_hash import hash_of
from hanse.tensors.named import scale


@pytest.mark.extras
def test_a_server_that_asks_once_more_with_something_else(
    experiment_file: Path, review_file: Path, tmp_path: Path
) -> None:
    """Its job costs what one training costs, and it may ask for three of each round."""
    pytest.importorskip("dp_accounting")
    pytest.importorskip("opacus")
    private = "privacy={example_dp: {epsilon: null, noise_multiplier: 5}}"
    steps = "train={max_steps: 1, per_device_train_batch_size: 256}"
    server = simulate(load(experiment_file, ["rounds=1", private, steps, "clients_per_pass=off"]))
    two, three = (epsilon([GaussianReleases(5.0, 1.0, n)], 1e-5) for n in (2, 3))
    policy = Policy(
        data_settings=("template", "labels"),
        min_examples=1,
        privacy=Privacy(epsilon=(two + three) / 2),
    )
    rows, state = Rows(path=str(review_file)), tmp_path / "state"
    worker = SiloWorker(
        SiloSettings(name="silo-1", server="127.0.0.1:1", data=rows, state=state, policy=policy)
    )
    values = server.experiment.resolved() | {"output_dir": None}
    model = hash_of(server.experiment.model.model_name_or_path) or ""
    errors = []
    for factor in (1.0, 0.9, 0.8):
        tensors = scale(server.learner.initial(), factor)
        request = Request("train", 1, 0, Instruction(tensors)).pack()
        envelope = Envelope("a1", dump(values), server.dataset.digest, model, request=request)
        answer = SiloReply.parse(worker.answer(envelope.pack()))
        assert not answer.error
        errors.append(Reply.parse(answer.body).error)
    assert errors[:2] == ["", ""]
    assert "would cost more than the largest ε of" in errors[2] and "2 releases" in errors[2]
    assert "would cost more" in (state / "refusals.jsonl").read_text()
