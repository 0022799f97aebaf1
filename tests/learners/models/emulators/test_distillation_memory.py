"""The estimate of a distillation's memory, against what autograd keeps and what models have."""

from typing import Any

import pytest
import torch
from torch import Tensor
from transformers import AutoModelForCausalLM, GPT2Config, LlamaConfig, OPTConfig

from hanse.data.example import Example
from hanse.errors import UserError
from hanse.learners.models.emulators import distillation, distillation_memory
from hanse.learners.models.emulators.compressors.layer_drop import LayerDrop
from hanse.learners.models.emulators.cut import Cut
from hanse.learners.models.emulators.shrink import shrink
from hanse.learners.training.batches import collate

CUT, DROP = Cut(1, 4, 1), LayerDrop(keep=2)
CONFIGS: dict[str, Any] = {
    "llama": LlamaConfig(
        vocab_size=99, hidden_size=64, intermediate_size=160, num_hidden_layers=6,
        num_attention_heads=4, num_key_value_heads=4,
    ),
    "gpt2": GPT2Config(vocab_size=99, n_embd=64, n_layer=6, n_head=4, n_positions=64),
    "opt": OPTConfig(
        vocab_size=99, hidden_size=64, ffn_dim=128, num_hidden_layers=6, num_attention_heads=4,
        max_position_embeddings=64, word_embed_proj_dim=64,
    ),
}  # fmt: skip


def rows(lengths: list[int]) -> list[Example]:
    return [Example(tuple(range(length)), tuple(range(length))) for length in lengths]


@pytest.mark.parametrize("name", CONFIGS)
def test_the_estimate_is_near_what_is_held(name: str) -> None:
    torch.manual_seed(0)
    whole = AutoModelForCausalLM.from_config(CONFIGS[name]).eval()
    emulator = shrink(whole, CUT, DROP)
    for parameter in (*whole.parameters(), *emulator.model.parameters()):
        parameter.requires_grad_(False)
    trained = [p.requires_grad_() for layer in emulator.middle for p in layer.parameters()]
    examples = rows([30, 20, 30, 9])
    needed = distillation_memory.estimate(CONFIGS[name], CUT, DROP, examples, 2)
    weights = {p.data_ptr(): p.nbytes for p in (*whole.parameters(), *trained)}
    assert needed.held == sum(weights.values()) + 3 * sum(p.nbytes for p in trained)
    kept: dict[int, int] = {}

    def keep(tensor: Tensor) -> Tensor:
        if tensor.untyped_storage().data_ptr() not in weights:
            kept[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        lm, kd = distillation._losses(whole, emulator, collate(rows([30, 30]), trained[0].device))
    assert lm.requires_grad and kd.requires_grad
    assert 0.5 * sum(kept.values()) < needed.batch < 2 * sum(kept.values())


def test_it_grows_with_the_longest_examples_of_a_batch() -> None:
    def batch(lengths: list[int], size: int) -> int:
        found = distillation_memory.estimate(CONFIGS["llama"], CUT, DROP, rows(lengths), size)
        return found.batch

    assert batch([10, 40], 4) == 2 * batch([40], 2) == 4 * batch([10, 20, 3], 2)


def test_a_shortage_of_memory_ends_in_a_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB")

    monkeypatch.setattr(distillation, "_losses", full)
    whole = AutoModelForCausalLM.from_config(CONFIGS["llama"])
    emulator = shrink(whole, CUT, DROP)
    with pytest.raises(UserError, match=r"Tried to .* lower --batch-size"):
        distillation.distill(whole, emulator, rows([9]), distillation.Distillation(steps=1))
