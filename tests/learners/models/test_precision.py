"""The fastest mode that the settings allow is taken, and a tie goes to the plainer way."""

import logging
from collections.abc import Callable
from typing import Any

import pytest
import torch
from transformers import GPT2Config, LlamaConfig

from hanse.learners import load as loading
from hanse.learners.kernels import frozen
from hanse.learners.models import precision, sample_layer
from hanse.learners.models.precision import ComputeMode, Fastest, choose, compute_modes_from_json
from hanse.learners.models.sample_layer import SampleLayers, Shape, shape
from hanse.learners.models.settings import BaseModelSettings, Kernel
from hanse.observability.paired_timing import Comparison, Way

CPU = torch.device("cpu")
MODEL = LlamaConfig(
    hidden_size=256, intermediate_size=512, num_attention_heads=4, num_hidden_layers=2
)
TINY = LlamaConfig(hidden_size=32, intermediate_size=64, num_attention_heads=4)
ALL: tuple[Kernel, ...] = ("torch", "onednn", "packed")
ATTENTION = "torch's attention in bfloat16", "plain attention in bfloat16"
TORCH, ONEDNN, PACKED = (f" with {name}" for name in precision.KERNEL_NAMES.values())

Ratios = dict[tuple[str, str], float]


@pytest.fixture
def measured(monkeypatch: pytest.MonkeyPatch) -> Callable[[Ratios], list[tuple[str, str]]]:
    """Let comparisons have these ratios, by the names of their ways; others are ties."""

    def come_out(ratios: Ratios) -> list[tuple[str, str]]:
        asked: list[tuple[str, str]] = []

        def compare(first: Way, second: Way, clear: float, deadline: float) -> Comparison:
            asked.append((first.name, second.name))
            ratio = ratios.get(asked[-1], 1.0)
            return Comparison(*asked[-1], (ratio, 1.0), ratio, ratio * 0.99, ratio * 1.01, 9)

        monkeypatch.setattr(precision, "compare", compare)
        precision.measured.cache_clear()
        return asked

    return come_out


@pytest.fixture(autouse=True)
def forgetful() -> Any:
    yield
    precision.measured.cache_clear()


def chosen(
    bf16: Any = "auto", kernels: tuple[Kernel, ...] = ALL, config: Any = MODEL, **settings: Any
) -> ComputeMode:
    return choose(BaseModelSettings(bf16=bf16, **settings), config, CPU, kernels)[0]


def test_a_tie_goes_to_float32_and_torch(measured: Callable[..., Any]) -> None:
    asked = measured({})
    assert chosen() == ComputeMode(False, False, "torch")
    assert asked == [
        ATTENTION,
        ("float32" + TORCH, "float32" + ONEDNN), ("float32" + TORCH, "float32" + PACKED),
        ("bfloat16" + TORCH, "bfloat16" + ONEDNN), ("bfloat16" + TORCH, "bfloat16" + PACKED),
        ("float32", "bfloat16"),
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("ratio", "bf16"), [(2.0, True), (1.07, True), (1.03, False), (0.5, False)]
)
def test_the_faster_precision_is_taken(
    measured: Callable[..., Any], ratio: float, bf16: bool
) -> None:
    measured({("float32", "bfloat16"): ratio})
    assert chosen() == ComputeMode(bf16)


@pytest.mark.parametrize(("ratio", "plain"), [(1.0, False), (2.0, True)])
def test_attention_is_measured_in_bfloat16(
    measured: Callable[..., Any], ratio: float, plain: bool
) -> None:
    measured({ATTENTION: ratio})
    assert chosen(True) == ComputeMode(True, plain)
    assert chosen(False) == chosen() == ComputeMode(False, False)


def test_each_precision_has_its_fastest_kernel(measured: Callable[..., Any]) -> None:
    """Packed weights take memory, so that a tie goes to the kernel without them."""
    asked = measured(
        {
            ("float32" + TORCH, "float32" + ONEDNN): 1.8,
            ("float32" + ONEDNN, "float32" + PACKED): 1.03,
            ("bfloat16" + TORCH, "bfloat16" + PACKED): 1.2,
        }
    )
    assert (chosen(False).products, chosen(True).products) == ("onednn", "packed")
    assert ("float32" + ONEDNN, "float32" + PACKED) in asked
    assert chosen(False, ("torch",)).products == "torch"


def test_a_kernel_of_the_settings_is_not_compared(measured: Callable[..., Any]) -> None:
    asked = measured({("float32", "bfloat16"): 2.0})
    assert chosen(products="packed") == ComputeMode(True, False, "packed")
    assert chosen(quantization="int8") == ComputeMode(True, False, "torch")
    assert asked == [ATTENTION, ("float32", "bfloat16")] * 2


def test_a_slower_setting_is_said(
    measured: Callable[..., Any], caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    for bf16, ratio, line in (
        (False, 2.0, "bfloat16: 2.0 times as fast as float32 here (measured, 9 pairs)"),
        (True, 0.5, "float32: 2.0 times as fast as bfloat16 here (measured, 9 pairs)"),
        (True, 2.0, ""),
        (True, 1.0, ""),
        ("auto", 2.0, ""),
    ):
        measured({("float32", "bfloat16"): ratio})
        caplog.clear()
        chosen(bf16)
        assert caplog.messages == ([f"{_setting(bf16)}; {line}"] if line else [])


def _setting(bf16: bool) -> str:
    return f"model.bf16 is {str(bf16).lower()}, and auto would be faster"


def test_the_choice_comes_with_its_measurement(
    measured: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(precision, "load_average", lambda: 0.5)
    monkeypatch.setattr(precision, "is_crowded", lambda threads, load: False)
    measured({})
    _, measurement = choose(BaseModelSettings(), MODEL, CPU, ("torch",))
    assert [(c.first, c.second) for c in measurement.comparisons] == [
        ATTENTION,
        ("float32", "bfloat16"),
    ]
    assert (measurement.threads, measurement.load) == (torch.get_num_threads(), 0.5)


def test_a_crowded_machine_is_measured_with_one_thread(monkeypatch: pytest.MonkeyPatch) -> None:
    """Threads that wait for a core measure the other programs, not the kernels."""
    threads, before = [], torch.get_num_threads()

    def compare(first: Way, second: Way, clear: float, deadline: float) -> None:
        threads.append(torch.get_num_threads())

    monkeypatch.setattr(precision, "compare", compare)
    monkeypatch.setattr(precision, "is_crowded", lambda threads, load: True)
    torch.set_num_threads(2)
    try:
        _, measurement = choose(BaseModelSettings(), MODEL, CPU, ALL)
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(before)
    assert set(threads) == {1} and measurement.threads == 1


def test_comparisons_share_a_budget(monkeypatch: pytest.MonkeyPatch) -> None:
    """Those of a precision's mode share one part; the comparison of both has the rest."""
    deadlines: list[float] = []

    def compare(first: Way, second: Way, clear: float, deadline: float) -> None:
        deadlines.append(deadline)

    monkeypatch.setattr(precision, "compare", compare)
    monkeypatch.setattr(precision, "perf_counter", lambda: 100.0)
    assert chosen() == ComputeMode(False)  # nothing could be measured
    parts = [100 + precision.PREPARATION / left for left in (5, 4, 3, 2, 1)]
    assert deadlines == pytest.approx([*parts, 100 + precision.BUDGET])


def test_a_small_model_is_not_measured(measured: Callable[..., Any]) -> None:
    asked = measured({("float32", "bfloat16"): 2.0})
    assert chosen(config=TINY) == ComputeMode(False)
    assert chosen(True, config=TINY) == ComputeMode(True)
    assert asked == []


def test_models_of_a_shape_have_one_mode_in_a_process(measured: Callable[..., Any]) -> None:
    asked = measured({})
    assert chosen() == chosen() and len(asked) == 6


def test_a_real_measurement_leaves_no_trace() -> None:
    state, threads = torch.random.get_rng_state(), torch.get_num_threads()
    mode, measurement = choose(BaseModelSettings(), MODEL, CPU, frozen.kernels(CPU))
    assert mode.bf16 or not mode.plain_attention
    assert len(measurement.comparisons) >= 1
    assert torch.equal(torch.random.get_rng_state(), state)
    assert torch.get_num_threads() == threads


@pytest.mark.parametrize("kernel", frozen.kernels(CPU))
def test_a_sample_layer_computes_the_same_with_every_kernel(kernel: Kernel) -> None:
    layers = SampleLayers(Shape(64, 128, 4, 2, 16, 3), CPU)
    names = sample_layer.NAMES
    products = next(layers._in_turns(torch.float32, kernel, names))
    weights = layers._weights[torch.float32][0]
    x = layers._random(torch.float32, 2, 5, 64).requires_grad_()
    result = sample_layer._forward(x, products, 16, plain=True)
    plain = next(layers._in_turns(torch.float32, "torch", names))
    expected = sample_layer._forward(x, plain, 16, plain=False)
    torch.testing.assert_close(result, expected)
    grads = (torch.autograd.grad(y.sum(), x)[0] for y in (result, expected))
    torch.testing.assert_close(*grads)
    assert weights["k"].shape == (32, 64) and weights["down"].shape == (64, 128)


def test_layers_take_turns_until_they_exceed_the_cache(monkeypatch: pytest.MonkeyPatch) -> None:
    """But a model that has fewer layers does not get more."""
    for count, cold, distinct in ((3, 10**9, 3), (30, 400_000, 3), (30, 0, 1)):
        monkeypatch.setattr(sample_layer, "COLD", cold)
        layers = SampleLayers(Shape(64, 128, 4, 1, 16, count), CPU)
        turns = layers._in_turns(torch.float32, "torch", ("gate",))
        places = [next(turns)["gate"].weight.data_ptr() for _ in range(8)]
        assert len({*places}) == distinct and places[0] == places[distinct], (count, cold)


def test_shapes_are_those_of_the_model() -> None:
    grouped = LlamaConfig(
        hidden_size=96, intermediate_size=200, num_attention_heads=6, num_key_value_heads=2,
        num_hidden_layers=5,
    )  # fmt: skip
    assert shape(grouped, CPU) == Shape(hidden=96, inner=200, heads=6, group=3, width=16, layers=5)
    gpt2 = GPT2Config(n_embd=64, n_head=4, n_layer=7)
    assert shape(gpt2, CPU) == Shape(hidden=64, inner=256, heads=4, group=1, width=16, layers=7)


def test_wide_models_are_narrowed() -> None:
    wide = LlamaConfig(
        hidden_size=8192, intermediate_size=28672, num_attention_heads=64, num_key_value_heads=8
    )
    for kind, widest in sample_layer.WIDEST.items():
        narrow = shape(wide, torch.device(kind))
        assert (narrow.hidden, narrow.inner) == widest
        assert narrow.heads % narrow.group == 0
        assert narrow.heads * narrow.width <= widest[0] * 2


def test_compute_modes_are_read_from_json_and_damaged_ones_left_out() -> None:
    values: dict[str, Any] = {
        "a": {"bf16": True, "plain_attention": False, "products": "packed"},
        "b": {"bf16": "yes", "plain_attention": False},
        "c": {"bf16": True},
        "d": 3,
        "e": {"bf16": True, "plain_attention": False, "products": "other"},
        "old": {"bf16": True, "plain_attention": True},  # without products, which were plain
    }
    assert compute_modes_from_json(values) == {
        "a": ComputeMode(True, False, "packed"),
        "old": ComputeMode(True, True, "plain"),
    }


def test_a_machine_without_a_kernel_takes_torchs(caplog: pytest.LogCaptureFixture) -> None:
    mode = ComputeMode(True, True, "onednn")
    assert loading._available(mode, ALL) == mode and caplog.messages == []
    assert loading._available(mode, ("torch",)) == ComputeMode(True, True, "torch")
    assert "no kernel onednn" in caplog.messages[0]
    plain = ComputeMode(True, products="plain")
    assert loading._available(plain, ("torch",)) == plain


def test_a_mode_is_said_in_words() -> None:
    assert str(ComputeMode(False)) == "float32 with torch's products"
    assert str(ComputeMode(True, True, "packed")) == (
        "bfloat16 with oneDNN's products of packed weights, attention of short rows by plain "
        "products"
    )
    assert str(ComputeMode(False, products="plain")) == (
        "float32 with products as transformers and PEFT compute them"
    )


def test_no_answer_is_a_tie() -> None:
    assert Fastest(ComputeMode(False), ComputeMode(True)).auto == ComputeMode(False)
