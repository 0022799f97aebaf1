"""Distillation of a middle: its loss in closed form, what it trains, and that it repeats."""

from typing import Any

import pytest
import torch
from torch.nn.functional import cross_entropy
from transformers import AutoModelForCausalLM, LlamaConfig

from hanse.data.example import Example
from hanse.errors import UserError
from hanse.learners.models.emulators.compressor import Compressor
from hanse.learners.models.emulators.compressors.layer_drop import LayerDrop
from hanse.learners.models.emulators.compressors.low_rank import LowRank
from hanse.learners.models.emulators.cut import Cut
from hanse.learners.models.emulators.distillation import Distillation, distance, distill
from hanse.learners.models.emulators.shrink import Emulator, shrink
from hanse.learners.models.layers import layer_list

QUICK = Distillation(steps=30, learning_rate=3e-3, batch_size=4)


def whole() -> Any:
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=50, hidden_size=32, intermediate_size=64, num_hidden_layers=6,
        num_attention_heads=4, num_key_value_heads=2, initializer_range=0.1,
    )  # fmt: skip
    return AutoModelForCausalLM.from_config(config).eval()


def texts() -> list[Example]:
    """Texts of several lengths."""
    draws = torch.Generator().manual_seed(0)
    ids = [torch.randint(50, (5 + n % 4,), generator=draws).tolist() for n in range(12)]
    return [Example(tuple(row), tuple(row)) for row in ids]


def made(model: Any, compressor: Compressor) -> Emulator:
    return shrink(model, Cut(1, 4, 1), compressor)


def test_the_distance_is_that_of_states_of_unit_mean_square() -> None:
    states = torch.randn(7, 5, dtype=torch.float64)
    others = states + 1
    expected = 1 / states.square().mean()
    torch.testing.assert_close(distance(states, others), expected)
    torch.testing.assert_close(distance(3 * states, 3 * others), expected)
    assert distance(states, states) == 0


def test_losses_of_the_first_step_by_hand() -> None:
    model = whole()
    emulator = made(model, LayerDrop(drop=0.5))
    rows = texts()[:1]
    [first] = distill(
        model, emulator, rows, Distillation(steps=1, batch_size=1, learning_rate=1e-9)
    )
    ids = torch.tensor([rows[0].ids])
    with torch.no_grad():
        teacher = model(ids, output_hidden_states=True, use_cache=False)
        student = emulator.model(ids, output_hidden_states=True, use_cache=False)
    log = student.logits[0, :-1].log_softmax(-1)
    lm = -log.gather(1, ids[0, 1:, None]).mean()
    # The middle's end is the input of the one top layer, the last state but the final one.
    h, e = teacher.hidden_states[-2], student.hidden_states[-2]
    kd = ((h - e) / h.square().mean().sqrt()).square().mean()
    assert first == pytest.approx({"lm": float(lm), "kd": float(kd)}, rel=1e-4)


@pytest.mark.parametrize("compressor", [LayerDrop(drop=0.5), LowRank(0.3)])
def test_the_middle_alone_becomes_like_the_models(compressor: Compressor) -> None:
    model = whole()
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    emulator = made(model, compressor)
    losses = distill(model, emulator, texts(), QUICK)
    assert losses[-1]["kd"] < 0.6 * losses[0]["kd"]
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())
    layers = layer_list(emulator.model)[1]
    for number in (0, -1):
        pairs = zip(
            layer_list(model)[1][number].parameters(), layers[number].parameters(), strict=True
        )
        assert all(torch.equal(one, other) for one, other in pairs)
    assert not any(parameter.requires_grad for parameter in emulator.model.parameters())


def test_the_same_seed_repeats() -> None:
    def run(settings: Distillation) -> list[dict[str, float]]:
        model = whole()
        return distill(model, made(model, LayerDrop(drop=0.5)), texts(), settings)

    assert run(QUICK) == run(QUICK)
    assert run(QUICK) != run(Distillation(30, 3e-3, batch_size=4, seed=1))


def test_padding_counts_for_nothing() -> None:
    """The losses of a batch are those of its rows, each computed alone and without padding."""
    model, rows = whole(), [texts()[0], texts()[3]]
    assert [len(row.ids) for row in rows] == [5, 8]
    emulator = made(model, LayerDrop(drop=0.5))
    settings = Distillation(steps=1, learning_rate=1e-9, batch_size=2)
    [both] = distill(model, emulator, rows, settings)
    states, own, logits, targets = [], [], [], []
    for row in rows:
        ids = torch.tensor([row.ids])
        with torch.no_grad():
            teacher = model(ids, output_hidden_states=True, use_cache=False)
            student = emulator.model(ids, output_hidden_states=True, use_cache=False)
        states.append(teacher.hidden_states[-2][0])
        own.append(student.hidden_states[-2][0])
        logits.append(student.logits[0, :-1])
        targets.append(ids[0, 1:])
    kd = distance(torch.cat(states), torch.cat(own))
    lm = cross_entropy(torch.cat(logits), torch.cat(targets))
    assert both == pytest.approx({"lm": float(lm), "kd": float(kd)}, rel=1e-4)


def test_a_distillation_that_diverges_ends_in_a_sentence() -> None:
    model = whole()
    settings = Distillation(steps=10, learning_rate=1e6, batch_size=2)
    with pytest.raises(UserError, match=r"after 1 of 10 steps .* lower --learning-rate"):
        distill(model, made(model, LayerDrop(drop=0.5)), texts(), settings)


def test_a_model_without_finite_states_is_refused_at_once() -> None:
    model = whole()
    layer_list(model)[1][0].mlp.down_proj.weight.data.fill_(float("nan"))
    with pytest.raises(UserError, match="states on these texts are not finite"):
        distill(model, made(model, LayerDrop(drop=0.5)), texts(), QUICK)


def test_the_learning_rate_rises_and_falls() -> None:
    settings = Distillation(steps=100, learning_rate=1.0)
    rates = [settings.rate(step) for step in range(100)]
    assert rates[:10] == pytest.approx([0.1 * n for n in range(1, 11)])
    assert rates[9:] == sorted(rates[9:], reverse=True) and rates[-1] < 0.01
