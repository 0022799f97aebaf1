"""Models beside the trained one, as `hanse check` shows them."""

from collections.abc import Callable
from pathlib import Path

from hanse.experiment.assembly.assemble import simulate
from hanse.experiment.loading import load
from hanse.planning.preview.named_models import NamedModelFigures, named_models
from samples import ROOT, Outcome

MENTORED = f"algorithm={ROOT}/tests/parts/mentors.py:Mentored"


def words(model: Path) -> list[str]:
    return [
        *(MENTORED, f"models.mentor.model_name_or_path={model}", "models.mentor.bf16=false"),
        "models.mentor.adapter={lora: {r: 2, target_modules: [c_attn]}}",
    ]


def test_models_are_listed_with_their_users(experiment_file: Path, tiny_gpt2: Path) -> None:
    own = "clients={silo-2: {models: {mentor: {bf16: true, adapter: none}}}}"
    simulation = simulate(load(experiment_file, [*words(tiny_gpt2), own]))
    total = simulation.clients["silo-1"].learner.models["mentor"].backbone.weights
    trained = 2 * 2 * (32 + 96)  # c_attn (32, 96) in two layers, with rank 2
    path = str(tiny_gpt2)
    assert named_models(simulation) == {
        NamedModelFigures("mentor", path, trained, total, "float32"): ["silo-1", "silo-3"],
        NamedModelFigures("mentor", path, 0, total, "bfloat16"): ["silo-2"],
    }


def test_the_command_prints_them(
    experiment_file: Path, tiny_gpt2: Path, hanse: Callable[..., Outcome]
) -> None:
    outcome = hanse("check", experiment_file, *words(tiny_gpt2))
    assert outcome.code == 0, outcome.err
    [line] = [line for line in outcome.out.splitlines() if line.startswith("mentor ")]
    assert f"{tiny_gpt2} at silo-1 and 2 more:" in line
    assert "512 trained, in float32" in line
