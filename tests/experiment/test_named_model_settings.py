"""The section `models`: its settings, and who must name which models."""

from pathlib import Path
from typing import Any

import pytest

from hanse.errors import UserError
from hanse.experiment.assembly.method import method_remarks
from hanse.experiment.loading import load
from hanse.experiment.schema import Experiment
from hanse.experiment.validation import free, keys
from hanse.journal import yaml_text
from hanse.learners.adapters.houlsby import Houlsby
from hanse.learners.adapters.lora import Lora
from hanse.learners.objectives.sft import Sft
from hanse.simulation.baselines.variants import variants
from samples import ROOT, reviews, write_lines

PART = ROOT / "tests" / "parts" / "mentors.py"
MENTORED = f"algorithm={PART}:Mentored"


def mentor(file: Path, *words: str, **settings: Any) -> Any:
    return load(file, [MENTORED, f"models.mentor.max_length={64}", *words]).models["mentor"]


def test_a_model_has_the_settings_of_the_trained_one_and_an_adapter(experiment_file: Path) -> None:
    plain = mentor(experiment_file)
    assert (plain.max_length, plain.adapter) == (64, None)
    assert mentor(experiment_file, "models.mentor.adapter=none").adapter is None
    lora = mentor(experiment_file, "models.mentor.adapter.lora.r=3")
    assert lora.adapter.fresh == Lora(r=3)
    assert mentor(experiment_file, "models.mentor.adapter=houlsby").adapter.fresh == Houlsby()


def test_the_resolved_experiment_loads_as_the_same(experiment_file: Path, tmp_path: Path) -> None:
    words = [MENTORED, "models.mentor.adapter.lora.r=3", "models.mentor.quantization=int8"]
    experiment = load(experiment_file, words)
    file = tmp_path / "resolved.yaml"
    file.write_text(yaml_text.dump(experiment.resolved()))
    assert load(file).resolved() == experiment.resolved()
    assert experiment.resolved()["models"]["mentor"]["adapter"].keys() == {"lora"}


def test_paths_are_those_beside_the_file(experiment_file: Path, tiny_gpt2: Path) -> None:
    (experiment_file.parent / "beside").symlink_to(tiny_gpt2)
    lines = f"algorithm: '{PART}:Mentored'\nmodels: {{mentor: {{model_name_or_path: beside}}}}\n"
    lines += "clients: {silo-1: {models: {mentor: {model_name_or_path: ./beside}}}}\n"
    experiment_file.write_text(experiment_file.read_text() + lines)
    experiment = load(experiment_file)
    for settings in (experiment, experiment.for_client("silo-1")):
        assert settings.models["mentor"].model_name_or_path == str(tiny_gpt2)


def test_a_client_has_its_own_settings_of_a_model(experiment_file: Path) -> None:
    lines = (
        f"algorithm: '{PART}:Mentored'\nmodels: {{mentor: {{max_length: 64, adapter: lora}}}}\n"
        "clients:\n  silo-1: {models: {mentor: {adapter: {houlsby: {}}}}}\n"
        "  silo-2: {models: {mentor: {max_length: 32, adapter: {lora: {r: 2}}}}}\n"
    )
    experiment_file.write_text(experiment_file.read_text() + lines)
    experiment = load(experiment_file)
    [first, second, third] = (
        experiment.for_client(f"silo-{n}").models["mentor"] for n in (1, 2, 3)
    )
    assert (first.adapter.fresh, first.max_length) == (Houlsby(), 64)
    assert (second.adapter.fresh, second.max_length) == (Lora(r=2), 32)
    assert third == experiment.models["mentor"]


def test_other_tools_names_mean_the_same_as_for_the_trained_model(experiment_file: Path) -> None:
    lines = (
        f"algorithm: '{PART}:Mentored'\nmodels:\n  my-mentor: {{}}\n"
        "  mentor: {cutoff_len: 77, base-model: x, adapter: {lora: {lora_rank: 5}}}\n"
    ).replace("  my-mentor: {}\n", "")
    experiment_file.write_text(experiment_file.read_text() + lines)
    settings = load(experiment_file).models["mentor"]
    assert (settings.max_length, settings.model_name_or_path) == (77, "x")
    assert settings.adapter is not None and settings.adapter.fresh == Lora(r=5)


def test_validation_knows_the_sections_of_models() -> None:
    assert keys(Experiment, ("models", "mentor"))[:2] == ["model_name_or_path", "bf16"]
    assert "lora" in keys(Experiment, ("models", "mentor", "adapter"))
    assert free(Experiment, ("models",)) and not free(Experiment, ("models", "mentor"))


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ([MENTORED], r"uses a model called mentor, and `models` has none; write models: \{m"),
        ([MENTORED, "models.mento.max_length=64"], "called mentor, and `models` has mento;"),
        (["models.mentor.max_length=64"], r"models\.mentor is used by neither .*; leave it out"),
        ([MENTORED, "models.mentor={}", "models.mentors={}"], r"mean 'mentor'\?\); call it mentor"),
        ([f"objective={PART}:Taught"], "the objective .*Taught uses a model called mentor"),
        ([MENTORED, "models.mentor.max_lenght=64"], "'max_lenght' \\(did you mean 'max_length'"),
        ([MENTORED, "models.mentor.quantization=int3"], r"models\.mentor\.quantization is 'int3'"),
        ([MENTORED, "models.mentor.adapter=lorra"], r"there is no setting 'lorra'"),
        ([MENTORED, "models=3"], "models is 3"),
        ([MENTORED, "models.mentor=x"], r"models\.mentor is 'x'; it is a section with"),
        (
            [MENTORED, "models.mentor={}", "clients={silo-1: {models: {mentr: {}}}}"],
            r"clients\.silo-1\.models\.mentr is no model of `models` \(did you mean 'mentor'\?\)",
        ),
    ],
)  # fmt: skip
def test_mistakes_are_said_with_a_way_out(
    experiment_file: Path, words: list[str], said: str
) -> None:
    with pytest.raises(UserError, match=said):
        load(experiment_file, words)


def test_a_baseline_comparison_keeps_the_objectives_models_only(experiment_file: Path) -> None:
    words = [MENTORED, "models.mentor={}", "clients={silo-1: {models: {mentor: {bf16: true}}}}"]
    for more, kept in ([], set()), ([f"objective={PART}:Taught"], {"mentor"}):
        experiment = load(experiment_file, [*words, *more])
        [federated, *others] = variants(experiment, {"silo-1": 30, "silo-2": 30}, 0, Path("home"))
        assert federated.experiment.models.keys() == {"mentor"}
        assert all(other.experiment.models.keys() == kept for other in others)
        assert all(o.experiment.for_client("silo-1").models.keys() == kept for o in others)


TAUGHT = ["models.teacher={}", "objective={distill: {of: classify}}"]


def test_an_objective_whose_loss_would_be_ignored_is_refused(experiment_file: Path) -> None:
    words = ["algorithm=fedkd", "models.mentor.adapter=lora"]
    said = "fedkd trains by .* would ignore the loss of the objective distill; choose the objective"
    with pytest.raises(UserError, match=said):
        load(experiment_file, [*words, *TAUGHT])
    load(experiment_file, words)


def test_an_objective_that_does_not_hold_on_public_rows_is_remarked(
    experiment_file: Path, tmp_path: Path
) -> None:
    public = write_lines(tmp_path / "public.jsonl", reviews(8, seed=5))
    words = ["algorithm=fedcollm", "models.large.adapter=lora", f"data.public={public}"]
    said = (
        "on public rows the algorithm fedcollm trains by a loss of its own; that of the objective"
    )
    remarks = method_remarks(load(experiment_file, [*words, *TAUGHT]), simulated=False)
    assert len([remark for remark in remarks if remark.startswith(f"{said} distill")]) == 1
    remarks = method_remarks(load(experiment_file, words), simulated=False)
    assert not [remark for remark in remarks if said in remark]


def test_another_loss_is_no_cross_entropy_unless_it_is_declared() -> None:
    class Other(Sft):
        def loss(self, learner: Any, batch: Any) -> Any: ...

    class Same(Sft):
        """A subclass with the same loss."""

    assert (Sft.is_cross_entropy, Same.is_cross_entropy, Other.is_cross_entropy) == (
        True,
        True,
        False,
    )
