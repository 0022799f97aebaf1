"""Between a batch and the optimizer's step nothing asks the device for a value.

The meta device stands for a GPU: it takes all operations, but has no values, so that whoever asks
for one (`item`, `bool`, `nonzero`, `cpu`) gets an error where a GPU would make the host wait. What
is copied from the host to the device is counted, and may not wait either.
"""

from contextlib import nullcontext
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode
from transformers import GPT2Config, GPT2LMHeadModel, LlamaConfig, LlamaForCausalLM

from clients import choices, rows
from hanse.federation.interfaces.results import TrainResult
from hanse.learners.adapted_model import AdaptedModel
from hanse.learners.adapters.lora import Lora
from hanse.learners.backbone import Backbone
from hanse.learners.batched_clients import optimizer, train
from hanse.learners.caching.frozen_layers import FrozenLayers
from hanse.learners.models.layers import decoder_layers
from hanse.learners.models.precision import ComputeMode
from hanse.learners.objectives.classify import Classify
from hanse.learners.objectives.sft import Sft
from hanse.learners.training import batches
from hanse.learners.training.settings import TrainingSettings
from hanse.learners.training.training_progress import TrainingProgress
from hanse.randomness import RoundContext
from hanse.tensors.named import squared_distance

META = torch.device("meta")
TOP = Lora(r=4, layers_to_transform=(1,))
SIZES = {"vocab_size": 300, "hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2}


class Copies(TorchDispatchMode):
    """Counts copies from the host to the device, and those of them that the host waits for."""

    def __init__(self) -> None:
        super().__init__()
        self.all = self.waiting = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        found = func(*args, **(kwargs or {}))
        name = func.overloadpacket.__name__
        if name == "_to_copy" and args[0].device.type == "cpu" and found.device == META:
            self.all += 1
            self.waiting += not kwargs.get("non_blocking", False)
        if name == "copy_" and args[1].device.type == "cpu" and args[0].device == META:
            self.all += 1
            self.waiting += not (args[2:3] or (kwargs or {}).get("non_blocking", False))
        return found


@pytest.fixture(autouse=True)
def left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    """What comes after the last step, and what the meta device does not have."""
    monkeypatch.setattr(optimizer.BatchedOptimizer, "write_back", lambda self: None)
    monkeypatch.setattr(
        TrainingProgress, "result", lambda self, steps, *_: TrainResult(steps, 0, 0, 0, 0)
    )
    monkeypatch.setattr(Backbone, "autocast", lambda self: nullcontext())
    plain = torch.optim.AdamW
    monkeypatch.setattr(optimizer, "AdamW", lambda groups, lr, fused: plain(groups, lr=lr))


def _backbone(kind: str = "llama", lora: Lora | None = None) -> Backbone:
    if kind == "llama":
        config = LlamaConfig(**SIZES, num_attention_heads=4, num_key_value_heads=2)
        build = LlamaForCausalLM
    else:
        config = GPT2Config(vocab_size=300, n_embd=32, n_layer=2, n_head=4)
        build = GPT2LMHeadModel
    with META:
        model = build(config).eval().requires_grad_(False)
        backbone = Backbone(
            kind, model, None, META, ComputeMode(bf16=False), activation_cache=False
        )
        backbone.attach(lora or Lora(r=4), 0)
    return backbone


def _learner(backbone: Backbone, name: str, number: int, **own: Any) -> AdaptedModel:
    settings = TrainingSettings(
        learning_rate=0.01,
        per_device_train_batch_size=2,
        gradient_accumulation_steps=2,
        max_steps=number,
    )
    classify = own.pop("classify", False)
    examples = choices(1, 12, ((5, 6), (9,))) if classify else rows(1, 12)
    goal = Classify() if classify else Sft()
    context = RoundContext(7, 2, name)
    return AdaptedModel(backbone, "adapter0", {"train": examples}, settings, goal, context, 3, {})


def _alone(backbone: Backbone, number: int, **own: Any) -> None:
    _learner(backbone, "a", number, **own).fit(_penalty(backbone))


def _together(backbone: Backbone, number: int, **own: Any) -> None:
    """Three clients, of whom one has fewer steps."""
    members = []
    for index, name in enumerate("abc"):
        learner = _learner(backbone, name, number - (index == 0), **own)
        start = {n: torch.zeros(p.shape) for n, p in learner.parameters().items()}
        template = replace(
            learner, together=lambda m: members.append(m) or TrainResult(0, 0, 0, 0, 0)
        )
        member = train.Member(template.job(_penalty(backbone)), backbone, "adapter0", start)
        members.append(member)
    train.train(members)


def _penalty(backbone: Backbone) -> Any:
    """FedProx's, of the server's tensors, which lie on the host."""
    host = {name: torch.zeros(p.shape) for name, p in backbone.parameters("adapter0").items()}
    start = _learner(backbone, "a", 1).on_device(host)
    return lambda trained: squared_distance(trained, start)


@pytest.mark.parametrize("way", [_alone, _together])
@pytest.mark.parametrize("kind", ["llama", "gpt2"])
@pytest.mark.parametrize("classify", [False, True])
def test_no_step_waits(way: Any, kind: str, classify: bool) -> None:
    found = []
    for number in (3, 5):
        backbone = _backbone(kind)
        with Copies() as copies:
            way(backbone, number, classify=classify)
        found.append(copies)
    short, long = found
    assert long.all > short.all  # batches
    assert long.waiting == short.waiting  # what is set up once in a round may


@pytest.mark.parametrize("way", [_alone, _together])
def test_known_rows_do_not_wait(way: Any) -> None:
    """With layers left out, and all that leaves them kept on the host."""
    found = []
    for number in (3, 5):
        backbone = _backbone(lora=TOP)
        decoder, layers = decoder_layers(backbone.model)
        longest = backbone.positions
        prefix = FrozenLayers(
            decoder, layers, 1, False, backbone.autocast, longest, backbone._activations
        )
        backbone.adapters["adapter0"].frozen_depth, backbone._frozen_layers[1] = 1, prefix
        for row in rows(1, 12):
            key = (1, torch.tensor(row.ids, dtype=torch.int32).numpy().tobytes())
            backbone._activations.put(key, torch.zeros(len(row), 32))
        with Copies() as copies:
            way(backbone, number)
        found.append(copies)
    assert found[1].all > found[0].all
    assert found[1].waiting == found[0].waiting


def test_who_asks_for_a_value_is_caught() -> None:
    """That the tests above can fail."""

    def curious(trained: Any) -> torch.Tensor:
        return next(iter(trained.values())).sum() * float(next(iter(trained.values())).sum())

    with pytest.raises(RuntimeError, match="meta"):
        _learner(_backbone(), "a", 1).fit(curious)
    with Copies() as copies:
        torch.zeros(2).to(META)
        torch.zeros(2, device=META).copy_(torch.zeros(2))
        torch.zeros(2).to(META, non_blocking=True)
    assert (copies.all, copies.waiting) == (3, 2)


def test_a_processor_is_given_the_very_tensors() -> None:
    mine = torch.arange(3), torch.arange(4).view(2, 2)
    there = batches.to_device(mine, torch.device("cpu"))
    assert all(one is other for one, other in zip(mine, there, strict=True))
    hidden = batches.pinned_zeros((2, 3), torch.float32, torch.device("cpu"))
    assert batches.copy_pinned(hidden, torch.device("cpu")) is hidden


def test_what_is_placed_keeps_its_shape(monkeypatch: pytest.MonkeyPatch) -> None:
    """Copied as one and cut again; here to the same device, so that values can be compared."""
    monkeypatch.setattr(batches, "copy_pinned", lambda tensor, device: tensor)
    mine = torch.arange(6).view(2, 3), torch.empty(0, dtype=torch.long), torch.tensor([7])
    for one, other in zip(mine, batches.to_device(mine, META), strict=True):
        assert torch.equal(one, other)
