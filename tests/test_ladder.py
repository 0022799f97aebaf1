"""The ladder: its runs are what they should be, it goes on, and concludes no more than it may."""

import hashlib
import json
import logging
import math
import os
import shutil
import signal
import statistics
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from hanse import cli, journal, simulation
from hanse.assembly import simulate
from hanse.commands.ladder import ladder
from hanse.division import divide
from hanse.errors import UserError
from hanse.ladder import runs
from hanse.ladder.rungs import Rung, refuse, rungs
from hanse.ladder.verdict import verdict
from hanse.loading import load
from hanse.randomness import Moment
from samples import reviews, write_lines

SIZES = {"silo-1": 50, "silo-2": 30, "silo-3": 10}


def _rungs(file: Path, *words: str) -> dict[str, Rung]:
    return {rung.name: rung for rung in rungs(load(file, words), SIZES, 5, Path("home"))}


def test_a_ladder_has_every_rung_with_its_steps(experiment_file: Path) -> None:
    found = _rungs(experiment_file, "train.per_device_train_batch_size=4", "algorithm=fedprox")
    silos = [f"alone-silo-{n}" for n in (1, 2, 3)]
    longer = [f"{name}-longer" for name in silos]
    assert list(found) == [
        *("federated", *silos, *longer),
        *("centralised", "centralised-small-batch"),
    ]
    # 3 rounds of 3 steps at 3 silos
    for names, steps, micro in (
        (silos, 9, 1),
        (longer, 27, 1),
        (["centralised"], 9, 3),
        (["centralised-small-batch"], 27, 1),
    ):
        for name in names:
            settings = found[name].experiment
            assert (settings.rounds, settings.train.max_steps) == (1, steps)
            assert settings.train.gradient_accumulation_steps == micro
            assert settings.train.per_device_train_batch_size == 4
            assert settings.algorithm == "fedavg", "alone, there is nothing to combine"
            assert settings.evaluation.test == "last"
            assert settings.data.pooled == name.startswith("centralised")
    assert found["federated"].experiment.rounds == 3
    assert "fedprox" in found["federated"].experiment.algorithm
    assert found["federated"].experiment.evaluation.test is True
    assert found["alone-silo-2"].experiment.participants == ["silo-2"]
    for name, rung in found.items():
        assert rung.experiment.seed == 5
        assert rung.experiment.output_dir == f"home/{name}"


def test_where_a_round_is_a_pass_as_many_examples_are_seen(experiment_file: Path) -> None:
    found = _rungs(experiment_file, "train.max_steps=null", "train.num_train_epochs=0.5")
    federated = {"silo-1": 3 * 25, "silo-2": 3 * 15, "silo-3": 3 * 5}
    total = sum(federated.values())
    seen = {n: r.experiment.train.seen(SIZES.get(r.client or "", 90)) for n, r in found.items()}
    for silo, examples in federated.items():
        assert seen[f"alone-{silo}"] == examples
        assert seen[f"alone-{silo}-longer"] == total
    assert seen["centralised"] == seen["centralised-small-batch"] == total
    joint, small = (found[n].experiment.train for n in ("centralised", "centralised-small-batch"))
    assert (joint.batch, small.batch) == (3 * 8, 8)
    assert (joint.steps(90), small.steps(90)) == (math.ceil(total / 24), math.ceil(total / 8))


def test_where_some_silos_take_part_in_a_round_they_count(experiment_file: Path) -> None:
    found = _rungs(experiment_file, "fraction_train=0.67")  # 2 of 3
    assert found["alone-silo-1"].experiment.train.max_steps == 9
    assert found["alone-silo-1-longer"].experiment.train.max_steps == 18
    assert found["centralised"].experiment.train.max_steps == 9
    assert found["centralised"].experiment.train.gradient_accumulation_steps == 2
    assert found["centralised-small-batch"].experiment.train.max_steps == 18


def test_a_silo_alone_keeps_its_own_settings(experiment_file: Path) -> None:
    text = experiment_file.read_text()
    own = "{max_steps: 1, per_device_train_batch_size: 2}"
    experiment_file.write_text(text + f"clients: {{silo-2: {{train: {own}}}}}\n")
    found = _rungs(experiment_file)
    alone = found["alone-silo-2"].experiment.for_client("silo-2").train
    assert (alone.max_steps, alone.per_device_train_batch_size) == (3, 2)
    together = 3 * (3 * 8 + 1 * 2 + 3 * 8)
    longer = found["alone-silo-2-longer"].experiment.for_client("silo-2").train
    assert longer.max_steps == together / 2
    assert found["alone-silo-1"].experiment.train.max_steps == 9


def test_alone_is_plain_training_from_a_fresh_adapter(experiment_file: Path) -> None:
    folder = runs.run(load(experiment_file), [4])
    alone = load(folder / "seed-4" / "alone-silo-2" / "experiment.yaml")
    simulated = simulate(alone)
    silo = simulated.silos["silo-2"]
    machine, moment = simulated.machine, Moment(4, 1, "silo-2")
    learner = machine.learner(silo.experiment, silo.examples, moment, {})
    assert learner.fit().steps == 9
    left = load_file(folder / "seed-4" / "alone-silo-2" / "adapter" / "adapter_model.safetensors")
    for name, tensor in learner.tensors().items():
        torch.testing.assert_close(left[name], tensor, rtol=0, atol=1e-6)


def test_participants_hold_the_rows_that_they_hold_in_the_federation(experiment_file: Path) -> None:
    together = simulate(load(experiment_file))
    some = simulate(load(experiment_file, ["participants=[silo-3, silo-1]"]))
    assert list(some.silos) == ["silo-1", "silo-3"]
    for name, silo in some.silos.items():
        assert silo.examples == together.silos[name].examples
    assert some.learner.splits == together.learner.splits


def test_pooled_rows_are_all_that_silos_train_on(experiment_file: Path) -> None:
    together = simulate(load(experiment_file))
    pooled = simulate(load(experiment_file, ["data.pooled=true"]))
    assert list(pooled.silos) == ["pooled"]
    for split in ("train", "test"):
        every = [e.ids for silo in together.silos.values() for e in silo.examples[split]]
        assert [e.ids for e in pooled.silos["pooled"].examples[split]] == every
    trained = {example.ids for example in pooled.silos["pooled"].examples["train"]}
    held = [*pooled.silos["pooled"].examples["test"], *pooled.learner.examples("test")]
    held += pooled.learner.examples("validation")
    assert not trained & {example.ids for example in held}


def test_pooled_rows_are_asked_as_their_silo_asks(experiment_file: Path) -> None:
    text = experiment_file.read_text()
    own = "{template: 'What of {text}?'}"
    experiment_file.write_text(text + f"clients: {{silo-2: {{data: {own}}}}}\n")
    together = simulate(load(experiment_file))
    pooled = simulate(load(experiment_file, ["data.pooled=true"]))
    every = [e.ids for silo in together.silos.values() for e in silo.examples["train"]]
    assert [e.ids for e in pooled.silos["pooled"].examples["train"]] == every


def test_clients_with_their_own_files_climb_too(experiment_file: Path, tmp_path: Path) -> None:
    lines = ["clients:\n"]
    for number, name in enumerate(("north", "south")):
        file = write_lines(tmp_path / f"{name}.jsonl", reviews(40 + 40 * number, seed=number))
        lines.append(f"  {name}: {{data: {{path: {file}}}}}\n")
    experiment_file.write_text(experiment_file.read_text() + "".join(lines))
    figures = _figures(runs.run(load(experiment_file, ["rounds=1", "train.max_steps=1"]), [0]))
    names = ["federated", "alone-north", "alone-south", "alone-north-longer", "alone-south-longer"]
    names += ["centralised", "centralised-small-batch"]
    assert [rung["name"] for rung in figures["rungs"]] == names


def test_figures_are_those_of_the_runs(experiment_file: Path) -> None:
    folder = runs.run(load(experiment_file), [0, 1])
    figures = _figures(folder)
    by_name = {rung["name"]: {o["seed"]: o for o in rung["seeds"]} for rung in figures["rungs"]}
    lines = {line["name"]: line for line in figures["summary"]}
    assert (figures["done"], figures["planned"], figures["test_items"]) == (18, 18, 30)
    assert (figures["metric"], figures["clients"], figures["rounds"]) == ("accuracy", 3, 3)

    run = folder / "seed-1" / "federated"
    before = journal.read_scores(run, "test-classification", 0)["items"]
    after = journal.read_scores(run, "test-classification", 3)["items"]
    found = by_name["federated"][1]
    assert found["run"] == "seed-1/federated"
    assert found["value"] == pytest.approx(sum(after) / 30)
    assert figures["base"]["value"] == pytest.approx(sum(before) / 30)
    differences = [a - b for a, b in zip(after, before, strict=True)]
    half = 1.959964 * statistics.stdev(differences) / math.sqrt(30)
    assert found["gain"] == pytest.approx(sum(differences) / 30)
    assert (found["low"], found["high"]) == pytest.approx(
        (found["gain"] - half, found["gain"] + half)
    )
    assert (found["steps"], found["examples"]) == (27, 216)
    assert found["bytes"] > 0 == by_name["centralised"][1]["bytes"]
    last = journal.records(run)[-1]["client_test"]
    held = {name: len(rows) for name, rows in divide(load(run / "experiment.yaml")).held.items()}
    right = sum(last[name]["accuracy"] * count for name, count in held.items())
    assert found["own"] == pytest.approx(right / sum(held.values()))

    alone = [[by_name[f"alone-silo-{n}"][s]["value"] for n in (1, 2, 3)] for s in (0, 1)]
    first, second = (sum(values) / 3 for values in alone)
    assert lines["alone"]["value"] == pytest.approx((first + second) / 2)
    federated = [by_name["federated"][s]["value"] for s in (0, 1)]
    gaps = [first - federated[0], second - federated[1]]
    # Two seeds: the 97.5 % quantile of Student's t with one degree of freedom is tan(0.475 π).
    half = math.tan(0.475 * math.pi) * abs(gaps[0] - gaps[1]) / 2
    against = lines["alone"]["against_federated"]
    assert against["value"] == pytest.approx(sum(gaps) / 2)
    assert against["high"] - against["low"] == pytest.approx(2 * half)
    assert (lines["alone"]["steps"], lines["alone-longer"]["steps"]) == (9, 27)
    assert (lines["centralised"]["steps"], lines["centralised"]["examples"]) == (9, 216)


def test_a_loss_is_better_when_it_is_lower(experiment_file: Path) -> None:
    words = ["objective=sft", "rounds=1", "train.max_steps=1"]
    figures = _figures(runs.run(load(experiment_file, words), [0]))
    assert (figures["metric"], figures["higher_is_better"]) == ("loss", False)


def test_any_rung_can_be_run_again_from_its_own_settings(
    experiment_file: Path, tmp_path: Path
) -> None:
    folder = runs.run(load(experiment_file), [0, 1])
    for name in ("seed-1/federated", "seed-1/alone-silo-3", "seed-1/centralised"):
        words = [f"output_dir={tmp_path / name}"]
        again = simulation.run(load(folder / name / "experiment.yaml", words))
        assert _digest(again) == _digest(folder / name)


def test_a_killed_ladder_goes_on_where_it_was(
    experiment_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = _figures(runs.run(load(experiment_file, [f"output_dir={tmp_path / 'whole'}"]), [0, 1]))
    finish, left = simulation._finish, iter(range(12))

    def cut(*words: Any) -> None:
        if next(left) == 11:
            raise RuntimeError("power cut")
        finish(*words)

    monkeypatch.setattr(simulation, "_finish", cut)
    with pytest.raises(RuntimeError):
        runs.run(load(experiment_file), [0, 1])
    monkeypatch.undo()
    folder = tmp_path / "run"
    assert (_figures(folder)["done"], len(_figures(folder)["rungs"])) == (11, 9)
    assert "11 of 18 rungs are done" in _figures(folder)["verdict"]
    early = {p: p.stat().st_mtime_ns for p in (folder / "seed-0").rglob("*") if p.is_file()}
    runs.resume(folder)
    assert {path: path.stat().st_mtime_ns for path in early} == early, "not done again"
    assert _timeless(_figures(folder)) == _timeless(whole)


@pytest.mark.parametrize(
    ("logger", "line", "finished"),
    [("ladder.runs", "alone-silo-1, ", 1), ("exchange", "round 1: pooled answered train", 8)],
)
def test_ctrl_c_stops_when_a_round_is_saved(
    experiment_file: Path, tmp_path: Path, logger: str, line: str, finished: int
) -> None:
    def press(record: logging.LogRecord) -> bool:
        if record.getMessage().startswith(line):
            os.kill(os.getpid(), signal.SIGINT)
        return True

    log = logging.getLogger(f"hanse.{logger}")
    log.setLevel(logging.INFO)
    log.addFilter(press)
    try:
        with pytest.raises(
            UserError, match=f"stopped with {finished} of 9 .* `hanse resume .*run`"
        ):
            runs.run(load(experiment_file), [0])
    finally:
        log.removeFilter(press)
    assert _figures(tmp_path / "run")["done"] == finished
    assert _figures(runs.resume(tmp_path / "run"))["done"] == 9


def test_a_changed_ladder_is_refused(
    experiment_file: Path, review_file: Path, tmp_path: Path
) -> None:
    mine = write_lines(tmp_path / "mine.jsonl", reviews(120))
    short = ["rounds=1", "train.max_steps=1", f"data.path={mine}"]
    folder = runs.run(load(experiment_file, short), [0])
    text = (folder / "ladder.yaml").read_text()
    (folder / "ladder.yaml").write_text(text.replace("max_steps: 1", "max_steps: 2"))
    with pytest.raises(UserError, match=r"seed-0/federated was made with other settings \(train\)"):
        runs.resume(folder)
    (folder / "ladder.yaml").write_text(text)
    write_lines(mine, reviews(121))
    with pytest.raises(UserError, match="the data have changed"):
        runs.resume(folder)
    write_lines(mine, reviews(120))
    scores = folder / "seed-0" / "centralised" / "scores" / "test-classification-00001.json"
    scores.write_text("{")
    with pytest.raises(UserError, match=r"the scores of the finished run .*/centralised cannot"):
        runs.resume(folder)
    shutil.rmtree(folder / "seed-0" / "centralised")
    assert _figures(runs.resume(folder))["done"] == 9
    (folder / "ladder.json").write_text("{")
    with pytest.raises(UserError, match="the seeds are not known"):
        runs.resume(folder)


@pytest.mark.parametrize(
    ("word", "said"),
    [
        ("num_clients=1", "there is one client"),
        ("data.pooled=true", "sets by itself"),
        ("participants=[silo-1]", "sets by itself"),
        ("data.test=0", r"data\.test is 0"),
    ],
)
def test_what_no_ladder_can_be_made_of_is_refused(
    experiment_file: Path, word: str, said: str
) -> None:
    with pytest.raises(UserError, match=said):
        refuse(load(experiment_file, [word]))


def test_names_of_clients_that_would_share_a_folder_are_refused(experiment_file: Path) -> None:
    lines = "".join(f"  {n}: {{data: {{path: {n}.jsonl}}}}\n" for n in ("east", "east-longer"))
    experiment_file.write_text(experiment_file.read_text() + "clients:\n" + lines)
    with pytest.raises(UserError, match="cannot be called 'east-longer'"):
        refuse(load(experiment_file))


@pytest.mark.parametrize(
    ("word", "said"),
    [
        ("participants=[silo-9]", "silo-9 is no client"),
        ("participants=[]", "at least 1"),
        ("evaluation.test=first", "evaluation.test is 'first'"),
    ],
)
def test_wrong_settings_are_named(experiment_file: Path, word: str, said: str) -> None:
    with pytest.raises(UserError, match=said):
        load(experiment_file, [word])


def test_participants_and_pooled_rows_exclude_each_other(experiment_file: Path) -> None:
    with pytest.raises(UserError, match="exclude each other"):
        load(experiment_file, ["participants=[silo-1]", "data.pooled=true"])


def _line(name: str, value: float, gap: float, half: float | None) -> dict[str, Any]:
    low, high = (None, None) if half is None else (gap - half, gap + half)
    return {
        "name": name,
        "value": value,
        "against_federated": {"value": gap, "low": low, "high": high},
    }


@pytest.mark.parametrize(
    ("base", "alone", "longer", "half", "higher", "said"),
    [
        (-0.2, -0.1, -0.1, 0.05, True, "Federation pays here: "),
        (-0.2, -0.1, -0.04, 0.05, True, "Whether federation pays is not clear here"),
        (-0.2, -0.1, 0.1, 0.05, True, "Federation does not pay here"),
        (0.2, 0.1, 0.1, 0.05, True, "Federation does not pay here"),
        (0.2, 0.1, 0.1, 0.05, False, "Federation pays here"),
        (-0.2, -0.1, -0.1, None, True, "One seed is too few to say"),
    ],
)
def test_the_verdict_says_no_more_than_the_intervals(
    base: float, alone: float, longer: float, half: float | None, higher: bool, said: str
) -> None:
    gaps = {"base": base, "alone": alone, "federated": 0.0, "alone-longer": longer}
    lines = [_line(name, 0.5 + gap, gap, half) for name, gap in gaps.items()]
    figures = {"metric": "score", "higher_is_better": higher, "summary": lines}
    found = verdict({**figures, "done": 9, "planned": 9})
    assert found.startswith(said)
    assert f"0.500 against {0.5 + base:.3f} of the base model ({-base:+.3f}" in found
    assert "9 of 12 rungs are done" in verdict({**figures, "done": 9, "planned": 12})


def test_nothing_is_said_before_there_is_something_to_compare() -> None:
    figures = {"metric": "score", "higher_is_better": True, "done": 2, "planned": 9}
    lines = [_line("base", 0.4, -0.1, 0.01), _line("federated", 0.5, 0.0, 0.0)]
    found = verdict({**figures, "summary": lines})
    assert found == "Nothing can be said yet: 2 of 9 rungs are done."


def test_the_command_shows_the_ladder_and_resume_goes_on(
    experiment_file: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["rounds=1", "train.max_steps=1"]
    out = _said(monkeypatch, capsys, "ladder", str(experiment_file), *words, "--seeds", "0,1")
    again = _said(monkeypatch, capsys, "resume", str(experiment_file.parent / "run"))
    for shown in (out, again):
        for expected in (
            "base",
            "alone, longer",
            "centralised",
            "±",
            "over 2 seeds",
            "30 test rows",
        ):
            assert expected in shown
    with pytest.raises(UserError, match="--seeds has 'two' in it"):
        ladder(experiment_file, seeds=["two"])


def _said(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], *words: str) -> str:
    """What a command prints."""
    monkeypatch.setattr(sys, "argv", ["hanse", *words])
    cli.main()
    return capsys.readouterr().out


def _figures(folder: Path) -> dict[str, Any]:
    content: dict[str, Any] = json.loads((folder / "ladder.json").read_text())
    return content


def _timeless(figures: dict[str, Any]) -> dict[str, Any]:
    """The figures without what depends on the clock (a message tells the seconds of its client)."""
    for rung in figures["rungs"]:
        for outcome in rung["seeds"]:
            del outcome["training_seconds"], outcome["bytes"]
    return figures


def _digest(folder: Path) -> str:
    return hashlib.sha256(
        (folder / "adapter" / "adapter_model.safetensors").read_bytes()
    ).hexdigest()
