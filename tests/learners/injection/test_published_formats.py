"""Adapters on disk as others read them: PEFT, Ollama, vLLM, and the hub."""

import json
from pathlib import Path
from typing import Any

import pytest
import yaml
from peft import LoraConfig, PeftConfig

from hanse.experiment.assembly.resources import Resources
from hanse.experiment.loading import load
from hanse.learners.adapted_model import AdaptedModel
from hanse.learners.adapters.lora import Lora
from hanse.learners.injection import adapter_files
from hanse.learners.load import load as load_model
from hanse.learners.models import model_files
from hanse.learners.models.settings import BaseModelSettings
from hanse.learners.objectives.sft import Sft
from hanse.learners.training.settings import TrainingSettings
from hanse.randomness import RoundContext
from hanse.serving import trained_adapter
from hanse.simulation import run as simulation

CONFIG = "adapter_config.json"
SNAPSHOT = "/home/ann/.cache/huggingface/hub/models--org--tiny-2.5/snapshots/" + "0" * 40

# Ollama, convert/convert.go: type AdapterParameters. Go's decoder refuses 16.0 for a uint32.
OLLAMA = {"lora_alpha": int, "lora_layers": int}
# vLLM, vllm/lora/peft_helper.py: class PEFTHelper. The first three are required; others have
# defaults, and modules_to_save must be empty.
VLLM: dict[str, tuple[type, ...]] = {
    "r": (int,),
    "lora_alpha": (int,),
    "target_modules": (list, str),
    "bias": (str,),
    "use_rslora": (bool,),
    "use_dora": (bool,),
}
# PEFT, peft/tuners/lora/config.py: class LoraConfig.
PEFT_RANKS = ("rank_pattern", "alpha_pattern")


def _saved(folder: Path, model: Path, adapter: Lora) -> dict[str, Any]:
    backbone = load_model(BaseModelSettings(str(model), bf16=False, device="cpu"))
    name = backbone.attach(adapter, 0)
    context, settings = RoundContext(0), TrainingSettings()
    AdaptedModel(backbone, name, {}, settings, Sft(), context, 1, {}).save(folder)
    written: dict[str, Any] = json.loads((folder / CONFIG).read_text())
    return written


@pytest.mark.parametrize("alpha", [16, 16.0, 32])
def test_whole_numbers_are_written_as_peft_writes_them(
    alpha: float, tiny_llama: Path, tmp_path: Path
) -> None:
    adapter = Lora(r=4, lora_alpha=alpha, rank_pattern={"q_proj": 2, "v_proj": 8})
    written = _saved(tmp_path, tiny_llama, adapter)
    for name, kind in OLLAMA.items():
        assert type(written.get(name, 0)) is kind
    for name, kinds in VLLM.items():
        assert type(written[name]) in kinds
    assert not written["modules_to_save"]
    for name in PEFT_RANKS:
        assert {type(value) for value in written[name].values()} == {int}
    assert written["alpha_pattern"] == {"q_proj": alpha / 2, "v_proj": alpha * 2}
    by_peft = LoraConfig(r=4, lora_alpha=int(alpha), task_type="CAUSAL_LM").to_dict()
    assert {n: type(written[n]) for n in ("r", "lora_alpha")} == {
        n: type(by_peft[n]) for n in ("r", "lora_alpha")
    }
    assert adapter_files.read(tmp_path)[0].lora_alpha == alpha  # type: ignore[attr-defined]
    assert PeftConfig.from_pretrained(str(tmp_path)).lora_alpha == alpha  # type: ignore[attr-defined]


def test_a_fraction_stays_one(tiny_llama: Path, tmp_path: Path) -> None:
    assert _saved(tmp_path, tiny_llama, Lora(r=4, lora_alpha=2.5))["lora_alpha"] == 2.5


@pytest.mark.parametrize(
    ("name", "id"),
    [
        ("smollm2-135m", "HuggingFaceTB/SmolLM2-135M-Instruct"),
        ("minilm-l6", "sentence-transformers/all-MiniLM-L6-v2"),
        ("org/tiny-2.5", "org/tiny-2.5"),
        (SNAPSHOT, "org/tiny-2.5"),
        ("/home/ann/models/llama", None),
        ("models/llama/", None),
        ("models/x.gguf", None),
    ],
)
def test_only_a_hubs_id_is_one(name: str, id: str | None) -> None:
    assert model_files.hub_id(name) == id


def test_a_folder_that_looks_like_an_id_is_a_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "org" / "tiny").mkdir(parents=True)
    monkeypatch.chdir(tmp_path)
    assert model_files.hub_id("org/tiny") is None


def test_every_packaged_model_has_a_hub_id() -> None:
    assert model_files.HUB_IDS.keys() == model_files.PACKAGED.keys()


def test_nothing_in_the_folder_names_a_place_on_this_machine(
    experiment_file: Path, tmp_path: Path
) -> None:
    folder = simulation.run(load(experiment_file, ["rounds=1"])) / "adapter"
    for file in folder.rglob("*"):
        assert str(tmp_path).encode() not in file.read_bytes(), file
        assert str(Path.home()).encode() + b"/" not in file.read_bytes(), file
    _, head, card = (folder / "README.md").read_text().split("---\n", 2)
    assert yaml.safe_load(head) == {
        "library_name": "peft",
        "tags": ["federated-learning", "hanse"],
    }
    model = Path(load(experiment_file).model.model_name_or_path).name
    assert f"An adapter for `{model}`" in card
    assert json.loads((folder / CONFIG).read_text())["base_model_name_or_path"] is None


def test_the_card_of_a_hubs_model_names_it(
    experiment_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    experiment = load(experiment_file, ["rounds=1"])
    place = experiment.model.model_name_or_path
    monkeypatch.setitem(model_files.HUB_IDS, place, "org/tiny")
    folder = simulation.run(experiment) / "adapter"
    _, head, _ = (folder / "README.md").read_text().split("---\n", 2)
    assert yaml.safe_load(head)["base_model"] == "org/tiny"
    assert json.loads((folder / CONFIG).read_text())["base_model_name_or_path"] == "org/tiny"


def test_a_packaged_model_is_found_by_its_id_at_the_hub(monkeypatch: pytest.MonkeyPatch) -> None:
    id = model_files.HUB_IDS["smollm2-135m"]
    assert model_files.packaged("org/other") == "org/other"
    package = model_files.PACKAGED["smollm2-135m"]
    monkeypatch.setitem(model_files.PACKAGED, "smollm2-135m", ("json", *package[1:]))
    assert model_files.packaged(id) == "smollm2-135m"
    monkeypatch.setitem(model_files.PACKAGED, "smollm2-135m", ("no_such_module", *package[1:]))
    assert model_files.packaged(id) == id


def test_an_adapter_alone_is_used_with_the_base_model_that_the_user_names(
    tiny_llama: Path, tmp_path: Path
) -> None:
    _saved(tmp_path, tiny_llama, Lora(r=4))
    trained = trained_adapter.find(tmp_path, [f"model.model_name_or_path={tiny_llama}"])
    assert trained.experiment.model.model_name_or_path == str(tiny_llama)
    assert trained.learner(Resources(), {}).parameters()
