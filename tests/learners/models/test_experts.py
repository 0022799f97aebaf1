"""Mixtures of experts with LoRA in all linear layers, those of the fused experts too."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import PeftModel
from transformers import (
    AutoModelForCausalLM,
    AutoTokenizer,
    DeepseekV3Config,
    DeepseekV3ForCausalLM,
    MixtralConfig,
    MixtralForCausalLM,
    Qwen3MoeConfig,
    Qwen3MoeForCausalLM,
)

from clients import client, rows
from hanse.errors import UserError
from hanse.learners import flops
from hanse.learners.adapted_model import AdaptedModel
from hanse.learners.adapters.lora import Lora
from hanse.learners.injection.adapter_files import read
from hanse.learners.load import load
from hanse.learners.models.settings import BaseModelSettings
from hanse.learners.objectives.sft import Sft
from hanse.tensors.low_rank import refuse_other_than_lora

LORA = Lora(r=4, lora_alpha=8, target_modules="all-linear")  # as `hanse init` writes it
SIZES: dict[str, int] = {
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 4,
    "max_position_embeddings": 128,
    "num_experts_per_tok": 2,
}
QWEN: dict[str, Any] = {"num_experts": 4, "moe_intermediate_size": 16, "head_dim": 8}
LATENT: dict[str, int] = {
    "n_routed_experts": 4,
    "n_group": 1,
    "topk_group": 1,
    "moe_intermediate_size": 16,
    "first_k_dense_replace": 1,
    "q_lora_rank": 16,
    "kv_lora_rank": 16,
    "qk_rope_head_dim": 8,
    "qk_nope_head_dim": 8,
    "v_head_dim": 8,
}
MODELS: dict[str, tuple[Any, Any, dict[str, Any]]] = {
    "mixtral": (MixtralConfig, MixtralForCausalLM, {"num_local_experts": 4}),
    "qwen3_moe": (Qwen3MoeConfig, Qwen3MoeForCausalLM, QWEN),
    "deepseek_v3": (DeepseekV3Config, DeepseekV3ForCausalLM, LATENT),
}
IDS = torch.arange(20, 40)[None]


@pytest.fixture(params=MODELS)
def folder(request: pytest.FixtureRequest, tiny_llama: Path, tmp_path: Path) -> Path:
    config, kind, own = MODELS[request.param]
    tokenizer = AutoTokenizer.from_pretrained(tiny_llama)
    torch.manual_seed(0)
    there = tmp_path / "model"
    kind(config(vocab_size=max(260, len(tokenizer)), **SIZES, **own)).save_pretrained(there)
    tokenizer.save_pretrained(there)
    return there


def _learner(folder: Path, lora: Lora = LORA, **settings: Any) -> AdaptedModel:
    backbone = load(BaseModelSettings(str(folder), bf16=False, device="cpu"))
    return client(backbone, "c0", rows(0, 8), lora, **settings)


def _logits(learner: AdaptedModel) -> torch.Tensor:
    learner.backbone.activate(learner.adapter)
    with torch.no_grad():
        return learner.backbone.logits(IDS, torch.arange(IDS.shape[1]))


@pytest.mark.filterwarnings("ignore:The following .*_pattern keys did not match")  # PEFT's own
@pytest.mark.filterwarnings("ignore::FutureWarning")
def test_it_trains_alone_and_peft_and_a_later_run_load_it(folder: Path, tmp_path: Path) -> None:
    learner = _learner(folder)
    names = list(learner.parameters())
    assert any("mlp.experts.base_layer.lora_A" in name for name in names)  # both fused matrices
    assert not learner.member().joins
    found = replace(learner, together=lambda _: pytest.fail("trained together")).fit()
    assert found.steps == 3
    experts = [p for n, p in learner.parameters().items() if "experts" in n and "lora_B" in n]
    assert experts and all(parameter.abs().max() > 0 for parameter in experts)
    learner.save(tmp_path / "adapter")

    own = _logits(learner)
    base = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    weights = sum(parameter.numel() for parameter in base.parameters())
    with torch.no_grad():
        bare = base(IDS).logits[0]
        plain = PeftModel.from_pretrained(base, str(tmp_path / "adapter")).eval()(IDS).logits[0]
    torch.testing.assert_close(own, plain, atol=1e-5, rtol=1e-5)
    assert (own - bare).abs().max() > 1e-3
    assert learner.backbone.weights == weights

    settings, tensors = read(tmp_path / "adapter")
    assert isinstance(settings, Lora) and settings.target_parameters
    again = _learner(folder, settings)
    again.load(tensors)
    torch.testing.assert_close(_logits(again), own, atol=1e-6, rtol=1e-6)
    assert (again.scaling, again.rank) == (2.0, 4)


def test_its_operations_are_counted(folder: Path) -> None:
    """A token passes two of four experts, and attention and the output matrix."""
    learner = _learner(folder)
    found = flops.per_token(learner, Sft(), learner.examples("train"))
    assert found["train_flops_per_token"] > 2 * found["forward_flops_per_token"] > 0


def test_what_looks_at_products_is_refused(folder: Path) -> None:
    tensors = _learner(folder).tensors()
    with pytest.raises(UserError, match=r"experts.* are the factors of many experts; name"):
        refuse_other_than_lora(tensors, "FlexLoRA")
    refuse_other_than_lora(tensors, "FFALoRA", products=False)


@pytest.mark.parametrize("change", [{"lora_dropout": 0.1}, {"layers_to_transform": (1,)}])
def test_what_peft_cannot_do_with_fused_experts_is_refused(
    folder: Path, change: dict[str, Any]
) -> None:
    named = ("q_proj", "o_proj", "gate_proj", "up_proj", "down_proj", "w1", "w2", "w3")
    lora = replace(LORA, **change)
    if "layers_to_transform" in change:
        lora = replace(lora, target_modules=named)
    with pytest.raises(UserError, match=r"ParamWrapper does not work|does not go with fused"):
        _learner(folder, lora)
