"""Base weights of 8 and 4 bits: adapters train through them, and fit the whole model afterwards."""

import json
import warnings
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import PeftModel
from torch import Tensor
from torch.nn import Linear, Module
from transformers import AutoModelForCausalLM
from transformers.pytorch_utils import Conv1D

from clients import client, rows
from hanse.errors import UserError
from hanse.experiment.assembly.assemble import simulate
from hanse.experiment.loading import load as load_experiment
from hanse.learners.adapted_model import AdaptedModel
from hanse.learners.adapters.bitfit import BitFit
from hanse.learners.adapters.full import Full
from hanse.learners.adapters.lora import Lora
from hanse.learners.adapters.lora_xs import LoraXS
from hanse.learners.backbone import Backbone
from hanse.learners.injection.adapter import Adapter
from hanse.learners.injection.adapter_layout import WEIGHTS
from hanse.learners.load import load
from hanse.learners.models import quantization
from hanse.learners.models.settings import BaseModelSettings
from hanse.learners.training.batches import Batch
from hanse.simulation import run as simulation
from learners.batched_clients.test_train import compare

functional = pytest.importorskip("bitsandbytes.functional")
pytest.importorskip("torchao")

pytestmark = pytest.mark.extras

LORA = Lora(r=4, target_modules="all-linear")


def model(folder: Path | str, kind: Any = "none", **own: Any) -> Backbone:
    return load(BaseModelSettings(str(folder), bf16=False, device="cpu", quantization=kind, **own))


@pytest.fixture(params=[("tiny_llama", "int8"), ("tiny_llama", "nf4"), ("tiny_gpt2", "nf4")])
def base(request: pytest.FixtureRequest) -> Backbone:
    name, kind = request.param
    return model(request.getfixturevalue(name), kind)


def unpacked(layer: Any) -> Tensor:
    """(out, in) what a layer's packed weights stand for."""
    if hasattr(layer.weight, "quant_state"):
        found: Tensor = functional.dequantize_4bit(layer.weight.data, layer.weight.quant_state)
    else:
        found = layer.weight.dequantize()
    return found


def bits(layer: Any) -> list[Tensor]:
    """Copies of what is really held of a layer's weights."""
    weight = layer.weight
    if hasattr(weight, "quant_state"):
        return [weight.data.clone(), weight.quant_state.absmax.clone()]
    return [weight.qdata.clone(), weight.scale.clone()]


def packed(backbone: Backbone) -> dict[str, Any]:
    """The quantized layers by name."""
    layers = {id(layer) for layer in quantization._quantized(backbone.model)}
    named = backbone.model.named_modules()
    return {n.removesuffix(".base_layer"): m for n, m in named if id(m) in layers}


def whole(base: Backbone) -> Backbone:
    """The same function with weights in full precision."""
    other = model(base.name)
    modules: dict[str, Any] = dict(other.model.named_modules())
    layers = packed(base)
    assert len(layers) == len(quantizable(other.model))
    for name, layer in layers.items():
        dense, home = unpacked(layer), modules[name]
        home.weight.data.copy_(dense.T if isinstance(home, Conv1D) else dense)
    return other


def quantizable(of: Module) -> list[str]:
    """The matrices but for the output's, which stays as it is."""
    found = [name for name, module in of.named_modules() if isinstance(module, (Linear, Conv1D))]
    return [name for name in found if name != "lm_head"]


def gradients(learner: AdaptedModel) -> dict[str, Tensor]:
    batch: Batch = learner.batch(learner.examples("train")[:4])
    loss = learner.objective.loss(learner, batch)
    live = dict(learner.parameters())
    return dict(zip(live, torch.autograd.grad(loss, list(live.values())), strict=True))


def test_gradients_are_those_of_the_weights_that_are_stood_for(base: Backbone) -> None:
    """To every layer, even after the model has been used without gradients."""
    plain = whole(base)  # before adapters change the names
    learners = [client(backbone, "a", rows(0, 8), LORA) for backbone in (base, plain)]
    start = {name: tensor + 0.05 for name, tensor in learners[0].tensors().items()}
    batch = learners[0].batch(learners[0].examples("train"))
    logits, found = [], []
    for learner in learners:
        learner.load(start)
        with torch.no_grad():
            logits.append(learner.forward(batch))
        found.append(gradients(learner))
    torch.testing.assert_close(*logits, atol=1e-4, rtol=1e-4)
    assert found[0].keys() == found[1].keys()
    for name, gradient in found[0].items():
        assert gradient.abs().max() > 0
        torch.testing.assert_close(gradient, found[1][name], atol=1e-5, rtol=1e-3)


def test_training_moves_the_adapter_and_nothing_else(base: Backbone) -> None:
    before = {name: bits(layer) for name, layer in packed(base).items()}
    learner = client(base, "a", rows(0, 8), LORA, max_steps=12)
    start = learner.tensors()
    first = learner.fit().loss
    assert learner.fit().loss < 0.9 * first
    for name, tensor in learner.tensors().items():
        assert not torch.equal(tensor, start[name])
    after = {name.removeprefix("base_model.model."): m for name, m in packed(base).items()}
    assert after.keys() == before.keys()
    for name, layer in after.items():
        for one, other in zip(bits(layer), before[name], strict=True):
            assert torch.equal(one, other)


def test_the_adapter_fits_the_whole_model(base: Backbone, tmp_path: Path) -> None:
    """In plain PEFT, on weights that were never quantized."""
    learner = client(base, "a", rows(0, 8), LORA)
    learner.fit()
    learner.save(tmp_path)
    mine = client(model(base.name), "a", rows(0, 8), LORA)
    mine.load(learner.tensors())
    batch = mine.batch(mine.examples("train"))
    with warnings.catch_warnings(), torch.no_grad():
        warnings.simplefilter("ignore")
        theirs = AutoModelForCausalLM.from_pretrained(base.name, dtype=torch.float32)
        theirs = PeftModel.from_pretrained(theirs, str(tmp_path)).eval()
        found = theirs(input_ids=batch.ids).logits.flatten(0, 1)[batch.at]
        torch.testing.assert_close(mine.forward(batch), found, atol=1e-5, rtol=1e-5)
        assert not torch.allclose(learner.forward(batch), found, atol=1e-3)


def test_clients_train_together_as_alone(base: Backbone) -> None:
    compare([client(base, f"c{n}", rows(n, 12), LORA, optim="sgd") for n in range(3)])


def test_bfloat16(tiny_llama: Path) -> None:
    for kind in ("int8", "nf4"):
        base = load(BaseModelSettings(str(tiny_llama), bf16=True, device="cpu", quantization=kind))
        learner = client(base, "a", rows(0, 8), LORA, max_steps=12)
        first = learner.fit().loss
        assert learner.fit().loss < 0.9 * first


@pytest.mark.parametrize("shape", ["tiny_llama", "tiny_gpt2"])
def test_weights_that_come_quantized_are_trained_through(
    request: pytest.FixtureRequest, shape: str, tmp_path: Path
) -> None:
    base = model(request.getfixturevalue(shape), "nf4")
    base.model.save_pretrained(tmp_path)
    base.tokenizer.save_pretrained(tmp_path)
    learner = client(model(tmp_path), "a", rows(0, 8), LORA)
    for gradient in gradients(learner).values():
        assert gradient.isfinite().all()
    with pytest.raises(UserError, match="quantized already; set it to none"):
        model(tmp_path, "int8")


def test_what_nothing_can_be_done_for_is_refused(tiny_gpt2: Path) -> None:
    with pytest.raises(UserError, match="torchao leaves as it is; set it to nf4 or none"):
        model(tiny_gpt2, "int8")


def test_layers_without_gradient_are_refused(
    tiny_llama: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bitsandbytes = pytest.importorskip("bitsandbytes")
    forward = bitsandbytes.nn.Linear4bit.forward

    def cut(layer: Any, x: Tensor) -> Tensor:
        found: Tensor = forward(layer, x).detach()
        return found

    monkeypatch.setattr(bitsandbytes.nn.Linear4bit, "forward", cut)
    with pytest.raises(UserError, match="lets no gradient through"):
        model(tiny_llama, "nf4")


def test_methods_that_do_not_train_are_refused(
    tiny_llama: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As transformers knows of them."""
    from transformers.quantizers.quantizer_torchao import TorchAoHfQuantizer

    monkeypatch.setattr(TorchAoHfQuantizer, "is_trainable", False)
    with pytest.raises(UserError, match="lets no gradient through"):
        model(tiny_llama, "int8")


def test_a_library_that_is_missing_has_its_command(
    tiny_llama: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    find = quantization.importlib.util.find_spec
    monkeypatch.setattr(
        quantization.importlib.util,
        "find_spec",
        lambda name: None if name == "bitsandbytes" else find(name),
    )
    with pytest.raises(UserError, match=r'nf4 needs bitsandbytes; run pip install "hanse\[quant'):
        model(tiny_llama, "nf4")


def test_modules_that_take_no_adapter_are_refused(base: Backbone) -> None:
    name = "ln_1" if "gpt2" in base.name else "input_layernorm"
    with pytest.raises(UserError, match="LoRA cannot be put into this model"):
        base.attach(Lora(target_modules=(name,)), 0)


@pytest.mark.parametrize("adapter", [Full(), Full(top_layers=1), LoraXS()])
def test_weights_that_are_packed_are_not_trained(base: Backbone, adapter: Adapter) -> None:
    with pytest.raises(UserError, match=r"quantized here; set model\.quantization: none"):
        base.attach(adapter, 0)


def test_biases_of_packed_layers_are_not_trained(tiny_gpt2: Path) -> None:
    with pytest.raises(UserError, match=r"bitfit .* quantized here; set model\.quantization: none"):
        model(tiny_gpt2, "nf4").attach(BitFit(), 0)


def test_whole_runs(experiment_file: Path, tmp_path: Path) -> None:
    """Counted as the whole model is, with clients together and the first layer computed once."""
    words = ["clients_per_pass=auto", "rounds=2", "adapter.lora.layers_to_transform=[1]"]
    noted, weights = {}, {}
    for kind in ("none", "int8", "nf4"):
        own = [*words, f"model.quantization={kind}", f"output_dir={tmp_path / kind}"]
        experiment = load_experiment(experiment_file, own)
        folder = simulation.run(experiment)
        adapter = (folder / "adapter" / WEIGHTS).read_bytes()
        assert simulation.resume(folder) == folder
        assert (folder / "adapter" / WEIGHTS).read_bytes() == adapter
        noted[kind] = json.loads((folder / "machine.json").read_text())["forward_flops_per_token"]
        weights[kind] = simulate(experiment).learner.backbone.weights
    assert noted["int8"] == noted["nf4"] == noted["none"]
    assert weights["int8"] == weights["nf4"] == weights["none"]
