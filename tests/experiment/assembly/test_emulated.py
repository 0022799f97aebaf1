"""What is refused before any model is loaded, where the trained model is an emulator."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from hanse.errors import UserError
from hanse.experiment.assembly import emulated, resources
from hanse.experiment.assembly.assemble import simulate
from hanse.experiment.loading import load
from hanse.learners.models.emulators.record import FILE
from hanse.planning import emulator as planning
from tiny_models import save_gpt2, save_llama

LAYERS = "layers_to_transform: [0, 1, 3, 4]"


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model of seven layers, its emulator of five, and other models."""
    home = tmp_path_factory.mktemp("models")
    save_llama(home / "deep", layers=7)
    save_llama(home / "deeper", layers=8)
    save_llama(home / "other", ["other words"], layers=7)
    save_gpt2(home / "gpt2")
    planning.make(str(home / "deep"), home / "small", 2, 2, {"layer_drop": {"drop": 0.6}}, None)
    return home


@pytest.fixture(autouse=True)
def nothing_loads(monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(*_: Any) -> None:
        raise AssertionError("a model was loaded")

    monkeypatch.setattr(resources, "load", refused)


def words(home: Path, adapter: str, model: str = "small", whole: str = "deep") -> list[str]:
    return [
        f"model.model_name_or_path={home / model}",
        f"models={{whole: {{model_name_or_path: {home / whole}}}}}",
        f"adapter={adapter}",
        "algorithm=fedot",
    ]


@pytest.mark.parametrize(
    ("adapter", "sentence"),
    [
        ("lora", r"is none, so all are trained, but .*layers_to_transform=\[0,1,3,4\]"),
        ("{lora: {layers_to_transform: [0, 2]}}", "names 2, but of the emulator only bottom"),
        ("{lora: {layers_to_transform: [6]}}", "names 6"),
        ("{full: {top_layers: 2}}", "adapter.full.layers_to_transform is none"),
        ("{prompt_tuning: {num_virtual_tokens: 4}}", "cannot be kept to some layers; choose lora"),
        ("{vera: {r: 2}}", "adapter.peft cannot be kept to some layers"),
        ("bitfit", "adapter.bitfit cannot be kept to some layers"),
        (f"{{lora: {{{LAYERS}, rank_pattern: {{layers.3.mlp: 2}}}}}}", "'layers.3.mlp'"),
        (f"{{ia3: {{{LAYERS}, target_modules: [layers.3.mlp.down_proj]}}}}", "may name layers"),
        (f"{{houlsby: {{{LAYERS}, target_modules: '.*[.]\\d[.].*fc'}}}}", "may name layers"),
    ],
)
def test_an_adapter_outside_of_bottom_and_top(
    experiment_file: Path, folders: Path, adapter: str, sentence: str
) -> None:
    with pytest.raises(UserError, match=sentence):
        simulate(load(experiment_file, words(folders, adapter)))


@pytest.mark.parametrize(
    ("model", "whole", "sentence"),
    [
        ("deep", "deep", "has no emulator.json; make one with `hanse emulator"),
        ("small", "deeper", "a llama with 8 layers of width 32, and that was a llama with 7"),
        ("small", "gpt2", "it is a gpt2 with 2 layers"),
        ("small", "other", "its hash is .*…, and emulator.json has .*…"),
        ("small", "small", "a llama with 5 layers"),
        ("small", "nowhere", "there is no model"),
    ],
)
def test_a_model_that_is_not_the_emulators(
    experiment_file: Path, folders: Path, model: str, whole: str, sentence: str
) -> None:
    settings = words(folders, f"{{lora: {{{LAYERS}}}}}", model, whole)
    with pytest.raises(UserError, match=sentence):
        simulate(load(experiment_file, settings))


def test_a_damaged_record(experiment_file: Path, folders: Path, tmp_path: Path) -> None:
    shutil.copytree(folders / "small", tmp_path / "small")
    file = tmp_path / "small" / FILE
    file.write_text(json.dumps(json.loads(file.read_text()) | {"bottom": 4}))
    settings = words(folders, f"{{lora: {{{LAYERS}}}}}", str(tmp_path / "small"))
    with pytest.raises(UserError, match="no record of an emulator"):
        simulate(load(experiment_file, settings))


def test_remarks_on_a_middle_near_the_model(
    experiment_file: Path, folders: Path, tmp_path: Path
) -> None:
    shutil.copytree(folders / "small", tmp_path / "small")
    file = tmp_path / "small" / FILE
    losses = {"first": {"lm": 2.0}, "last": {"lm": 1.0}}
    distillation = {"settings": {}, "rows": 3, "rows_sha256": "0" * 64, **losses}
    changes = {"compressor": {"low_rank": {}}, "middle_error": 0.03, "distillation": distillation}
    file.write_text(json.dumps(json.loads(file.read_text()) | changes))
    settings = words(folders, f"{{lora: {{{LAYERS}}}}}", str(tmp_path / "small"))
    text = " ".join(emulated.remarks(load(experiment_file, settings), server=True))
    assert "small has all of the model's matrices without their smallest" in text
    assert "but for a distillation, which every client sees; its matrices are 0.03 of" in text
    assert "rows_sha256, by which they can test guesses" in text


def test_a_whole_model_that_is_not_named(experiment_file: Path, folders: Path) -> None:
    settings = [word for word in words(folders, "lora") if not word.startswith("models")]
    with pytest.raises(UserError, match="fedot uses a model called whole") as error:
        load(experiment_file, settings)
    assert "adapter: lora" not in str(error.value)


def test_the_adapter_of_the_whole_model(experiment_file: Path, folders: Path) -> None:
    """It follows from the emulator's, and may be written out, as in a run folder."""
    settings = words(folders, f"{{lora: {{r: 3, {LAYERS}}}}}")
    first = emulated.prepared(load(experiment_file, settings), server=True)
    adapter = first.models["whole"].adapter
    assert adapter is not None and adapter.fresh.layers_to_transform == (0, 1, 5, 6)  # type: ignore[union-attr]
    assert adapter.fresh.r == 3  # type: ignore[union-attr]
    assert emulated.prepared(first, server=True) == first
    other = "models.whole.adapter={lora: {r: 3, layers_to_transform: [0, 1]}}"
    with pytest.raises(UserError, match=r"models.whole.adapter is another one; leave that out"):
        emulated.prepared(load(experiment_file, [*settings, other]), server=True)


def test_a_silo_has_no_whole_model(experiment_file: Path, folders: Path) -> None:
    settings = words(folders, f"{{lora: {{{LAYERS}}}}}", whole="nowhere")
    experiment = load(experiment_file, settings)
    assert emulated.prepared(experiment, server=False) == experiment
    assert list(emulated.remarks(experiment, server=False)) == []
    with pytest.raises(UserError, match="is none, so all are trained"):
        emulated.prepared(load(experiment_file, words(folders, "lora")), server=False)


def test_other_algorithms_take_any_model(experiment_file: Path) -> None:
    experiment = load(experiment_file)
    assert emulated.prepared(experiment, server=True) is experiment
    assert list(emulated.remarks(experiment, server=True)) == []
