"""A batch without its padding has the logits and gradients that it has with it."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from transformers import AutoModelForCausalLM, MistralConfig, MistralForCausalLM

from clients import client, rows
from hanse.learners.adapters.lora import Lora
from hanse.learners.adapters.prompt_tuning import PromptTuning
from hanse.learners.backbone import Backbone
from hanse.learners.kernels import unpadded
from hanse.learners.kernels.unpadded import Rows
from hanse.learners.load import load
from hanse.learners.models.precision import ComputeMode
from hanse.learners.models.settings import BaseModelSettings
from learners.batched_clients.test_train import alone, moved, together

LORA = Lora(r=4, target_modules="all-linear")
LENGTHS, WIDTH = (3, 7, 1, 5), 9


@pytest.fixture(params=["tiny_llama", "tiny_gpt2"])
def folder(request: pytest.FixtureRequest) -> str:
    return str(request.getfixturevalue(request.param))


@pytest.fixture
def whole(monkeypatch: pytest.MonkeyPatch) -> None:
    """No token of padding remains."""
    monkeypatch.setattr(unpadded, "MULTIPLE", 1)
    monkeypatch.setattr(unpadded, "WORTH", 1)


def model(folder: str, plain_attention: bool = False, **settings: Any) -> Backbone:
    mode = ComputeMode(bf16=False, plain_attention=plain_attention)
    return load(BaseModelSettings(folder, device="cpu", **settings), mode)


def drawn() -> Tensor:
    return torch.randint(5, 60, (len(LENGTHS), WIDTH), generator=torch.Generator().manual_seed(0))


def last(lengths: Sequence[int] = LENGTHS) -> Tensor:
    """The positions of each row's last token, and of its first."""
    ends = [row * WIDTH + length - 1 for row, length in enumerate(lengths)]
    return torch.tensor([at for row, end in enumerate(ends) for at in (row * WIDTH, end)])


def test_tokens_are_put_into_rows_and_taken_out_again() -> None:
    rows_ = Rows(LENGTHS, WIDTH)
    assert rows_.tokens.tolist() == [0, 1, 2, *range(9, 16), 18, *range(27, 32)]
    assert rows_.columns.tolist() == [[0, 1, 2, *range(7), 0, *range(5)]]
    assert rows_.places(torch.tensor([2, 9, 18, 31])).tolist() == [2, 3, 10, 15]
    x = torch.randn(1, 3, 16, 4, requires_grad=True)
    padded = rows_.padded(x)
    assert padded.shape == (4, 3, WIDTH, 4)
    assert torch.equal(padded[1, 2, :7], x[0, 2, 3:10])
    again = rows_.unpadded(padded)
    assert torch.equal(again, x.transpose(1, 2))
    weights = torch.randn_like(again)
    [gradient] = torch.autograd.grad((again * weights).sum(), x)
    assert torch.equal(gradient, weights.transpose(1, 2))


def test_padding_gets_no_gradient() -> None:
    padded = torch.randn(4, 3, WIDTH, 4, requires_grad=True)
    tokens = Rows(LENGTHS, WIDTH).unpadded(padded)
    [gradient] = torch.autograd.grad(tokens.sum(), padded)
    for row, length in enumerate(LENGTHS):
        assert (gradient[row, :, :length] == 1).all()
        assert (gradient[row, :, length:] == 0).all()


def test_clients_get_equal_numbers_of_tokens() -> None:
    layout = unpadded.layout((30, 20, 40, 10, 10, 10), 60, clients=2)
    assert layout is not None
    sizes = [int((layout.tokens // 180 == client).sum()) for client in (0, 1)]
    assert sizes == [96, 96]  # 90, in multiples of 16
    lengths = torch.bincount(layout.tokens // 60, minlength=6)
    assert lengths.tolist() == [30, 20, 46, 10, 26, 60]


@pytest.mark.parametrize("lengths", [(60, 60), (60, 41), (0, 0, 60, 50)])
def test_a_batch_with_little_padding_keeps_it(lengths: tuple[int, ...]) -> None:
    assert unpadded.layout(lengths, 60, clients=len(lengths) // 2) is None


@pytest.mark.parametrize("plain_attention", [False, True])
@pytest.mark.parametrize("checkpointing", [False, True])
def test_logits_and_gradients_are_those_of_padded_rows(
    folder: str, plain_attention: bool, checkpointing: bool
) -> None:
    backbone = model(folder, plain_attention, gradient_checkpointing=checkpointing)
    assert not backbone.needs_padding
    learner = client(backbone, "a", rows(0, 8), LORA)
    learner.load({name: tensor + 0.05 for name, tensor in learner.tensors().items()})
    backbone.activate(learner.adapter)
    live, results = list(learner.parameters().values()), []
    for layout in (None, Rows(LENGTHS, WIDTH)):
        logits = backbone.logits(drawn(), last(), LENGTHS, layout)
        weights = torch.linspace(-1, 1, logits.numel()).view_as(logits)
        results.append((logits, *torch.autograd.grad((logits * weights).sum(), live)))
    for padded, other in zip(*results, strict=True):
        torch.testing.assert_close(other, padded, atol=1e-5, rtol=1e-4)


@torch.no_grad()
def test_rows_do_not_see_each_other(folder: str) -> None:
    backbone, layout = model(folder), Rows(LENGTHS, WIDTH)
    ids = drawn()
    changed = ids.clone()
    changed[1] += 1
    before, after = (backbone.logits(i, last(), LENGTHS, layout) for i in (ids, changed))
    same = [0, 1, 4, 5, 6, 7]
    assert torch.equal(before[same], after[same])
    assert not torch.allclose(before[3], after[3], atol=1e-3)


@pytest.mark.usefixtures("whole")
def test_a_round_is_that_of_padded_rows(folder: str) -> None:
    """For clients alone and together, whose batches have unequal numbers of tokens."""

    def clients(padded: bool) -> list[Any]:
        backbone = model(folder)
        backbone.needs_padding = padded
        return [client(backbone, f"c{n}", rows(n, 12), LORA, optim="sgd") for n in range(3)]

    padded = clients(padded=True)
    batch = padded[0].batch(padded[0].examples("train"))
    assert unpadded.layout(batch.lengths, batch.ids.shape[1]) is not None
    starts = [moved(learner, index) for index, learner in enumerate(padded)]
    for train in (alone, together):
        results = [train(clients(padded), starts)[0] for padded in (True, False)]
        for expected, tensors in zip(*results, strict=True):
            for name, tensor in expected.items():
                torch.testing.assert_close(tensors[name], tensor, atol=1e-6, rtol=0)


def test_virtual_tokens_and_cached_layers_keep_padding(tiny_llama: Path) -> None:
    upper = Lora(r=4, target_modules=("q_proj",), layers_to_transform=(1,))
    for settings, keeps in ((LORA, False), (PromptTuning(), True), (upper, True)):
        backbone = model(str(tiny_llama))
        layout = backbone.rows(backbone.attach(settings, 0), LENGTHS, 60)
        assert (layout is None) is keeps


def test_models_that_see_other_tokens_keep_padding(tmp_path: Path, tiny_llama: Path) -> None:
    """Sliding windows, other kinds of layers, and attention that is not transformers' function."""
    sizes = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 2}
    heads = {"num_attention_heads": 2, "num_key_value_heads": 1, "vocab_size": 64}
    for window in (None, 4):
        mistral = MistralForCausalLM(MistralConfig(**sizes, **heads, sliding_window=window)).eval()
        mistral.set_attn_implementation("torch_by_rows")
        assert unpadded.is_possible(mistral) is (window is None)
    llama = AutoModelForCausalLM.from_pretrained(tiny_llama, attn_implementation="eager")
    assert not unpadded.is_possible(llama)
    assert model(str(tiny_llama), products="plain").needs_padding
