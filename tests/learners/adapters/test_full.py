"""Fine-tuning of the weights: which are trained, and that they move as in plain PyTorch."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from clients import client
from hanse.data.example import Example
from hanse.errors import UserError
from hanse.learners.adapted_model import AdaptedModel
from hanse.learners.adapters.full import Full
from hanse.learners.injection.adapter import Adapter
from hanse.learners.injection.adapter_files import read
from hanse.learners.load import load
from hanse.learners.models.settings import BaseModelSettings
from hanse.learners.training.settings import TrainingSettings
from hanse.planning.emulator import make
from tiny_models import save_llama

ROWS = [Example(tuple(range(k, k + 6)), tuple(range(k, k + 6))) for k in range(2, 10)]


def _learner(folder: Path, settings: Adapter) -> AdaptedModel:
    return client(load(BaseModelSettings(str(folder), bf16=False)), "a", ROWS, settings)


@pytest.mark.parametrize(
    ("settings", "trained"),
    [
        (Full(top_layers=1), ["h.1", "ln_f"]),
        (Full(freeze_layers=1), ["h.1", "ln_f"]),
        (Full(freeze_embeddings=True), ["h.0", "h.1", "ln_f"]),
        (Full(), ["wte", "wpe", "h.0", "h.1", "ln_f"]),
        (Full(layers_to_transform=(1,)), ["h.1"]),
        (Full(layers_to_transform=(0, 1)), ["h.0", "h.1"]),
    ],
)
def test_which_weights_are_trained(tiny_gpt2: Path, settings: Full, trained: list[str]) -> None:
    names = list(_learner(tiny_gpt2, settings).parameters())
    assert all(any(f".{part}." in name for part in trained) for name in names)
    assert all(any(f".{part}." in name for name in names) for part in trained)


@pytest.mark.parametrize("bits", ["int8", "nf4"])
def test_codes_of_an_emulator_are_not_trained(tmp_path: Path, bits: str) -> None:
    save_llama(tmp_path / "whole", layers=5)
    make(str(tmp_path / "whole"), tmp_path / "it", 1, 1, {"quantized": {"bits": bits}}, None)
    with pytest.raises(UserError, match=r"stored as codes of few bits; leave them out"):
        _learner(tmp_path / "it", Full())
    ends = _learner(tmp_path / "it", Full(layers_to_transform=(0, 4)))
    assert any(".layers.4." in name for name in ends.parameters())


@pytest.mark.parametrize("tied", [True, False])
def test_all_weights_move_as_in_plain_fine_tuning(
    tiny_gpt2: Path, tied: bool, tmp_path: Path
) -> None:
    """Embeddings that are the output layer, too, get both uses' gradients, and travel once."""
    plain = AutoModelForCausalLM.from_pretrained(tiny_gpt2, dtype=torch.float32)
    if not tied:
        plain.config.tie_word_embeddings = False
        plain.lm_head.weight = torch.nn.Parameter(plain.lm_head.weight.detach().clone())
    plain.save_pretrained(tmp_path / "base")
    AutoTokenizer.from_pretrained(tiny_gpt2).save_pretrained(tmp_path / "base")
    learner = _learner(tmp_path / "base", Full())
    sgd = TrainingSettings(learning_rate=0.1, optim="sgd", max_grad_norm=0, max_steps=3)
    learner.training = replace(sgd, per_device_train_batch_size=len(ROWS))
    learner.fit()
    ids = torch.tensor([row.ids for row in ROWS])
    optimizer = torch.optim.SGD(plain.parameters(), lr=0.1)
    for _ in range(3):
        optimizer.zero_grad()
        plain(input_ids=ids, labels=ids).loss.backward()
        optimizer.step()
    wanted = dict(plain.named_parameters())  # of tied ones the first
    found = {name.removeprefix("base_model.model."): t for name, t in learner.tensors().items()}
    found = {name.replace(".ln_tuning_layers", ""): tensor for name, tensor in found.items()}
    assert found.keys() == wanted.keys()
    for name, tensor in found.items():
        torch.testing.assert_close(tensor, wanted[name].detach(), atol=1e-5, rtol=1e-5)
    learner.save(tmp_path / "run")
    settings, tensors = read(tmp_path / "run")
    assert len(tensors) == len(wanted) + tied  # PEFT looks for both
    assert _learner(tmp_path / "base", settings).parameters().keys() == learner.parameters().keys()


@pytest.mark.parametrize("other", [{"top_layers": 1}, {"freeze_layers": 1}])
def test_layers_by_number_alone_say_what_is_trained(other: dict[str, int]) -> None:
    with pytest.raises(ValueError, match="leave the other out"):
        Full(layers_to_transform=(0,), **other)  # type: ignore[arg-type]


def test_a_layer_that_the_model_has_not(tiny_gpt2: Path) -> None:
    with pytest.raises(UserError, match="names 2, but the model's layers are 0 to 1"):
        _learner(tiny_gpt2, Full(layers_to_transform=(0, 2)))
