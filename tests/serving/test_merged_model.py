"""A merged model is a plain folder that computes what base model and adapter compute."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import PeftModel
from safetensors.torch import load_file
from torch import Tensor
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    AutoModelForSeq2SeqLM,
    AutoModelForSequenceClassification,
    AutoTokenizer,
)

from hanse.errors import UserError
from hanse.experiment.loading import load
from hanse.learners.adapted_model import AdaptedModel
from hanse.learners.adapters.full import Full
from hanse.learners.adapters.houlsby import Houlsby
from hanse.learners.adapters.ia3 import IA3
from hanse.learners.adapters.lora import Lora
from hanse.learners.adapters.lora_xs import LoraXS
from hanse.learners.adapters.prompt_tuning import PromptTuning
from hanse.learners.injection.adapter import Adapter
from hanse.learners.injection.mixed import Mixed
from hanse.learners.load import load as load_model
from hanse.learners.models.settings import BaseModelSettings, Quantization
from hanse.learners.objectives.sft import Sft
from hanse.learners.training.settings import TrainingSettings
from hanse.randomness import RoundContext
from hanse.serving import merged_model
from hanse.simulation import run as simulation
from samples import Outcome

pytestmark = [
    pytest.mark.filterwarnings("ignore::FutureWarning"),  # of PEFT's own calls
    pytest.mark.filterwarnings("ignore:Already found a `peft_config`"),
    pytest.mark.filterwarnings("ignore:.*tie_word_embeddings"),  # PEFT's, as the adapter is made
]
IDS = torch.arange(3, 20)[None]


def _adapter(
    folder: Path, model: Path, settings: Adapter, quantization: Quantization = "none"
) -> tuple[Path, Tensor]:
    """The folder of an adapter whose tensors are far from their start, and its outputs."""
    chosen = BaseModelSettings(str(model), bf16=False, device="cpu", quantization=quantization)
    backbone = load_model(chosen)
    name, context = backbone.attach(settings, 0), RoundContext(0)
    learner = AdaptedModel(backbone, name, {}, TrainingSettings(), Sft(), context, 1, {})
    draw = torch.Generator().manual_seed(4)
    for parameter in learner.parameters().values():
        parameter.data += 0.1 * torch.randn(parameter.shape, generator=draw)
    learner.save(folder / "adapter")
    return folder / "adapter", _logits(backbone.activate(name))


@torch.no_grad()
def _logits(model: Any) -> Tensor:
    second = {"decoder_input_ids": IDS} if model.config.is_encoder_decoder else {}
    logits: Tensor = model(input_ids=IDS, **second).logits
    return logits.float()


def _plain(folder: Path, auto: Any = AutoModelForCausalLM, **options: Any) -> Any:
    return auto.from_pretrained(folder, **options).eval()


def _tied(folder: Path, model: Path) -> Path:
    """A copy of a model whose output layer has the embeddings' weights."""
    shutil.copytree(model, folder)
    copy = _plain(folder)
    copy.config.tie_word_embeddings = True
    copy.lm_head.weight = copy.model.embed_tokens.weight
    copy.save_pretrained(folder)
    assert _plain(folder).lm_head.weight is not None
    return folder


@pytest.mark.parametrize(
    "adapter",
    [
        Lora(r=4, target_modules="all-linear"),
        Lora(r=4, use_dora=True, use_rslora=True),
        LoraXS(r=8),
        IA3(),
        Full(),
        Mixed.of([Lora(r=2), IA3()]),
    ],
    ids=lambda adapter: "+".join(kind.kind for kind in adapter.kinds),
)
@pytest.mark.parametrize("name", ["tiny_llama", "tiny_gpt2"])
def test_it_computes_what_base_and_adapter_compute(
    name: str, adapter: Adapter, request: pytest.FixtureRequest, tmp_path: Path
) -> None:
    model: Path = request.getfixturevalue(name)
    if name == "tiny_gpt2" and isinstance(adapter, Mixed):
        adapter = Mixed.of([Lora(r=2, target_modules=("c_attn",)), IA3()])
    folder, wanted = _adapter(tmp_path, model, adapter)
    merged_model.write(folder, tmp_path / "m", [f"model.model_name_or_path={model}"])
    torch.testing.assert_close(_logits(_plain(tmp_path / "m")), wanted, atol=1e-3, rtol=1e-3)
    assert (wanted - _logits(_plain(model))).abs().max() > 0.05
    assert not list((tmp_path / "m").glob("adapter*"))
    assert AutoTokenizer.from_pretrained(tmp_path / "m")("great film")["input_ids"]


@pytest.mark.parametrize("targets", [("q_proj", "v_proj"), ("lm_head",)])
def test_tied_embeddings_are_untied_only_if_an_adapter_changes_one_of_them(
    targets: tuple[str, ...], tiny_llama: Path, tmp_path: Path
) -> None:
    model = _tied(tmp_path / "tied", tiny_llama)
    folder, wanted = _adapter(tmp_path, model, Lora(r=4, target_modules=targets))
    merged_model.write(folder, tmp_path / "m", [f"model.model_name_or_path={model}"])
    torch.testing.assert_close(_logits(_plain(tmp_path / "m")), wanted, atol=1e-3, rtol=1e-3)
    untied = targets == ("lm_head",)
    assert AutoConfig.from_pretrained(tmp_path / "m").tie_word_embeddings is not untied
    weights = load_file(tmp_path / "m" / "model.safetensors")
    assert ("lm_head.weight" in weights) == untied


@pytest.mark.extras
@pytest.mark.parametrize("kind", ["nf4", "int8"])
def test_a_quantized_base_is_unpacked(kind: Quantization, tiny_llama: Path, tmp_path: Path) -> None:
    pytest.importorskip("bitsandbytes" if kind == "nf4" else "torchao")
    folder, wanted = _adapter(tmp_path, tiny_llama, Lora(r=4), kind)
    words = [f"model.model_name_or_path={tiny_llama}", f"model.quantization={kind}"]
    merged_model.write(folder, tmp_path / "m", words)
    assert "quantization_config" not in json.loads((tmp_path / "m" / "config.json").read_text())
    torch.testing.assert_close(_logits(_plain(tmp_path / "m")), wanted, atol=1e-3, rtol=1e-3)


def test_weights_keep_their_type(tiny_llama: Path, tmp_path: Path) -> None:
    _plain(tiny_llama, dtype=torch.bfloat16).save_pretrained(tmp_path / "bf16")
    AutoTokenizer.from_pretrained(tiny_llama).save_pretrained(tmp_path / "bf16")
    folder, wanted = _adapter(tmp_path, tmp_path / "bf16", Lora(r=4))
    words = [f"model.model_name_or_path={tmp_path / 'bf16'}"]
    merged_model.write(folder, tmp_path / "m", words)
    merged = _plain(tmp_path / "m")
    assert merged.dtype == torch.bfloat16
    near = 0.05 * float(wanted.abs().max())
    torch.testing.assert_close(_logits(merged), wanted, atol=near, rtol=0)


def test_an_encoder_decoder(tiny_t5: Path, tmp_path: Path) -> None:
    folder, wanted = _adapter(tmp_path, tiny_t5, Lora(r=4))
    merged_model.write(folder, tmp_path / "m", [f"model.model_name_or_path={tiny_t5}"])
    merged = _plain(tmp_path / "m", AutoModelForSeq2SeqLM)
    torch.testing.assert_close(_logits(merged), wanted, atol=1e-3, rtol=1e-3)


def test_a_classifier_has_its_head_and_its_labels(
    experiment_file: Path, tiny_bert: Path, tmp_path: Path
) -> None:
    words = [f"model.model_name_or_path={tiny_bert}", "rounds=1", "data.template='{text}'"]
    folder = simulation.run(load(experiment_file, words))
    merged_model.write(folder, tmp_path / "m")
    names = {0: "negative", 1: "positive"}
    auto = AutoModelForSequenceClassification
    merged = _plain(tmp_path / "m", auto)
    assert merged.config.id2label == names
    base = _plain(tiny_bert, auto, num_labels=2)
    wanted = _logits(PeftModel.from_pretrained(base, folder / "adapter").eval())
    torch.testing.assert_close(_logits(merged), wanted, atol=1e-4, rtol=1e-3)
    with pytest.raises(UserError, match="is a classifier, and GGUF files are for language models"):
        merged_model.write(folder, tmp_path / "n", generates_text=True)


@pytest.mark.parametrize(
    ("adapter", "message"),
    [
        (PromptTuning(num_virtual_tokens=3), "of the kind prompt_tuning adds virtual tokens"),
        (Houlsby(), "of the kind bottleneck adds layers to the model"),
    ],
)
def test_what_is_no_change_of_weights_is_refused(
    adapter: Adapter, message: str, tiny_llama: Path, tmp_path: Path
) -> None:
    folder, _ = _adapter(tmp_path, tiny_llama, adapter)
    with pytest.raises(UserError, match=message):
        merged_model.write(folder, tmp_path / "m", [f"model.model_name_or_path={tiny_llama}"])
    assert not (tmp_path / "m").exists()


def test_runs_without_one_adapter_for_all_are_refused(
    experiment_file: Path, tmp_path: Path
) -> None:
    folder = simulation.run(load(experiment_file, ["rounds=1", "algorithm=fedsa_lora"]))
    with pytest.raises(UserError, match="the result of FedSALoRA is no single adapter"):
        merged_model.write(folder, tmp_path / "m")
    shutil.rmtree(folder / "adapter")
    with pytest.raises(UserError, match="is not finished; run `hanse resume"):
        merged_model.write(folder, tmp_path / "m")
    (tmp_path / "m").mkdir()
    with pytest.raises(UserError, match="exists already"):
        merged_model.write(folder, tmp_path / "m")


def test_the_command_writes_folder_and_file(
    experiment_file: Path, hanse: Callable[..., Outcome], tmp_path: Path
) -> None:
    folder = simulation.run(load(experiment_file, ["rounds=1"]))
    llama_cpp = tmp_path / "llama.cpp"
    llama_cpp.mkdir()
    (llama_cpp / "convert_hf_to_gguf.py").write_text(
        "import sys, pathlib\n"
        "model, out = pathlib.Path(sys.argv[1]), sys.argv[sys.argv.index('--outfile') + 1]\n"
        "pathlib.Path(out).write_bytes((model / 'model.safetensors').read_bytes())\n"
    )
    done = hanse("export", folder, "--gguf", tmp_path / "m.gguf", "--llama-cpp", llama_cpp)
    assert (done.code, done.out) == (0, f"wrote {tmp_path / 'm.gguf'}\n"), done
    done = hanse("export", folder, "--merge", tmp_path / "m")
    assert done.code == 0
    words = "--gguf", tmp_path / "absent" / "m.gguf", "--llama-cpp", llama_cpp
    done = hanse("export", folder, "rounds=nonsense", *words)
    assert done.code == 2 and "rounds" in done.err
    assert not (tmp_path / "absent").exists(), "nothing is made before the run is read"
    for place in (folder, folder / "adapter"):
        assert f"the adapter alone is in {folder / 'adapter'}." in hanse("export", place).err
    weights = (tmp_path / "m" / "model.safetensors").read_bytes()
    assert (tmp_path / "m.gguf").read_bytes() == weights
    assert not [path.name for path in tmp_path.iterdir() if path.name.startswith(".")]
