"""LoRA-XS of every rank, also above a side of the matrices: PEFT reads it, and LoRA goes on."""

from collections.abc import Collection
from pathlib import Path

import pytest
import torch
from peft import PeftModel
from transformers import AutoModelForCausalLM

from hanse.data.example import Example
from hanse.errors import UserError
from hanse.experiment.assembly import execute
from hanse.experiment.loading import load as load_experiment
from hanse.learners.adapted_model import AdaptedModel
from hanse.learners.adapters.lora import Lora
from hanse.learners.adapters.lora_xs import LoraXS
from hanse.learners.injection.adapter import Adapter
from hanse.learners.injection.adapter_files import read
from hanse.learners.injection.tuners.lora_xs import CORE
from hanse.learners.load import load
from hanse.learners.models.settings import BaseModelSettings
from hanse.learners.objectives.sft import Sft
from hanse.learners.training.settings import TrainingSettings
from hanse.randomness import RoundContext
from hanse.simulation import run as simulation
from hanse.tensors.low_rank import layers

ROWS = [Example(tuple(range(k, k + 6)), tuple(range(k, k + 6))) for k in range(2, 10)]
IDS = torch.tensor([[5, 6, 7, 8, 9, 10]])
RANKS = [1, 7, 16, 17, 33, 64, 200]  # the models' matrices have sides of 16, 32, 64, 96 and 128

pytestmark = [  # of PEFT's own calls
    pytest.mark.filterwarnings("ignore::FutureWarning"),
    pytest.mark.filterwarnings("ignore:Unsupported layer type"),
]


def _learner(folder: Path, settings: Adapter) -> AdaptedModel:
    backbone = load(BaseModelSettings(str(folder), bf16=False))
    training = TrainingSettings(learning_rate=0.02, per_device_train_batch_size=4, max_steps=3)
    name, moment = backbone.attach(settings, 0), RoundContext(0, 1, "a")
    return AdaptedModel(backbone, name, {"train": ROWS}, training, Sft(), moment, 1, {})


@pytest.fixture(params=["tiny_llama", "tiny_gpt2"])
def folder(request: pytest.FixtureRequest) -> Path:
    found: Path = request.getfixturevalue(request.param)
    return found


@pytest.mark.parametrize("rank", RANKS)
def test_any_rank_is_read_by_peft_and_gone_on_from(folder: Path, tmp_path: Path, rank: int) -> None:
    learner = _learner(folder, LoraXS(r=rank, lora_alpha=3.0 * rank))
    learner.fit()
    learner.save(tmp_path)
    wanted = learner.backbone.activate(learner.adapter)(input_ids=IDS).logits
    base = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    bare = base(input_ids=IDS).logits
    plain = PeftModel.from_pretrained(base, str(tmp_path)).eval()
    torch.testing.assert_close(plain(input_ids=IDS).logits, wanted, atol=2e-4, rtol=1e-4)
    assert not torch.allclose(wanted, bare, atol=1e-2)
    learner.reopen(tmp_path)

    settings, tensors = read(tmp_path)
    again = _learner(folder, settings)
    assert isinstance(settings, Lora) and settings.r <= rank
    again.load(tensors)
    found = again.backbone.activate(again.adapter)(input_ids=IDS).logits
    torch.testing.assert_close(found, wanted, atol=2e-4, rtol=1e-4)
    before = again.tensors()
    again.fit()
    assert any(not torch.equal(t, before[name]) for name, t in again.tensors().items())


def test_a_cut_rank_is_said_and_keeps_the_scaling(
    tiny_llama: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """s = α/r of what was asked for: the change by the closed form s·U·Σ·R·Vᵀ."""
    learner = _learner(tiny_llama, LoraXS(r=24, lora_alpha=12, target_modules=("k_proj", "q_proj")))
    assert "above the smaller side of 2 of the 4 adapted matrices" in caplog.text
    assert "(at least 16)" in caplog.text
    cores = {name: torch.randn(t.shape) for name, t in learner.tensors().items()}
    learner.load(cores)
    plain = AutoModelForCausalLM.from_pretrained(tiny_llama, dtype=torch.float32)
    weights = dict(plain.named_parameters())
    changed = []
    for name, core in cores.items():
        weight = weights[name.removeprefix("base_model.model.").removesuffix(CORE) + ".weight"]
        u, s, vh = torch.linalg.svd(weight.detach())
        rank = len(core)
        assert rank == min(24, *weight.shape)
        signs = vh[:rank].gather(1, vh[:rank].abs().argmax(1, keepdim=True)).sign()[:, 0]
        up, down = u[:, :rank] * s[:rank] * signs, vh[:rank] * signs[:, None]
        changed.append((weight, 0.5 * up @ core @ down))
    for weight, change in changed:
        weight.data += change
    wanted = plain(input_ids=IDS).logits
    found = learner.backbone.activate(learner.adapter)(input_ids=IDS).logits
    torch.testing.assert_close(found, wanted, atol=1e-3, rtol=1e-3)


@pytest.mark.parametrize("rank", [64, 200])
def test_fed_sb_with_the_ranks_of_its_paper(
    experiment_file: Path, tiny_llama: Path, tmp_path: Path, rank: int
) -> None:
    words = ["algorithm=fed_sb", f"adapter={{lora_xs: {{r: {rank}}}}}", "rounds=2"]
    folder = simulation.run(load_experiment(experiment_file, words))
    base = AutoModelForCausalLM.from_pretrained(tiny_llama, dtype=torch.float32)
    PeftModel.from_pretrained(base, str(folder / "adapter"))
    settings, tensors = read(folder / "adapter")
    assert isinstance(settings, Lora) and settings.r == 32  # the wide sides of q and o
    assert all(part.rank == 32 for part in layers(tensors).values())
    words = ["algorithm=fedavg", f"adapter={{from: {folder}}}", "rounds=1"]
    again = [*words, f"output_dir={tmp_path / 'again'}"]
    gone_on = simulation.run(load_experiment(experiment_file, again))
    assert read(gone_on / "adapter")[0] == settings


def test_what_cannot_be_opened_again_ends_a_run_that_keeps_its_tensors(
    experiment_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    saved = AdaptedModel.save

    def damaged(self: AdaptedModel, folder: Path, without: Collection[str]) -> None:
        saved(self, folder, without)
        file = folder / "adapter_config.json"
        file.write_text(file.read_text().replace('"r": 4', '"r": 5'))

    with monkeypatch.context() as patched:
        patched.setattr(AdaptedModel, "save", damaged)
        with pytest.raises(
            UserError, match=r"cannot be opened again.*adapter is in .*state.*resume"
        ):
            simulation.run(load_experiment(experiment_file, ["rounds=1"]))
    folder = Path(str(load_experiment(experiment_file).output_dir))
    assert not (folder / "adapter").exists() and not execute.finished(folder)
    simulation.resume(folder)
    assert (folder / "adapter").is_dir()
