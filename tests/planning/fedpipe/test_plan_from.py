"""`hanse plan --from`: a plan from a run of the probe, in which silos tell of their machines."""

import json
import math
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
import yaml

from hanse.errors import UserError
from hanse.experiment.loading import load
from hanse.federation.speed.link_rounds import LinkRound
from hanse.planning.devices.silo_figures import PREFIX, SiloFigures, StepFigures
from hanse.planning.fedpipe import plan_from, plan_page
from hanse.planning.fedpipe.cost_model import StepSetting
from hanse.planning.fedpipe.planned import Bounds, Plan
from hanse.simulation import run as simulation
from samples import Outcome, write_experiment

SETTINGS = [
    StepSetting(*own)
    for own in ((1, 8, 1, 1), (4, 8, 4, 2), (1, 24, 4, 1), (4, 24, 1, 2), (2, 16, 2, 1))
]


def figures(slower: float = 1.0, **own: Any) -> SiloFigures:
    """A machine with 1 GB free whose steps take a millisecond, and some for each token."""
    steps = tuple(
        StepFigures(*s, slower * (1e-3 + 1e-4 * s.rows * s.length), 1e3 * s.rows * s.length, 3e5)
        for s in SETTINGS
    )
    usual = {
        "memory_held": 1e9,
        "memory_free": 1e9,
        "layers": 2,
        "mean": 12,
        "longest": 24,
        "steps": steps,
    }
    return SiloFigures(cores=2, float32=1e11, bfloat16=1e11, bandwidth=1e10, **(usual | own))


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory, tiny_llama: Path, review_file: Path) -> Path:
    return write_experiment(tmp_path_factory.mktemp("plan-from"), tiny_llama, review_file)


@pytest.fixture(scope="module")
def probe(file: Path) -> Path:
    """The folder of a run of the probe, in which no silo has told of its machine."""
    words = ["algorithm={fedpipe: {probe: true}}", "rounds=1"]
    folder = simulation.run(load(file, [*words, f"output_dir={file.parent / 'probe'}"]))
    (folder / "ledger.jsonl").rename(folder / "as-it-was.jsonl")
    return folder


@pytest.fixture
def told(probe: Path) -> Callable[[Mapping[str, Mapping[str, float]]], Path]:
    """Lets silos of the probe have told these numbers, beside or in place of others."""
    before = (probe / "as-it-was.jsonl").read_bytes()

    def tell(numbers: Mapping[str, Mapping[str, float]]) -> Path:
        lines = []
        for line in map(json.loads, before.splitlines()):
            own = numbers.get(line["client"], {}) if line["kind"] == "train" else {}
            lines.append(json.dumps({**line, **own}))
        (probe / "ledger.jsonl").write_text("\n".join(lines) + "\n")
        return probe

    return tell


PACE = {"weight": 400.0, "seconds": 2.0, "tokens": 1000.0, "examples": 100.0}
SILOS = {
    "silo-1": {**figures().numbers(), **PACE},
    "silo-2": {**figures(slower=4.0).numbers(), **PACE},
    "silo-3": {**PACE, "seconds": 6.0},
}


def timed(folder: Path, links: Mapping[str, tuple[float, float, float]]) -> Path:
    """A run whose later rounds have timed these links: latency, bytes a second up and down."""
    lines = []
    for name, (latency, up, down) in links.items():
        for number, kind in enumerate((*LinkRound, *LinkRound), 2):
            sizes = {"down": 100 + 9000 * kind.down, "up": 200 + 9000 * kind.up}
            late = 5.0 if number < 5 else 0.0  # the first of each kind has waited
            seconds = latency + 9000 * (kind.down / down + kind.up / up) + late
            times = {"sent_at": 1e9, "answered_at": 1e9 + seconds}
            line = {"round": number, "client": name, "kind": "train", "weight": 400.0}
            lines.append(json.dumps({**line, **sizes, **times}) + "\n")
    with open(folder / "ledger.jsonl", "a") as file:
        file.writelines(lines)
    return folder


def made(file: Path, folder: Path, **bounds: Any) -> Plan:
    return plan_from.plan(load(file), Bounds(**bounds), folder)


def test_each_silo_is_planned_by_its_own_steps(file: Path, told: Callable[..., Path]) -> None:
    folder = told(SILOS)
    bound = 0.5 * made(file, folder).usual["silo-2"]
    plan = made(file, folder, seconds=bound)
    seconds = {
        silo.silo.name: plan.steps.seconds(SETTINGS[1], silo.silo.machine.steps)
        * silo.silo.machine.slower
        for silo in plan.silos
    }
    assert seconds["silo-1"] == pytest.approx(1e-3 + 1e-4 * 32, rel=0.01)
    assert seconds["silo-2"] == pytest.approx(4 * seconds["silo-1"], rel=0.01)
    assert seconds["silo-3"] == pytest.approx(3 * seconds["silo-1"], rel=0.01)
    assert all(silo.seconds <= bound and silo.ranks for silo in plan.silos)
    assert [silo.silo.mean for silo in plan.silos] == [12, 12, 10]
    shares = {silo.silo.name: silo.form.share for silo in plan.silos}
    assert shares["silo-1"] > shares["silo-2"]
    corrected = made(file, folder, seconds=bound, slower={"silo-1": 4.0})
    assert corrected.silos[0].form.share < shares["silo-1"]
    text = "\n".join(plan_page.reasons(plan))
    assert "silo-1 by 5 steps that it measured on 2 cores" in text


def test_links_are_those_that_later_rounds_have_timed(
    file: Path, told: Callable[..., Path]
) -> None:
    without = made(file, told(SILOS))
    assert "links of silo-1, silo-2, silo-3 are not measured" in "\n".join(without.remarks)
    links = {"silo-1": (2.0, 1e3, 1e4), "silo-2": (0.5, math.inf, 1e6)}
    plan = made(file, timed(told(SILOS), links))
    remarks = "\n".join(plan.remarks)
    assert "link of silo-1: 0.08 Mbit/s down, 0.008 Mbit/s up, 2 s for an empty" in remarks
    assert "link of silo-2: 8 Mbit/s down, no limit seen up, 0.5 s for an empty" in remarks
    assert "links of silo-3 are not measured" in remarks
    for own, before in zip(plan.silos, without.silos, strict=True):
        latency, up, down = links.get(own.silo.name, (0.0, math.inf, math.inf))
        assert own.travel == pytest.approx(latency + own.bytes / up + own.bytes / down)
        assert own.silo.rows == before.silo.rows  # those of the round that has trained
        assert plan.expected[own.silo.name] == pytest.approx(own.seconds - own.travel, rel=0.01)


def test_the_planned_file_has_the_expected_seconds(file: Path, told: Callable[..., Path]) -> None:
    plan = made(file, told(SILOS))
    out = file.with_name("planned-from.yaml")
    plan_page.write(out, file, plan)
    written = yaml.safe_load(out.read_text())["algorithm"]["fedpipe"]["expected_seconds"]
    assert written.keys() == SILOS.keys()
    for silo in plan.silos:
        assert written[silo.silo.name] == pytest.approx(silo.seconds, rel=0.01)
    simulation.run(load(out, [f"output_dir={file.parent / 'planned-from'}", "rounds=1"]))


def test_a_silo_that_tells_nothing_is_named_with_what_is_assumed(
    file: Path, told: Callable[..., Path]
) -> None:
    small = {**figures(memory_free=4e8).numbers(), **PACE}
    plan = made(file, told({**SILOS, "silo-2": small}))
    (said,) = [remark for remark in plan.remarks if remark.startswith("silo-3")]
    assert said == (
        "silo-3: it sends no figures of its machine (policy.profile there); its seconds are taken "
        "as 3 times those of silo-1, as its training in the probe took, its memory as 1.4 GB, with "
        "as much free as the least of the others has, and its longest row as theirs"
    )
    given = made(file, told(SILOS), memory={"silo-3": 3e9})
    assert given.silos[2].silo.machine.memory == 3e9
    assert any("its memory as that of --memory" in remark for remark in given.remarks)


@pytest.mark.parametrize(
    ("name", "value", "said"),
    [
        ("memory_free", -1.0, "memory_free came as -1, and is 0 to 1e+15"),
        ("memory_free", None, "memory_free came as none, and is 0 to 1e+15"),
        ("step0_seconds", 1e30, "step0_seconds came as 1e+30, and is 1e-09 to 1e+06"),
        ("step3_rows", 0.0, "step3_rows came as 0, and is 1 to 1e+06"),
        ("step0_seconds", None, "it tells no measured step"),
        ("cores", math.nan, "cores came as none"),
    ],
)
def test_figures_that_cannot_be_are_refused_in_one_sentence(
    file: Path, told: Callable[..., Path], name: str, value: float | None, said: str
) -> None:
    numbers = {**SILOS["silo-2"], PREFIX + name: value}
    if value is None:
        del numbers[PREFIX + name]
    plan = made(file, told({**SILOS, "silo-2": numbers}))
    (remark,) = [remark for remark in plan.remarks if remark.startswith("silo-2")]
    assert f"silo-2: the figures of its machine are refused: {said}" in remark
    assert plan.silos[1].silo.machine.measured == "silo-1"


def test_a_silo_that_lies_decides_nothing_for_others(file: Path, told: Callable[..., Path]) -> None:
    third = {**figures().numbers(), **PACE}
    liar = {
        name: 1e15 if "memory" in name or "kept" in name else value for name, value in third.items()
    }
    plan = made(file, told({**SILOS, "silo-2": liar, "silo-3": third}))
    assert plan.silos[0].memory < 2e9


@pytest.mark.parametrize("seconds", [5e-324, 1e-300, 1e30])
def test_seconds_that_no_training_takes_are_as_none(
    file: Path, told: Callable[..., Path], seconds: float
) -> None:
    liar = {**SILOS["silo-1"], "seconds": seconds}
    plan = made(file, told({**SILOS, "silo-1": liar}))
    assert plan.silos[2].silo.machine.slower == 3.0
    assert plan.silos[2].silo.machine.measured == "silo-2"


def test_a_silo_without_figures_is_taken_beside_the_most_alike(
    file: Path, told: Callable[..., Path]
) -> None:
    slow = {**SILOS["silo-2"], "seconds": 8.0}
    machine = made(file, told({**SILOS, "silo-2": slow})).silos[2].silo.machine
    assert (machine.measured, machine.slower) == ("silo-2", 0.75)


def test_other_folders_are_refused(
    file: Path, probe: Path, told: Callable[..., Path], tmp_path: Path
) -> None:
    with pytest.raises(UserError, match="is no run folder; name that of a run of FedPipe's probe"):
        made(file, tmp_path)
    other = simulation.run(load(file, ["rounds=1", f"output_dir={tmp_path / 'other'}"]))
    with pytest.raises(UserError, match="is no run of FedPipe's probe"):
        made(file, other)
    with pytest.raises(UserError, match="is a probe with another adapter than the experiment"):
        plan_from.plan(load(file, ["adapter.lora.r=2"]), Bounds(), probe)
    with pytest.raises(UserError, match="no silo has told of its machine in"):
        made(file, told({}))
    with pytest.raises(UserError, match=r"train\.packing fills rows up to model\.max_length"):
        plan_from.plan(load(file, ["train.packing=true"]), Bounds(), probe)
    more = load(file, ["num_clients=4"])
    with pytest.raises(UserError, match="has no answer of silo-4 to the probe"):
        plan_from.plan(more, Bounds(), told(SILOS))


def test_the_command_plans_from_a_folder(
    hanse: Callable[..., Outcome], file: Path, told: Callable[..., Path], tmp_path: Path
) -> None:
    folder, out = told(SILOS), tmp_path / "out.yaml"
    outcome = hanse("plan", file, "--from", folder, "--out", out, "--round-seconds", "1")
    assert outcome.code == 0, outcome.err
    assert "silo-3: it sends no figures" in outcome.out.replace("\n      ", " ") and out.is_file()
    both = hanse("plan", file, "--from", folder, "--profiles", "silo-1=no.json", "--out", "b.yaml")
    assert both.code == 2 and both.err.count("hanse: ") == 1
