"""`compression.collect`: each client's decoded update on disk, and who may say no."""

import logging
from collections.abc import Sequence
from pathlib import Path

import pytest
import torch

from hanse.deployment.silo.job import Job
from hanse.deployment.silo.policy import Policy
from hanse.deployment.silo.refusals import settings_refusals
from hanse.errors import UserError
from hanse.experiment.assembly.method import build_method
from hanse.experiment.loading import load
from hanse.federation.algorithms.fedavg import FedAvg
from hanse.federation.compression.bf16 import BF16
from hanse.federation.interfaces.transport import Transport
from hanse.federation.messages import Request
from hanse.journal import updates
from hanse.journal.run_folder import read_ledger
from samples import ROOT
from toys import Meddler, federate, held_out, silos

SUMS = ROOT / "tests" / "parts" / "secure_sum.py"
NOISE = ROOT / "tests" / "parts" / "noised_mean.py"


def test_the_mean_of_the_files_is_the_step_of_the_model(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    settings = {"collects": True, "upload": [BF16()]}
    with caplog.at_level(logging.WARNING):
        outcome = federate(FedAvg(), silos(3), tmp_path / "run", held_out(), **settings)
    assert f"in each round is written to {tmp_path / 'run' / 'updates'}" in caplog.text
    files = updates.listed(tmp_path / "run")
    assert [(file.round, file.client) for file in files] == [
        (round, client) for round in (1, 2, 3) for client in ("c0", "c1", "c2")
    ]
    assert all(file.file.stat().st_mode & 0o077 == 0 for file in files)
    ledger = [record for record in read_ledger(tmp_path / "run") if record.kind == "train"]
    weights = {record.client: record.numbers["weight"] for record in ledger}
    total = {name: torch.zeros_like(t, dtype=torch.float64) for name, t in files[0].read().items()}
    for file in files:
        for name, tensor in file.read().items():
            assert tensor.dtype == torch.float32 and torch.equal(tensor, tensor.bfloat16().float())
            total[name] += tensor.double() * weights[file.client] / sum(weights.values())
    model = outcome.server_state.algorithm_state["model"]
    for name, tensor in model.items():  # the model began with zeros
        torch.testing.assert_close(tensor.double(), total[name], atol=1e-6, rtol=1e-5)


def test_nothing_is_kept_without_the_setting(tmp_path: Path) -> None:
    federate(FedAvg(), silos(2), tmp_path / "run", held_out(), rounds=1)
    assert not (tmp_path / "run" / "updates").exists()
    assert updates.listed(tmp_path / "run") == []


def test_a_resumed_run_has_the_same_files(tmp_path: Path) -> None:
    def contents(folder: Path) -> dict[tuple[int, str], bytes]:
        return {(u.round, u.client): u.file.read_bytes() for u in updates.listed(folder)}

    federate(FedAvg(), silos(3), tmp_path / "whole", held_out(), collects=True)
    federate(FedAvg(), silos(3), tmp_path / "stopped", held_out(), collects=True, stop_after=1)
    updates.keep(tmp_path / "stopped", 2, "gone", {"weight": torch.zeros(1)})
    federate(FedAvg(), silos(3), tmp_path / "stopped", held_out(), collects=True)
    assert contents(tmp_path / "whole") == contents(tmp_path / "stopped")


class TwoTries(Meddler):
    """A network in which c0 alone answers the first try of round 2, and the others the second."""

    def __init__(self, inner: Transport) -> None:
        super().__init__(inner)
        self.tries = 1

    def send(self, client: str, message: bytes) -> None:
        request = Request.parse(message)
        answers = (client == "c0") == (self.tries == 1)
        if request.kind != "train" or request.round != 2 or answers:
            super().send(client, message)

    def wait_for(self, clients: Sequence[str], required: int) -> bool:
        self.tries += 1
        return True


def test_a_round_that_is_asked_again_leaves_no_file_of_its_first_try(tmp_path: Path) -> None:
    folder = tmp_path / "run"
    settings = {"collects": True, "quorum": 2, "network": TwoTries}
    records = federate(FedAvg(), silos(3), folder, held_out(), **settings).records[1:]
    assert [record.clients for record in records][1] == ("c1", "c2")
    assert {(update.round, update.client) for update in updates.listed(folder)} == {
        (record.round, client) for record in records for client in record.clients
    }


def test_a_damaged_file_is_named(tmp_path: Path) -> None:
    updates.keep(tmp_path, 1, "a", {"weight": torch.ones(2, 3).T})
    [update] = updates.listed(tmp_path)
    assert torch.equal(update.read()["weight"], torch.ones(3, 2))
    update.file.write_bytes(b"no tensors")
    with pytest.raises(UserError, match=r"00001/a.safetensors cannot be read"):
        update.read()


def test_a_silo_refuses_unless_its_policy_lets_the_server_collect(experiment_file: Path) -> None:
    sentence = "keep each silo's updates (compression.collect), which needs policy.collect: true"
    for words, policy, refused in (
        (["compression.collect=true"], Policy(), True),
        (["compression.collect=true"], Policy(collect=True), False),
        ([], Policy(), False),
    ):
        job = Job(load(experiment_file, words), ("silo-1",), cohort=3, text="")
        assert (sentence in "; ".join(settings_refusals(policy, job))) == refused


@pytest.mark.parametrize(
    ("word", "reason"),
    [
        ("algorithm=flexlora", "with FlexLoRA clients send factors; choose an algorithm whose"),
        (f"aggregator={SUMS}:SecureSum", "SecureSum sees only sums of updates; choose the aggreg"),
        ("compression.upload=[top_k, int8]", "TopK encodes it by fewer numbers; leave TopK out of"),
        ("clients.silo-2.compression.upload=[svd]", "SVD encodes it by fewer numbers; leave SVD"),
        (f"privacy={NOISE}:NoisedMean", "NoisedMean draws noise at the server, and a server that"),
    ],
)
def test_what_the_server_does_not_see_or_keep_is_refused(
    experiment_file: Path, word: str, reason: str
) -> None:
    with pytest.raises(UserError) as caught:
        build_method(load(experiment_file, ["compression.collect=true", word]))
    assert reason in str(caught.value)
    build_method(load(experiment_file, [word]))


def test_changes_behind_a_quantizer_or_noise_of_clients_are_kept(experiment_file: Path) -> None:
    for word in ("compression.upload=[int8, zstd]", f"privacy={NOISE}:NoisedUpdates"):
        build_method(load(experiment_file, ["compression.collect=true", word]))
