"""Clients on simulated devices: their seconds in the ledger, in the preview, and after a stop."""

from collections.abc import Callable
from pathlib import Path

import pytest

from hanse.experiment.assembly.assemble import simulate
from hanse.experiment.loading import load
from hanse.journal import run_folder
from hanse.learners import step_cost
from hanse.planning.preview import estimate
from hanse.simulation import run as simulation
from hanse.simulation.client_devices import client_devices, decided
from hanse.simulation.device_cost import Machine
from samples import Outcome
from stopping import ctrl_c

FIXED = "mfu: 0.5, operator_us: 10"
DEVICES = (
    f"devices={{raspberry-pi-5: {{{FIXED}}}, t4: {{{FIXED}}}, "
    f"slow: {{fp32_tflops: 1.0e-5, {FIXED}}}}}"
)
WORDS = [DEVICES, "device=raspberry-pi-5", "clients={silo-2: {device: slow}}"]


def test_the_ledger_has_the_seconds_of_the_devices(experiment_file: Path) -> None:
    clients = "clients={silo-2: {device: slow}, silo-3: {device: t4}}"
    words = [*WORDS[:2], clients, "rounds=1", "clients_per_pass=off"]
    experiment = load(experiment_file, words)
    predicted = estimate.preview(experiment)
    assert predicted.links is not None and predicted.links.slowest == "silo-2"
    uses = {use.device: use for use in predicted.devices}
    assert uses["slow"].clients == ("silo-2",) and len(uses) == 3
    folder = simulation.run(experiment)
    assert run_folder.read_rounds(folder)[1].simulated_seconds["train"] == pytest.approx(
        predicted.links.seconds
    )
    for record in run_folder.read_ledger(folder):
        journey = record.simulated
        assert journey is not None
        if record.kind != "train":
            assert journey.training == 0 and journey.joules is None
            continue
        [use] = [use for use in uses.values() if record.client in use.clients]
        assert journey.training == pytest.approx(use.least) and use.least == use.most
        known = use.device == "t4"  # the others have no published watts
        assert (journey.joules == pytest.approx(70 * journey.training)) if known else True
        assert (journey.joules is not None) == known
        measured, predicted = record.measured, record.predicted
        assert measured is not None and (measured.computing or 0) == record.numbers["seconds"]
        assert measured.communicating is None and (measured.tokens_per_second or 0) > 0
        assert predicted is not None and predicted.computing == journey.training
        assert predicted.communicating == journey.down + journey.up
        assert predicted.joules == journey.joules
        assert predicted.tokens_per_second == record.numbers["tokens"] / journey.training
        assert 0 < (predicted.mfu or 0) <= 0.5  # the share that products reach, in the settings
        if use.device == "raspberry-pi-5":  # of Gigabit Ethernet
            assert journey.up == pytest.approx(8 * record.up / 1e9)


def test_seconds_follow_from_operations_and_peak(experiment_file: Path) -> None:
    clients = "clients={silo-2: {device: slow}, silo-3: {device: t4}}"
    assembled = simulate(load(experiment_file, [*WORDS[:2], clients]))
    devices = client_devices(decided(assembled))
    slow = devices["silo-2"]
    machine = Machine.of(slow.settings, bf16=False)
    passes = slow.cost
    expected = sum(
        p.operators * 1e-5 + p.flops / 0.5e7
        for p in (passes.forward, passes.backward, passes.optimizer)
    )
    assert machine.step(passes).total == pytest.approx(expected)
    assert slow.seconds == pytest.approx(slow.steps * expected) and slow.joules is None
    assert devices["silo-3"].joules == pytest.approx(70 * devices["silo-3"].seconds)
    assert devices["silo-3"].seconds < devices["silo-1"].seconds < slow.seconds


def test_cached_layers_change_no_seconds(experiment_file: Path) -> None:
    """The first layer is frozen; what it made of rows may be cached, as it is not after a stop."""
    words = [*WORDS, "adapter.lora.layers_to_transform=[1]"]
    assembled = decided(simulate(load(experiment_file, words)))
    first = client_devices(assembled)
    client = assembled.clients["silo-1"]
    loss, parameters, _ = step_cost.typical(
        client.learner, client.learner.objective, client.examples["train"], 8
    )
    cached = [step_cost.count(loss, parameters, 1.0).forward.flops for _ in range(2)]
    assert cached[1] < cached[0], "the cache is at work, outside of the model of cost"
    assert client_devices(assembled) == first


def test_what_is_measured_is_written_to_the_run_folder(experiment_file: Path) -> None:
    folder = simulation.run(load(experiment_file, ["device=t4", "rounds=1"]))
    written = load(folder / "experiment.yaml").devices["t4"]
    assert written.mfu is not None and 0 < written.mfu <= 1
    assert written.operator_us is not None and written.fp32_tflops == 8.1


def test_a_stopped_run_on_devices_has_the_same_seconds(
    experiment_file: Path, tmp_path: Path
) -> None:
    words = ["device=t4", "clients={silo-2: {device: raspberry-pi-5}}"]
    stopped = tmp_path / "stopped"
    with ctrl_c("round 2: ", 2), pytest.raises(Exception, match="after round 1 was"):
        simulation.run(load(experiment_file, [*words, f"output_dir={stopped}"]))
    simulation.resume(stopped)
    seconds = {
        (record.client, record.simulated.training)
        for record in run_folder.read_ledger(stopped)
        if record.kind == "train" and record.simulated
    }
    assert len(seconds) == 3, "the seconds of a client are the same before and after the stop"


def test_check_names_devices_memory_and_what_is_not_known(
    hanse: Callable[..., Outcome], experiment_file: Path
) -> None:
    tiny = "tiny: {fp32_tflops: 1, memory_gb: 1.0e-4}"
    words = [f"devices={{{tiny}}}", "clients={silo-1: {device: tiny}, silo-2: {device: t4}}"]
    shown = hanse("check", experiment_file, *words)
    text = " ".join(shown.out.split())
    assert shown.code == 0
    assert "silo-1 trains on tiny" in text and "silo-2 trains on t4" in text
    assert "such a device could not train this" in text
    assert "not known of tiny: bandwidth_gb_s (its seconds are those of operations alone)" in text
    assert "1 client has no device, and steps of links.seconds_per_step" in text
    assert "J of t4 in a round" in text
