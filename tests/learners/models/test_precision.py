"""The precision is what was asked for, or what is clearly faster; the rule decides the rest."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from transformers import GPT2Config, LlamaConfig

from hanse.learners.models import precision
from hanse.learners.models.precision import (
    ComputeMode,
    Shape,
    choose,
    compute_modes_from_json,
    shape,
)

CPU = torch.device("cpu")
SMALL = LlamaConfig(hidden_size=32, intermediate_size=64, num_attention_heads=4)


@pytest.fixture
def measured(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Make measurements come out so, in their order: attention, then a layer."""

    def come_out(*ratios: float, hardware: bool = False) -> None:
        left = list(ratios)
        monkeypatch.setattr(precision, "_times_as_fast", lambda *_: left.pop(0))
        monkeypatch.setattr(precision, "has_bf16", lambda _: hardware)
        precision.measured.cache_clear()

    return come_out


@pytest.fixture(autouse=True)
def forgetful() -> Any:
    yield
    precision.measured.cache_clear()


@pytest.mark.parametrize("hardware", [False, True])
@pytest.mark.parametrize(
    ("ratio", "bf16"), [(1.11, True), (0.9, False), (1.09, None), (1.0, None), (0.92, None)]
)
def test_what_is_clearly_faster_is_taken(
    measured: Callable[..., None], ratio: float, bf16: bool | None, hardware: bool
) -> None:
    measured(1.0, ratio, hardware=hardware)
    assert choose("auto", SMALL, CPU) == ComputeMode(hardware if bf16 is None else bf16, False)


@pytest.mark.parametrize(("ratio", "plain"), [(1.0, False), (2.0, True)])
def test_attention_is_measured_in_bfloat16(
    measured: Callable[..., None], ratio: float, plain: bool
) -> None:
    measured(ratio)
    assert choose(True, SMALL, CPU) == ComputeMode(True, plain)
    measured(ratio, 2.0)
    assert choose("auto", SMALL, CPU) == ComputeMode(True, plain)
    measured(ratio, 0.5)
    assert choose("auto", SMALL, CPU) == ComputeMode(False, False)


def test_nothing_is_measured_that_is_known(measured: Callable[..., None]) -> None:
    measured()
    assert choose(False, SMALL, CPU) == ComputeMode(False, False)
    measured(1.0, 2.0)
    assert choose("auto", SMALL, CPU) == choose("auto", SMALL, CPU)


def test_a_real_measurement_leaves_no_trace() -> None:
    state = torch.random.get_rng_state()
    chosen = choose("auto", SMALL, CPU)
    assert chosen.bf16 or not chosen.plain_attention
    assert torch.equal(torch.random.get_rng_state(), state)


def test_the_fastest_of_several_repeats_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever holds up one of them, and however long the first take."""
    seconds = iter([9.0, 9.0, 0.2, 0.5, 0.3, 0.1, 0.4, 0.4])
    monkeypatch.setattr(precision, "_seconds", lambda *_: next(seconds))
    nothing: Callable[[], None] = lambda: None  # noqa: E731
    assert precision._times_as_fast(nothing, nothing, CPU) == pytest.approx(2.0)


def test_shapes_are_those_of_the_model() -> None:
    grouped = LlamaConfig(
        hidden_size=96, intermediate_size=200, num_attention_heads=6, num_key_value_heads=2
    )
    assert shape(grouped) == Shape(hidden=96, inner=200, heads=6, group=3, width=16)
    gpt2 = GPT2Config(n_embd=64, n_head=4)
    assert shape(gpt2) == Shape(hidden=64, inner=256, heads=4, group=1, width=16)


def test_wide_models_are_narrowed() -> None:
    wide = LlamaConfig(
        hidden_size=8192, intermediate_size=28672, num_attention_heads=64, num_key_value_heads=8
    )
    found = shape(wide)
    assert (found.hidden, found.inner) == precision.WIDEST
    assert found.heads % found.group == 0 and found.heads * found.width <= precision.WIDEST[0] * 2


def test_compute_modes_are_read_from_json_and_damaged_ones_left_out() -> None:
    values: dict[str, Any] = {
        "a": {"bf16": True, "plain_attention": False},
        "b": {"bf16": "yes", "plain_attention": False},
        "c": {"bf16": True},
        "d": 3,
        "e": {"bf16": True, "plain_attention": False, "products": "packed"},
        "f": {"bf16": True, "plain_attention": False, "products": "fast"},
    }
    assert compute_modes_from_json(values) == {
        "a": ComputeMode(True, False, "plain"),  # from a run before there was a choice
        "e": ComputeMode(True, False, "packed"),
    }
