"""`hanse plan`: an experiment that is planned runs as it is written."""

import json
import re
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import yaml

from hanse.errors import UserError
from hanse.experiment.loading import load
from hanse.learners.models.precision import ComputeMode
from hanse.planning.fedpipe import plan as planning
from hanse.planning.fedpipe import plan_page, step_probes
from hanse.planning.fedpipe.planned import Bounds, Plan
from hanse.planning.fedpipe.precisions import chosen_mode
from hanse.simulation import run as simulation
from machine_profiles import PROFILE
from samples import Outcome, write_experiment

OWN = "clients: {silo-3: {adapter: {lora: {r: 2}}, data: {template: '{text}'}}}    # mine\n"


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory, tiny_llama: Path, review_file: Path) -> Path:
    """An experiment with a comment, and a silo with settings of its own."""
    written = write_experiment(tmp_path_factory.mktemp("plan"), tiny_llama, review_file)
    text = written.read_text(encoding="utf-8")
    text = f"# for the silos\n{text}algorithm: flexlora    # mine\n{OWN}seed: 3    # drawn\n"
    written.write_text(text, encoding="utf-8")
    return written


@pytest.fixture(scope="module")
def made(file: Path) -> Plan:
    """The plan, with a machine of two speeds."""
    fast = {"silo-2": PROFILE}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("hanse.planning.devices.profile.measure", lambda: PROFILE)
        patch.setattr(step_probes, "MOST_PROBES", 5)
        return planning.plan(load(file), Bounds(profiles=fast, memory={"silo-2": 6e9}))


def test_the_planned_experiment_runs_as_it_is_written(file: Path, made: Plan) -> None:
    out = file.with_name("planned.yaml")
    plan_page.write(out, file, made)
    experiment = load(out, [f"output_dir={file.parent / 'planned'}", "rounds=1"])
    for silo in made.silos:
        own = experiment.for_client(silo.silo.name)
        assert own.train.batch == silo.silo.train.batch
        assert own.train.per_device_train_batch_size == silo.form.rows
    folder = simulation.run(experiment)
    assert (folder / "adapter" / "adapter_model.safetensors").is_file()


def test_the_users_text_and_the_settings_of_single_silos_stay(file: Path, made: Plan) -> None:
    text = plan_page.page(file, made)
    values, before = yaml.safe_load(text), yaml.safe_load(file.read_text(encoding="utf-8"))
    assert "# for the silos" in text and "# drawn" in text
    assert values["clients"]["silo-3"] == before["clients"]["silo-3"]
    same = before.keys() - {"clients", "algorithm"}
    assert {key: values[key] for key in same} == {key: before[key] for key in same}
    assert [silo.silo.name for silo in made.silos] == ["silo-1", "silo-2"]
    assert "silo-3 keeps its own settings (adapter)" in text
    assert "# mine" not in text and "comments in `algorithm` and `clients` are not kept" in text
    anew = plan_page.page(file, made, anew=True)
    assert "without its comments" in anew and yaml.safe_load(anew)["seed"] == 3


@pytest.mark.parametrize("former", ["probe: true", "expected_seconds: {silo-1: 9.0}"])
def test_a_probe_or_an_earlier_plans_seconds_do_not_stay(
    file: Path, made: Plan, former: str
) -> None:
    whole = {matrix.name: made.rank for matrix in made.matrices}
    silos = tuple(replace(silo, ranks=whole) for silo in made.silos)
    before = load(file, [f"algorithm={{fedpipe: {{{former}}}}}"])
    out = file.with_name("no-probe.yaml")
    plan_page.write(out, file, replace(made, silos=silos, experiment=before), anew=True)
    assert load(out).algorithm == "fedpipe"
    out.unlink()


@pytest.mark.parametrize("anew", [False, True])
def test_what_auto_chose_is_written_since_memory_and_seconds_are_of_it(
    file: Path, made: Plan, anew: bool
) -> None:
    out, chosen = file.with_name(f"chosen-{anew}.yaml"), {"bf16": True, "products": "onednn"}
    plan = replace(made, model=chosen)
    plan_page.write(out, file, plan, anew)
    model = load(out).model
    assert (model.bf16, model.products) == (True, "onednn")
    text = out.read_text(encoding="utf-8")
    assert "model: bf16: true, products: onednn in place of auto" in text
    assert ("# for the silos" in text) != anew


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ("algorithm: flexlora", "fed_alg: flexlora"),
        ("seed: 3", "bf16: auto"),
        (OWN, "clients:\n  silo-1: {}\n# mine\n  silo-3: {adapter: {lora: {r: 2}}}\n"),
    ],
)
def test_a_file_whose_text_cannot_be_changed_is_written_anew(
    file: Path, made: Plan, before: str, after: str
) -> None:
    other = file.with_name("other.yaml")
    text = file.read_text(encoding="utf-8").replace(before, after).replace(", bf16: false", "")
    other.write_text(text, encoding="utf-8")
    plan = replace(made, experiment=load(other), model={"bf16": True})
    out = file.with_name("anew.yaml")
    plan_page.write(out, other, plan)
    written = load(out)
    assert written.algorithm == "fedpipe" and written.model.bf16 is True
    assert (
        written.for_client("silo-3").adapter.fresh
        == load(other, ["adapter.lora.r=2"]).adapter.fresh
    )
    assert "without its comments" in out.read_text(encoding="utf-8")


def test_packed_rows_are_planned_as_they_are_trained(
    experiment_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(step_probes, "MOST_PROBES", 2)
    words = ["objective=sft", "model.max_length=64", "data.partition=iid"]
    plain = planning.plan(load(experiment_file, words), Bounds())
    packed = planning.plan(load(experiment_file, [*words, "train.packing=true"]), Bounds())
    for one, other in zip(plain.silos, packed.silos, strict=True):
        tokens = one.silo.rows * one.silo.mean
        assert other.silo.rows * other.silo.mean == pytest.approx(tokens, rel=0.05)
        assert other.silo.longest == 64 and 2 * one.silo.mean < other.silo.mean <= 64


def test_only_what_was_auto_and_measured_is_chosen(file: Path) -> None:
    mode, measured = ComputeMode(bf16=True, products="packed"), SimpleNamespace(comparisons=(1,))
    backbone = SimpleNamespace(compute_mode=mode, measurement=measured)
    learner: Any = SimpleNamespace(backbone=backbone)
    auto = load(file, ["model.bf16=auto"])
    assert chosen_mode(auto, learner) == {"bf16": True, "products": "packed"}
    assert chosen_mode(load(file, ["model.bf16=true"]), learner) == {"products": "packed"}
    measured.comparisons = ()  # of a small model, whose choice is the same everywhere
    assert chosen_mode(auto, learner) == {}


def test_a_plan_has_its_evidence(made: Plan) -> None:
    assert made.steps.probes == 5 and made.steps.cost.error is not None
    assert sum(made.importance.scores.values()) == pytest.approx(1)
    assert made.importance.silos == ("silo-1", "silo-2", "silo-3")
    for silo in made.silos:
        assert silo.seconds <= made.bound and silo.memory <= silo.silo.machine.memory
        assert set(silo.ranks.values()) <= {2, 4} and silo.ranks
        assert silo.bytes > 0
    text = "\n".join(plan_page.reasons(made))
    assert re.search(r"from 5 measured steps, \d+ % off", text) and "rank correlation" in text
    assert "some processor, by the ratio of float32 peaks" in text


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["adapter=ia3"], "hanse plan chooses the ranks of LoRA's matrices"),
        (["adapter.lora.use_dora=true"], "without use_dora and target_parameters"),
        (["adapter.lora.rank_pattern={q_proj: 2}"], "rank_pattern has set q_proj already; leave"),
        (["algorithm=scaffold", "train.optim=sgd"], "algorithm: scaffold cannot combine; choose"),
        (["aggregator=secagg"], "FedPipe needs"),
    ],
)
def test_what_no_plan_goes_with_is_refused_before_a_model_is_loaded(
    experiment_file: Path, words: list[str], said: str
) -> None:
    words = [*words, "model.model_name_or_path=owner/nowhere"]
    with pytest.raises(UserError, match=re.escape(said)):
        planning.plan(load(experiment_file, words), Bounds())


@pytest.mark.parametrize(
    ("bounds", "said"),
    [
        (Bounds(memory={"silo-9": 1e9}), "silo-9 is no silo of the experiment"),
        (
            Bounds(memory={"silo1": 1e9}),
            "silo1 is no silo of the experiment (did you mean 'silo-1'",
        ),
        (Bounds(profiles={"silo-9": PROFILE}), "silo-9 is no silo of the experiment"),
        (Bounds(slower={"silo-9": 2.0}), "silo-9 is no silo of the experiment"),
        (Bounds(memory={"silo-3": 1e9}), "silo-3 keeps its own settings (train)"),
    ],
)
def test_bounds_of_silos_that_are_not_planned_are_refused_before_a_model_is_loaded(
    experiment_file: Path, bounds: Bounds, said: str
) -> None:
    own = "clients={silo-3: {train: {learning_rate: 0.1}}}"
    experiment = load(experiment_file, [own, "model.model_name_or_path=owner/nowhere"])
    with pytest.raises(UserError, match=re.escape(said)):
        planning.plan(experiment, bounds)


def test_silos_that_are_all_the_users_own_are_refused(experiment_file: Path) -> None:
    own = ", ".join(f"silo-{n}: {{train: {{learning_rate: 0.1}}}}" for n in (1, 2, 3))
    with pytest.raises(UserError, match="every silo has settings of its own"):
        planning.plan(load(experiment_file, [f"clients={{{own}}}"]), Bounds())


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("--round-seconds", "0"), "--round-seconds came as 0, and"),
        (("--round-seconds", "nan"), "--round-seconds came as nan, and"),
        (("--out", "nowhere/planned.yaml"), "nowhere is no folder"),
        (("--profiles", "silo-1=nothing.json"), "computes nothing (0 FLOP/s)"),
        (("--memory", "much"), "--memory came as 'much'; write GB, such as 8 or silo-1=4.5"),
        (("--memory", "silo-1=-2"), "--memory came as 'silo-1=-2'; write GB"),
        (("--memory", "=2"), "--memory came as '=2'; write GB"),
        (("--memory", "silo-1=2", "--memory", "silo-1=4"), "--memory came twice for silo-1; leave"),
        (("--memory", "2", "--memory", "4"), "--memory came twice for all silos; leave one"),
        (("--slower", "silo-1=2", "--slower", "silo-1=4"), "--slower came twice for silo-1; leave"),
        (
            ("--profiles", "silo-1=some.json", "--profiles", "silo-1=some.json"),
            "--profiles came twice for silo-1; leave one of them out",
        ),
        (("--profiles", "silo-1=none.json"), "none.json says that a machine has no free memory"),
        (("--slower", "silo-1=no"), "--slower came as 'silo-1=no'; write SILO=TIMES, such as"),
        (("--profiles", "silo-1"), "--profiles came as 'silo-1'; write SILO=FILE"),
        (("--profiles", "silo-1=no.json"), "--profiles names no.json, and there is no such file"),
        (("--out", "experiment.yaml"), "exists already; name another file in --out"),
    ],
)
def test_bad_options_are_one_sentence(
    hanse: Callable[..., Outcome], experiment_file: Path, words: tuple[str, ...], said: str
) -> None:
    Path("experiment.yaml").touch()
    Path("nothing.json").write_text(json.dumps(asdict(replace(PROFILE, float32=0.0))))
    Path("none.json").write_text(json.dumps(asdict(replace(PROFILE, memory_free=-5))))
    Path("some.json").write_text(json.dumps(asdict(PROFILE)))
    outcome = hanse("plan", experiment_file, *words)
    assert outcome.code == 2 and said in outcome.err and "Traceback" not in outcome.err
    assert outcome.err.count("hanse: ") == 1


@pytest.mark.parametrize(
    ("line", "words", "free"),
    [
        ("", (), True),
        ("load_in_4bit: false", (), False),
        ("", ("model.quantization=none",), False),
        ("", ("quantization=none",), False),
    ],
)
def test_bits_that_the_user_names_under_any_name_stay(
    hanse: Callable[..., Outcome],
    experiment_file: Path,
    monkeypatch: pytest.MonkeyPatch,
    line: str,
    words: tuple[str, ...],
    free: bool,
) -> None:
    def planned(_: object, bounds: Bounds) -> Plan:
        raise UserError(f"bits are free: {bounds.precision}.")

    monkeypatch.setattr(planning, "plan", planned)
    text = experiment_file.read_text(encoding="utf-8")
    experiment_file.write_text(f"{text}{line}\n", encoding="utf-8")
    outcome = hanse("plan", experiment_file, *words)
    assert f"bits are free: {free}" in outcome.err


@pytest.mark.parametrize("folder", [".", "/", "some"])
def test_a_folder_in_place_of_an_experiment_is_one_sentence(
    hanse: Callable[..., Outcome], folder: str
) -> None:
    Path("some").mkdir()
    outcome = hanse("plan", folder)
    assert outcome.code == 2
    assert (
        outcome.err
        == f"hanse: {folder} is a folder, and a plan is made of an experiment; name its file.\n"
    )


def test_the_command_writes_a_copy_and_names_silos_that_hold_nothing(
    hanse: Callable[..., Outcome],
    experiment_file: Path,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    monkeypatch.setattr(step_probes, "SECONDS", 0.0)
    monkeypatch.setattr(step_probes, "LONG", 0.0)
    profile = tmp_path / "slow.json"
    profile.write_text(json.dumps(asdict(PROFILE)))
    words = ("--out", "planned.yaml", "--profiles", f"silo-1={profile}", "seed=5")
    outcome = hanse("plan", experiment_file, *words)
    assert outcome.code == 0, outcome.err
    assert "from 4 measured steps, and no more since they took long," in outcome.out
    assert "plan  planned.yaml" in outcome.out and "silo-3" in outcome.out
    assert load(Path("planned.yaml")).seed == 5
    small = hanse("plan", experiment_file, "--out", "b.yaml", "--memory", "silo-2=0.01")
    assert small.code == 2 and not Path("b.yaml").exists()
    assert "silo-2 has 0.01 GB for training, and the least that would fit is" in small.err
