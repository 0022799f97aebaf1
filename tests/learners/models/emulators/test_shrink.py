"""Emulators of five architectures: what their folders compute, share with the model, and lack."""

import re
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import (
    AutoModelForCausalLM,
    BertConfig,
    BloomConfig,
    GPT2Config,
    LlamaConfig,
    MixtralConfig,
    OPTConfig,
    PretrainedConfig,
    Qwen2Config,
)

from hanse.errors import UserError
from hanse.learners.adapters.lora import Lora
from hanse.learners.injection.inject import attach
from hanse.learners.models.emulators import sizes
from hanse.learners.models.emulators.compressors.layer_drop import LayerDrop
from hanse.learners.models.emulators.cut import Cut, cut
from hanse.learners.models.emulators.shrink import Emulator, empty, shrink
from hanse.learners.models.emulators.stored_form import built, register
from hanse.learners.models.layers import layer_list

LAYERS, PARTS = 7, Cut(2, 3, 2)
SHAPES: dict[str, Callable[[], PretrainedConfig]] = {
    "llama": lambda: LlamaConfig(
        vocab_size=99, hidden_size=32, intermediate_size=64, num_hidden_layers=LAYERS,
        num_attention_heads=4, num_key_value_heads=2,
    ),
    "gpt2": lambda: GPT2Config(
        vocab_size=99, n_embd=32, n_layer=LAYERS, n_head=4, n_positions=64
    ),
    "opt": lambda: OPTConfig(
        vocab_size=99, hidden_size=32, ffn_dim=64, num_hidden_layers=LAYERS,
        num_attention_heads=4, max_position_embeddings=64, word_embed_proj_dim=32,
    ),
    "bloom": lambda: BloomConfig(vocab_size=99, hidden_size=32, n_layer=LAYERS, n_head=4),
    "mixtral": lambda: MixtralConfig(
        vocab_size=99, hidden_size=32, intermediate_size=64, num_hidden_layers=LAYERS,
        num_attention_heads=4, num_key_value_heads=2, num_local_experts=2,
    ),
}  # fmt: skip
DROP: dict[str, dict[str, Any]] = {"layer_drop": {"drop": 0.5}}
COMPRESSORS: list[dict[str, dict[str, Any]]] = [
    DROP,
    {"quantized": {"bits": "int8"}},
    {"quantized": {"bits": "nf4"}},
    {"low_rank": {"energy": 0.3}},
]
every_shape = pytest.mark.parametrize("shape", SHAPES)
every_emulator = pytest.mark.parametrize(
    ("shape", "spec"),
    [(one, spec) for one in SHAPES for spec in COMPRESSORS if one != "mixtral" or spec is DROP],
    ids=str,
)


def whole(config: PretrainedConfig) -> Any:
    """A random model, in evaluation mode."""
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(config).eval()
    for name, parameter in model.named_parameters():
        if parameter.dim() == 1:  # biases and norms would be alike in all layers
            torch.nn.init.normal_(parameter, 1.0 if "norm" in name else 0.0, 0.1)
    return model


def outputs(model: Any) -> torch.Tensor:
    ids = torch.arange(18).view(2, 9) * 5 % 99
    with torch.no_grad():
        logits: torch.Tensor = model(ids, use_cache=False).logits
    return logits


def reloaded(emulator: Emulator, folder: Path) -> Any:
    """The emulator, written and loaded again by transformers."""
    emulator.model.save_pretrained(folder)
    register()
    model, report = AutoModelForCausalLM.from_pretrained(folder, output_loading_info=True)
    assert not report["missing_keys"] and not report["unexpected_keys"]
    return model


@every_emulator
def test_a_folder_computes_what_was_made(shape: str, spec: dict[str, Any], tmp_path: Path) -> None:
    model = whole(SHAPES[shape]())
    before = outputs(model)
    emulator = shrink(model, PARTS, built(spec))
    again = reloaded(emulator, tmp_path)
    assert torch.equal(outputs(again), outputs(emulator.model))
    assert torch.equal(outputs(model), before), "the model itself stays as it is"
    assert not torch.equal(outputs(again), before)
    assert sizes.size([again]) < sizes.size([model])
    if "quantized" in spec:
        assert sizes.parameters([again]) == sizes.parameters([model])


@every_shape
def test_without_dropped_layers_it_is_the_model(shape: str, tmp_path: Path) -> None:
    model = whole(SHAPES[shape]())
    emulator = shrink(model, PARTS, LayerDrop(drop=0.0))
    again = reloaded(emulator, tmp_path)
    assert torch.equal(outputs(again), outputs(model))
    ours, theirs = again.state_dict(), model.state_dict()
    assert ours.keys() == theirs.keys() and all(torch.equal(ours[n], theirs[n]) for n in ours)


@every_emulator
def test_bottom_and_top_are_the_models(shape: str, spec: dict[str, Any], tmp_path: Path) -> None:
    model = whole(SHAPES[shape]())
    again = reloaded(shrink(model, PARTS, built(spec)), tmp_path)
    layers, own = layer_list(model)[1], layer_list(again)[1]
    for number in (0, 1, -2, -1):
        pairs = zip(layers[number].parameters(), own[number].parameters(), strict=True)
        assert all(torch.equal(one, other) for one, other in pairs)


@every_emulator
def test_no_matrix_that_is_made_smaller_is_in_the_folder(
    shape: str, spec: dict[str, Any], tmp_path: Path
) -> None:
    model = whole(SHAPES[shape]())
    emulator = shrink(model, PARTS, built(spec))
    found = {t.numpy().tobytes() for t in reloaded(emulator, tmp_path).state_dict().values()}
    dropped = set(range(LAYERS)) - set(emulator.layers)
    hidden = dropped or {2, 3, 4}
    layers = layer_list(model)[1]
    matrices = [p for number in hidden for p in layers[number].parameters() if p.dim() > 1]
    assert matrices and not {m.detach().numpy().tobytes() for m in matrices} & found


@pytest.mark.parametrize("spec", [spec for spec in COMPRESSORS if spec is not DROP], ids=str)
def test_a_middle_of_experts_is_refused_where_they_would_stay(spec: dict[str, Any]) -> None:
    with pytest.raises(UserError, match=r"mlp\.experts\.gate_up_proj, .*as they are"):
        shrink(whole(SHAPES["mixtral"]()), PARTS, built(spec))


def test_settings_of_each_layer_follow_the_layers(tmp_path: Path) -> None:
    kinds = ["full_attention", "sliding_attention"]
    config = Qwen2Config(
        vocab_size=99, hidden_size=32, intermediate_size=64, num_hidden_layers=6,
        num_attention_heads=4, num_key_value_heads=2, layer_types=kinds * 3,
        use_sliding_window=True, sliding_window=2,
    )  # fmt: skip
    emulator = shrink(whole(config), Cut(1, 4, 1), LayerDrop(keep=1))
    assert emulator.layers == (0, 1, 5)
    assert emulator.model.config.layer_types == [kinds[0], kinds[1], kinds[1]]
    assert torch.equal(outputs(reloaded(emulator, tmp_path)), outputs(emulator.model))


def test_sizes_of_published_models_without_their_weights() -> None:
    opt = OPTConfig(
        hidden_size=2048, ffn_dim=8192, num_hidden_layers=24, num_attention_heads=32,
        word_embed_proj_dim=2048,
    )  # fmt: skip
    assert sizes.adapter_parameters(empty(opt), cut("opt-1.3b", opt, 2, 2)) == 201_433_088
    llama = LlamaConfig()  # 7B
    assert sizes.adapter_parameters(empty(llama), cut("llama-7b", llama, 2, 2)) == 809_533_440
    emulator = shrink(empty(llama), cut("llama-7b", llama, 2, 2), LayerDrop(0.2, rule="int"))
    assert len(emulator.layers) == 26
    dropped = sizes.parameters([empty(llama)]) - sizes.parameters([emulator.model])
    assert dropped == 6 * 202_383_360


@pytest.mark.parametrize(
    ("config", "bottom", "words"),
    [
        (LlamaConfig(num_hidden_layers=4), 2, "leave no middle"),
        (BertConfig(architectures=["BertModel"]), 2, "no causal language model"),
        (GPT2Config(scale_attn_by_inverse_layer_idx=True), 2, "in another place"),
        (LlamaConfig(quantization_config={"quant_method": "x"}), 2, "quantized"),
    ],
)
def test_a_model_that_cannot_be_cut(config: PretrainedConfig, bottom: int, words: str) -> None:
    with pytest.raises(UserError, match=words):
        cut("a model", config, bottom, 2)


def test_a_folder_of_another_compressor_is_refused(tmp_path: Path) -> None:
    for spec in ({"x.py:Evil": {}}, {"nope": {}}):
        with pytest.raises(ValueError, match="no compressor"):
            built(spec)
    emulator = shrink(whole(SHAPES["llama"]()), PARTS, built({"low_rank": {"energy": 0.3}}))
    form = emulator.model.config.quantization_config
    form["modules"] = dict.fromkeys(form["modules"], 10**9)
    with pytest.raises(ValueError, match="the size 1000000000"):
        reloaded(emulator, tmp_path)


@pytest.mark.parametrize("spec", [spec for spec in COMPRESSORS if spec is not DROP], ids=str)
def test_adapters_are_put_into_ordinary_layers_alone(spec: dict[str, Any]) -> None:
    """An adapter of all linear layers is in bottom and top, seven matrices in each layer."""
    emulator = shrink(whole(SHAPES["llama"]()), PARTS, built(spec))
    _, attached = attach(emulator.model, Lora(r=2, target_modules="all-linear"), seed=0)
    places = Counter(re.findall(r"layers\.(\d+)\..*lora_A", "\n".join(attached.parameters)))
    assert places == {"0": 7, "1": 7, "5": 7, "6": 7}
