"""`hanse plan` with simulated devices: a plan's seconds are those of the simulated run."""

import re
from pathlib import Path

import pytest
import yaml

from hanse.errors import UserError
from hanse.experiment.loading import load
from hanse.journal import run_folder
from hanse.planning.fedpipe import plan as planning
from hanse.planning.fedpipe import plan_page, step_probes
from hanse.planning.fedpipe.choices import RUNTIME
from hanse.planning.fedpipe.planned import Bounds, Plan
from hanse.planning.fedpipe.silos import rates
from hanse.simulation import run as simulation
from hanse.simulation.link import Link
from machine_profiles import PROFILE
from samples import write_experiment

TOLERANCE = 0.01  # between a plan's seconds of training and those of the ledger, relative
SPEEDS = {"silo-1": 1, "silo-2": 2, "silo-3": 4}


def device(slower: float) -> str:
    figures = f"fp32_tflops: {4.0e-3 / slower}, memory_gb: 64, mfu: 0.5"
    return f"d{slower:g}: {{{figures}, operator_us: {20 * slower}, up_mbps: {80 / slower}}}"


WORDS = [
    "train.max_steps=8",
    "data.partition=iid",
    f"devices={{{', '.join(map(device, SPEEDS.values()))}}}",
    f"clients={{{', '.join(f'{name}: {{device: d{s}}}' for name, s in SPEEDS.items())}}}",
]


@pytest.fixture
def few_probes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(step_probes, "MOST_PROBES", 5)


def seconds(folder: Path) -> dict[str, tuple[float, float]]:
    """(all, of training) simulated seconds of each client's training in a run's first round."""
    return {
        record.client: (record.simulated.seconds, record.simulated.training)
        for record in run_folder.read_ledger(folder)
        if record.kind == "train" and record.simulated
    }


def carried_out(made: Plan, file: Path) -> dict[str, tuple[float, float]]:
    """The simulated seconds of one round of the planned file."""
    out = file.with_name("planned.yaml")
    plan_page.write(out, file, made, anew=True)
    words = [f"output_dir={file.parent / 'planned'}", "rounds=1", "clients_per_pass=off"]
    return seconds(simulation.run(load(out, words)))


@pytest.mark.usefixtures("few_probes")
def test_silos_of_unequal_speed_end_a_round_together(
    experiment_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No silo takes the seconds of this machine, so its steps are counted and not timed."""
    monkeypatch.delattr(step_probes, "_fastest")
    words = [*WORDS, f"output_dir={experiment_file.parent / 'uniform'}", "rounds=1"]
    uniform = seconds(simulation.run(load(experiment_file, [*words, "clients_per_pass=off"])))
    whole = [total for total, _ in uniform.values()]
    assert max(whole) / min(whole) >= 3
    bound = 1.1 * min(whole)
    experiment = load(experiment_file, WORDS)
    made = planning.plan(experiment, Bounds(seconds=bound))
    assert not made.steps.timed
    assert any("counted steps" in reason for reason in plan_page.reasons(made))
    for silo in made.silos:
        assert RUNTIME < silo.memory < 1.1 * RUNTIME  # a tiny model, and not this process
        assert made.usual[silo.silo.name] == pytest.approx(uniform[silo.silo.name][0], rel=0.05)
    found = carried_out(made, experiment_file)
    for silo in made.silos:
        total, training = found[silo.silo.name]
        travel = silo.silo.latency + silo.silo.travel(silo.bytes)
        assert silo.seconds - travel == pytest.approx(training, rel=TOLERANCE)
        assert silo.seconds == pytest.approx(total, rel=0.05), "messages have a few bytes more"
    ends = [total for total, _ in found.values()]
    assert max(ends) / min(ends) <= 1.3 and max(ends) <= 1.05 * bound


@pytest.mark.usefixtures("few_probes")
def test_figures_that_were_measured_stand_in_the_planned_file(
    tmp_path: Path, tiny_llama: Path, review_file: Path
) -> None:
    file = write_experiment(tmp_path, tiny_llama, review_file)
    text = file.read_text(encoding="utf-8")
    file.write_text(f"{text}device: t4\ndevices: {{t4: {{watts: 50}}}}    # mine\n", "utf-8")
    made = planning.plan(load(file), Bounds())
    page = plan_page.page(file, made)
    written = yaml.safe_load(page)["devices"]["t4"]
    assert written.keys() == {"watts", "mfu", "operator_us"} and written["watts"] == 50
    assert "# mine" not in page and "comments in `devices` are not kept" in page
    assert "those of devices are what a simulation of the planned file counts" in page
    assert f"at {100 * written['mfu']:.3g} % of its peak" in page
    out = file.with_name("planned.yaml")
    out.write_text(page, encoding="utf-8")
    found = seconds(simulation.run(load(out, ["rounds=1", "clients_per_pass=off"])))
    for silo in made.silos:
        travel = silo.silo.latency + silo.silo.travel(silo.bytes)
        _, training = found[silo.silo.name]
        assert silo.seconds - travel == pytest.approx(training, rel=TOLERANCE)
        assert silo.silo.machine.memory == 16e9


@pytest.mark.parametrize(
    ("words", "bounds", "said"),
    [
        (
            ["clients={silo-2: {device: laptop}}"],
            Bounds(),
            "the memory of silo-2's device laptop is not known, and a plan chooses what fits into "
            "it; write devices: {laptop: {memory_gb: …}}, or give --memory silo-2=GB.",
        ),
        (
            ["clients={silo-2: {device: t4}}"],
            Bounds(profiles={"silo-2": PROFILE}),
            "silo-2 has the device t4 in the experiment and a profile in --profiles",
        ),
        (
            ["clients={silo-2: {device: t4}}"],
            Bounds(slower={"silo-2": 2.0}),
            "silo-2 has the device t4, whose seconds are by the model of cost, and a correction",
        ),
    ],
)
def test_a_machine_that_is_not_clear_is_refused_before_a_model_is_loaded(
    experiment_file: Path, words: list[str], bounds: Bounds, said: str
) -> None:
    words = [*words, "model.model_name_or_path=owner/nowhere"]
    with pytest.raises(UserError, match=re.escape(said)):
        planning.plan(load(experiment_file, words), bounds)


def test_a_device_whose_memory_holds_nothing_is_named(
    experiment_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(step_probes, "MOST_PROBES", 2)
    small = "small: {fp32_tflops: 1, memory_gb: 0.02, mfu: 0.5, operator_us: 10}"
    words = [f"devices={{{small}}}", "clients={silo-2: {device: small}}"]
    with pytest.raises(UserError, match=r"silo-2 has 0\.02 GB for training, and the least that"):
        planning.plan(load(experiment_file, words), Bounds(precision=False))


def test_a_link_counts_as_the_simulation_counts_it() -> None:
    link = Link(up_mbps=8.0, latency_ms=10.0)
    up, down = rates(link)
    assert up == pytest.approx(1e6) and down is None and rates(None) == (None, None)
    lossy = Link(up_mbps=8.0, down_mbps=8.0, latency_ms=100.0, loss=0.1)
    up, _ = rates(lossy)
    journey = lossy.mean_journey(0, 500_000, 0.0)
    assert up is not None and journey.up == pytest.approx(0.1 + 500_000 / up)


@pytest.mark.usefixtures("few_probes")
def test_a_plan_that_is_a_little_over_the_bound_is_corrected(
    experiment_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Seconds that are 1 % more than predicted are close, and may be past the user's bound."""
    slower = [1.0]  # of each try; 1 after these

    def counted(_: object, made: Plan) -> dict[str, float]:
        factor = slower.pop() if slower else 1.0
        return {own.silo.name: factor * (own.seconds - own.travel) for own in made.silos}

    monkeypatch.setattr("hanse.planning.fedpipe.silo_devices.counted", counted)
    experiment = load(experiment_file, WORDS)
    free = planning.plan(experiment, Bounds(seconds=100.0))
    slower.append(1.015)
    made = planning.plan(experiment, Bounds(seconds=1.001 * max(s.seconds for s in free.silos)))
    assert not slower and all(own.seconds <= made.bound for own in made.silos)
    assert not any("more than the bound" in remark for remark in made.remarks)
