"""Offsite tuning on a toy (Xiao et al. 2023, 2302.04870, §2): tuned emulator < plug-in ≤ full.

A small model learns a table: the next token follows from the last two. Then it is to name two of
the tokens by each other's name, which bottom and top can learn without knowing the table.
"""

import copy
from collections.abc import Iterable
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn import Parameter
from transformers import AutoModelForCausalLM, LlamaConfig

from hanse.data.example import Example
from hanse.learners.models.emulators.compressors.layer_drop import LayerDrop
from hanse.learners.models.emulators.cut import Cut
from hanse.learners.models.emulators.distillation import Distillation, distill
from hanse.learners.models.emulators.shrink import Emulator, shrink
from hanse.learners.models.layers import layer_list

TOKENS, LENGTH, NOISE = 16, 32, 0.05
MARGIN = 0.05  # of cross-entropy
NAMES = torch.tensor([1, 0, *range(2, TOKENS)])  # of the second task


class Texts:
    """Sequences by a random table, with some noise, each draw after the other."""

    def __init__(self) -> None:
        self.draws = torch.Generator().manual_seed(0)
        self.table = torch.randint(TOKENS, (TOKENS, TOKENS), generator=self.draws)

    def draw(self, rows: int) -> Tensor:
        ids = torch.randint(TOKENS, (rows, LENGTH), generator=self.draws)
        for place in range(2, LENGTH):
            following = self.table[ids[:, place - 2], ids[:, place - 1]]
            kept = torch.rand(rows, generator=self.draws) < NOISE
            ids[:, place] = torch.where(kept, ids[:, place], following)
        return ids


def loss(model: Any, ids: Tensor, names: Tensor) -> Tensor:
    found: Tensor = model(ids, labels=names[ids], use_cache=False).loss
    return found


def train(
    model: Any, trained: Iterable[Parameter], batches: list[Tensor], names: Tensor, rate: float
) -> None:
    for parameter in model.parameters():
        parameter.requires_grad_(False)
    trained = [parameter.requires_grad_(True) for parameter in trained]
    optimizer = torch.optim.AdamW(trained, rate, weight_decay=0)
    for ids in batches:
        loss(model, ids, names).backward()
        optimizer.step()
        optimizer.zero_grad()


@pytest.fixture(scope="module")
def texts() -> Texts:
    return Texts()


@pytest.fixture(scope="module")
def whole(texts: Texts) -> Any:
    """A model of six layers that has learned the table."""
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=TOKENS, hidden_size=32, intermediate_size=64, num_hidden_layers=6,
        num_attention_heads=4, num_key_value_heads=4, initializer_range=0.1,
    )  # fmt: skip
    model = AutoModelForCausalLM.from_config(config)
    batches = [texts.draw(32) for _ in range(200)]
    train(model, model.parameters(), batches, torch.arange(TOKENS), 3e-3)
    return model.eval()


@pytest.fixture(scope="module")
def emulator(texts: Texts, whole: Any) -> Emulator:
    """One of four layers of the middle, distilled."""
    emulator = shrink(whole, Cut(1, 4, 1), LayerDrop(keep=1))
    rows = [Example(tuple(row), tuple(row)) for row in texts.draw(256).tolist()]
    distill(whole, emulator, rows, Distillation(60, 1e-3, batch_size=32))
    return emulator


def test_a_plugged_in_model_is_between_the_emulator_and_full_tuning(
    texts: Texts, whole: Any, emulator: Emulator
) -> None:
    test, few = texts.draw(256), texts.draw(64)
    batches = [few[torch.randint(64, (32,), generator=texts.draws)] for _ in range(20)]
    full = copy.deepcopy(whole)
    middle = [p.clone() for layer in layer_list(whole)[1][1:5] for p in layer.parameters()]

    def score(model: Any) -> float:
        with torch.no_grad():
            return float(loss(model, test, NAMES))

    untuned = score(whole)
    ends = [layer_list(emulator.model)[1][number] for number in (0, -1)]
    train(emulator.model, [p for layer in ends for p in layer.parameters()], batches, NAMES, 3e-4)
    train(full, full.parameters(), batches, NAMES, 3e-4)
    # Bottom and top are the same tensors in both, so the whole model has them plugged in.
    tuned, plugged = score(emulator.model), score(whole)
    assert untuned > plugged + MARGIN, "it learns what the emulator was tuned for"
    assert tuned > plugged + MARGIN, "and does it better than the emulator"
    assert plugged > score(full), "while tuning the model itself does best"
    after = [p for layer in layer_list(whole)[1][1:5] for p in layer.parameters()]
    assert all(torch.equal(one, other) for one, other in zip(middle, after, strict=True))
