"""Hostile clients of a simulation: what arrives, the same again after a stop, and refusals."""

import math
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

from hanse.audit.attack import Attack
from hanse.audit.attacks.gaussian import Gaussian
from hanse.audit.attacks.ipm import Ipm
from hanse.audit.attacks.sign_flip import SignFlip
from hanse.errors import UserError
from hanse.experiment.assembly.assemble import simulate
from hanse.experiment.loading import load
from hanse.federation.aggregators.coordinate_median import CoordinateMedian
from hanse.federation.aggregators.trimmed_mean import TrimmedMean
from hanse.federation.algorithms.fedavg import FedAvg
from hanse.federation.interfaces.transport import Transport
from hanse.federation.messages import Reply
from hanse.journal.run_folder import read_rounds
from hanse.simulation.attacked_clients import AttackedClients
from hanse.simulation.in_process import InProcess
from hanse.simulation.run import run
from toys import Meddler, Outcome, federate, same, silos

MEASURED = ("seconds", "joules")  # numbers that differ from run to run
NAMES = [f"c{number}" for number in range(6)]


def go(folder: Path, attack: Attack | None, **settings: Any) -> Outcome:
    """FedAvg over six clients, of which the attack makes some hostile."""

    def network(inner: Transport) -> Transport:
        if attack is None:
            return inner
        return AttackedClients(inner, attack, attack.names(NAMES), 0)

    return federate(FedAvg(), silos(6), folder, network=network, **settings)


def loss(outcome: Outcome) -> float:
    return outcome.records[-1].test["loss"]


def test_what_arrives_is_the_attack_and_nothing_else(tmp_path: Path) -> None:
    sent: dict[bool, dict[str, Reply]] = {}
    for hostile in (False, True):
        watched: list[Meddler] = []

        def network(
            inner: Transport, hostile: bool = hostile, watched: list[Meddler] = watched
        ) -> Transport:
            clients = AttackedClients(inner, Ipm(), ["c1", "c4"], 0) if hostile else inner
            watched.append(Meddler(clients))
            return watched[-1]

        federate(FedAvg(), silos(6), tmp_path / str(hostile), rounds=1, network=network)
        replies = map(Reply.parse, watched[-1].replies)
        sent[hostile] = {reply.client: reply for reply in replies if reply.kind == "train"}
    before, after = sent[False], sent[True]
    assert before.keys() == after.keys() == {*NAMES}
    for name in NAMES:
        old, new = before[name].update, after[name].update
        assert (old.weight, old.keeps_memory) == (new.weight, new.keeps_memory)
        assert {n: v for n, v in old.numbers.items() if not n.endswith(MEASURED)} == {
            n: v for n, v in new.numbers.items() if not n.endswith(MEASURED)
        }
        assert old.tensors.keys() == new.tensors.keys()
        for tensor, value in new.tensors.items():
            honest = [before[n].update.tensors[tensor] for n in ("c0", "c2", "c3", "c5")]
            expected = -2 * torch.stack(honest).mean(dim=0)
            expected = expected if name in ("c1", "c4") else old.tensors[tensor]
            assert value.shape == expected.shape and value.dtype == expected.dtype
            torch.testing.assert_close(value, expected, rtol=1e-5, atol=1e-7)


def test_a_mean_fails_and_a_median_bears_it(tmp_path: Path) -> None:
    clean = loss(go(tmp_path / "clean", None))
    attack = SignFlip(attackers=2)
    hostile = loss(go(tmp_path / "mean", attack))
    borne = loss(go(tmp_path / "median", attack, aggregator=CoordinateMedian()))
    assert max(clean, borne) < math.log(3) < hostile  # the untrained model's


@pytest.mark.parametrize("clients_per_pass", [1, 4])
def test_a_run_that_was_stopped_ends_alike(tmp_path: Path, clients_per_pass: int) -> None:
    attack, rule = Gaussian(attackers=2), TrimmedMean(attackers=1)
    whole = go(tmp_path / "whole", attack, aggregator=rule, fraction_train=0.7)

    def network(inner: Transport) -> Transport:
        assert isinstance(inner, InProcess)
        several = InProcess(inner.profiles(), inner._make, clients_per_pass=clients_per_pass)
        return AttackedClients(several, attack, attack.names(NAMES), 0)

    settings: dict[str, Any] = {"aggregator": rule, "fraction_train": 0.7, "network": network}
    federate(FedAvg(), silos(6), tmp_path / "cut", stop_after=2, **settings)
    resumed = federate(FedAvg(), silos(6), tmp_path / "cut", **settings)
    assert same(whole.server_state, resumed.server_state)


def test_a_round_of_attackers_alone_has_no_honest_updates(tmp_path: Path) -> None:
    attack = SignFlip(attackers=5)
    outcome = go(tmp_path / "few", attack, fraction_train=0.2)
    assert any("c0" not in record.clients for record in outcome.records[1:])


def experiment(file: Path, **settings: Any) -> Path:
    """The experiment's file with other settings."""
    values = {**yaml.safe_load(file.read_text()), **settings}
    file.write_text(yaml.safe_dump(values))
    return file


def test_an_experiment_has_one_line_of_it(experiment_file: Path) -> None:
    folders = []
    for place, attack in enumerate((None, {"sign_flip": {"attackers": ["silo-3"]}})):
        home = str(experiment_file.parent / f"run{place}")
        experiment(experiment_file, rounds=1, attack=attack, output_dir=home)
        folders.append(run(load(experiment_file)))
    [clean, hostile] = (read_rounds(folder)[-1].test for folder in folders)
    assert clean != hostile
    settings = yaml.safe_load((folders[1] / "experiment.yaml").read_text())["attack"]
    assert settings == {"sign_flip": {"attackers": ["silo-3"], "factor": 10.0}}
    cards = [(folder / "adapter" / "README.md").read_text() for folder in folders]
    assert "hostile" not in cards[0]
    assert "hostile on purpose, in a simulation: `attack: sign_flip`" in cards[1]


def test_hostile_clients_are_named(experiment_file: Path) -> None:
    simulation = simulate(load(experiment(experiment_file, attack={"alie": {"attackers": 1}})))
    [remark] = [text for text in simulation.dataset.remarks if "hostile" in text]
    assert remark.startswith("silo-3 is hostile and sends what the attack alie says")


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"aggregator": "secagg"}, r"attack\.ipm replaces .* SecAgg are sealed; choose the"),
        ({"algorithm": "flora"}, r"attack\.ipm makes changes .* FLoRA .*send factors; choose an"),
        ({"compression": ["int8"]}, r"attack\.ipm .* encodes them .*; leave it out of compress"),
        ({"attack": {"ipm": {"attackers": 3}}}, "makes 3 of 3 clients hostile; let there be"),
        ({"attack": {"alie": {"attackers": 2}}}, r"majority alone.*; set attack\.alie\.z"),
        ({"attack": {"ipm": {"attackers": ["me"]}}}, r"attack\.ipm\.attackers names me, which"),
    ],
)
def test_what_cannot_be_attacked_is_refused(
    experiment_file: Path, settings: dict[str, Any], message: str
) -> None:
    file = experiment(experiment_file, **{"attack": {"ipm": {"attackers": 1}}, **settings})
    with pytest.raises(UserError, match=message):
        simulate(load(file))
