"""Training and scoring with the frozen layers left out, against the plain way."""

import logging
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor
from transformers import AutoConfig, AutoModelForCausalLM

from hanse.data.example import IGNORED, Example
from hanse.experiment.loading import load as load_experiment
from hanse.journal import run_folder
from hanse.learners.adapted_model import AdaptedModel
from hanse.learners.adapters.lora import Lora
from hanse.learners.backbone import Backbone
from hanse.learners.caching import activations
from hanse.learners.caching.frozen_layers import FEWEST
from hanse.learners.load import load
from hanse.learners.models.layers import decoder_layers
from hanse.learners.models.precision import ComputeMode
from hanse.learners.models.settings import BaseModelSettings
from hanse.learners.objectives.sft import Sft
from hanse.learners.training.settings import TrainingSettings
from hanse.randomness import RoundContext
from hanse.simulation import run as simulation

TOP = Lora(r=4, layers_to_transform=(1,))  # of the two layers of the tiny models
LONGEST = 25


def _examples() -> list[Example]:
    """12 rows of 5, 9, … 25 tokens, two of each length; the last three tokens are learned."""
    generator = torch.Generator().manual_seed(1)
    rows = []
    for number in range(12):
        ids = tuple(torch.randint(2, 300, (5 + 4 * (number % 6),), generator=generator).tolist())
        rows.append(Example(ids, (IGNORED,) * (len(ids) - 3) + ids[-3:]))
    return rows


def _learner(folder: Path, lora: Lora = TOP, cache: bool = True) -> AdaptedModel:
    backbone = load(BaseModelSettings(str(folder), bf16=False, activation_cache=cache))
    adapter = backbone.attach(lora, seed=0)
    training = TrainingSettings(
        learning_rate=0.01, per_device_train_batch_size=4, num_train_epochs=3
    )
    splits = {"train": _examples()}
    learner = AdaptedModel(
        backbone, adapter, splits, training, Sft(), RoundContext(0, 1, "a"), 1, {}
    )
    generator = torch.Generator().manual_seed(5)
    for parameter in learner.parameters().values():  # B is zero at first
        parameter.data.normal_(0, 0.2, generator=generator)
    return learner


def _padded(rows: Sequence[Sequence[int]], width: int = 0) -> tuple[Tensor, tuple[int, ...]]:
    """Rows of ids, filled up with something, and their lengths."""
    ids = torch.full((len(rows), max(width, *map(len, rows))), 3)
    for index, row in enumerate(rows):
        ids[index, : len(row)] = torch.tensor(row)
    return ids, tuple(map(len, rows))


def _graded(learner: AdaptedModel, examples: Sequence[Example]) -> tuple[float, dict[str, Tensor]]:
    """The loss of a batch, and its gradients."""
    parameters = learner.parameters()
    for parameter in parameters.values():
        parameter.grad = None
    loss = Sft().loss(learner, learner.batch(examples))
    loss.backward()
    grads = {name: parameter.grad for name, parameter in parameters.items()}
    return float(loss.detach()), {n: grad.clone() for n, grad in grads.items() if grad is not None}


@contextmanager
def _counted(model: Any) -> Iterator[list[int]]:
    """How many positions each layer has worked on: those that pass its first inner module."""
    layers = decoder_layers(model)[1]
    counts = [0] * len(layers)

    def counting(place: int) -> Any:
        def count(_: Any, inputs: tuple[Tensor, ...], __: Any) -> None:
            counts[place] += inputs[0].shape[0] * inputs[0].shape[1]

        return count

    inner = [next(m for m in layer.modules() if "Norm" in type(m).__name__) for layer in layers]
    handles = [m.register_forward_hook(counting(place)) for place, m in enumerate(inner)]
    yield counts
    for handle in handles:
        handle.remove()


@pytest.fixture(params=["tiny_llama", "tiny_gpt2"])
def folder(request: pytest.FixtureRequest) -> Path:
    found: Path = request.getfixturevalue(request.param)
    return found


@pytest.fixture
def pair(folder: Path) -> tuple[AdaptedModel, AdaptedModel]:
    """Two equal learners, with the cache and without."""
    return _learner(folder), _learner(folder, cache=False)


def test_losses_and_gradients_are_those_of_the_plain_way(
    pair: tuple[AdaptedModel, AdaptedModel],
) -> None:
    cached, plain = pair
    rows = _examples()
    # Nothing known, all known, some known, and one row twice.
    for batch in (rows[:4], rows[:4], rows[2:8], [rows[9], rows[0], rows[9]]):
        loss, grads = _graded(cached, batch)
        expected, gradients = _graded(plain, batch)
        assert loss == pytest.approx(expected, abs=1e-6)
        assert grads.keys() == gradients.keys() != set()
        for name, gradient in gradients.items():
            torch.testing.assert_close(grads[name], gradient, atol=1e-6, rtol=1e-5)


def test_below_an_output_layer_all_layers_are_left_out(tiny_llama: Path) -> None:
    head = Lora(r=4, target_modules=("lm_head",))
    cached, plain = _learner(tiny_llama, head), _learner(tiny_llama, head, cache=False)
    rows = _examples()
    with _counted(cached.backbone.model) as counts:
        for batch in (rows[:4], rows[2:6], rows[:6]):
            loss, grads = _graded(cached, batch)
            expected, gradients = _graded(plain, batch)
            assert loss == pytest.approx(expected, abs=1e-6)
            for name, gradient in gradients.items():
                torch.testing.assert_close(grads[name], gradient, atol=1e-6, rtol=1e-5)
        counts[:] = [0, 0]
        _graded(cached, rows[:6])
    assert counts == [0, 0]


def test_a_known_row_passes_only_the_layers_above(folder: Path) -> None:
    learner, rows = _learner(folder), _examples()
    with _counted(learner.backbone.model) as counts:
        _graded(learner, rows[:6])
        assert counts[0] >= sum(map(len, rows[:6]))
        counts[:] = [0, 0]
        _graded(learner, rows[:6])
        assert counts == [0, 6 * LONGEST]
        _graded(learner, [*rows[:6], rows[6]])  # the last is fresh, of five tokens
        assert 0 < counts[0] < 2 * FEWEST


@pytest.mark.parametrize(("lora", "cache"), [(TOP, False), (Lora(r=4), True)])
def test_otherwise_rows_pass_all_layers(folder: Path, lora: Lora, cache: bool) -> None:
    learner, rows = _learner(folder, lora, cache), _examples()[:6]
    with _counted(learner.backbone.model) as counts:
        for _ in range(2):
            _graded(learner, rows)
    layout = learner.backbone.rows(learner.adapter, list(map(len, rows)), LONGEST)
    assert layout is not None  # without its padding
    assert counts == [2 * len(layout.tokens)] * 2


@pytest.mark.parametrize("cache", [True, False])
def test_backward_stops_below_the_lowest_adapter(folder: Path, cache: bool) -> None:
    learner = _learner(folder, cache=cache)
    seen: list[tuple[Tensor, Tensor]] = []
    upper = decoder_layers(learner.backbone.model)[1][1]
    handle = upper.register_forward_hook(lambda _, inputs, out: seen.append((inputs[0], out)))
    _graded(learner, _examples()[:4])
    handle.remove()
    entering, leaving = seen[-1]
    assert entering.grad_fn is None and not entering.requires_grad
    assert leaving.grad_fn is not None


def test_scores_are_equal_and_can_be_followed_by_training(
    pair: tuple[AdaptedModel, AdaptedModel],
) -> None:
    rows = [Example(e.ids, (IGNORED,) * len(e), ((7, 8), (9,)), 0) for e in _examples()]
    found = []
    for learner in pair:
        with torch.inference_mode():
            first, again = (learner.scores(learner.batch(rows)) for _ in range(2))
        assert torch.equal(first, again)
        found.append(first)
        _graded(learner, [Example((*e.ids, 9), (IGNORED,) * len(e) + (9,)) for e in rows])
    torch.testing.assert_close(*found, atol=1e-5, rtol=1e-5)


def test_training_ends_in_the_same_adapter(pair: tuple[AdaptedModel, AdaptedModel]) -> None:
    (change, fit), (expected, plain) = (learner.change(learner.tensors()) for learner in pair)
    assert fit.loss == pytest.approx(plain.loss, abs=1e-5)
    for name, tensor in expected.items():
        torch.testing.assert_close(change[name], tensor, atol=1e-5, rtol=1e-4)


def test_what_is_kept_of_a_row_does_not_depend_on_the_others(folder: Path) -> None:
    """Not in a bit: otherwise a resumed run would end elsewhere."""
    rows = [example.ids for example in _examples()]
    rows += [tuple(range(9, 9 + length)) for length in range(1, 5)]
    ways = [[rows], [rows[5:7], rows[:3], rows[::-1]], [[row] for row in rows]]
    kept = []
    for batches in ways:
        backbone = _learner(folder).backbone
        for batch in batches:
            with backbone.with_cached_layers("adapter0", *_padded(batch)):
                pass
        kept.append([_entering(backbone, row) for row in rows])
    for row, one, *others in zip(rows, *kept, strict=True):
        assert one.shape == (len(row), 32)
        assert all(torch.equal(one, other) for other in others)


def _entering(backbone: Backbone, row: tuple[int, ...]) -> Tensor:
    """(tokens, H): what enters the second layer for one row."""
    seen: list[Tensor] = []
    upper = decoder_layers(backbone.model)[1][1]
    handle = upper.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0][0]))
    ids, lengths = _padded([row])
    with torch.no_grad(), backbone.with_cached_layers("adapter0", ids, lengths):
        backbone.logits(ids, torch.tensor([0]))
    handle.remove()
    return seen[-1]


def test_rows_without_tokens_and_more_padding(pair: tuple[AdaptedModel, AdaptedModel]) -> None:
    ids, lengths = _padded([_examples()[0].ids, (), _examples()[3].ids], width=40)
    at, found = torch.tensor([4, 2 * 40 + 16]), []  # the last tokens
    for learner in pair:
        learner.backbone.activate(learner.adapter)
        with torch.no_grad(), learner.backbone.with_cached_layers(learner.adapter, ids, lengths):
            found.append(learner.backbone.logits(ids, at))
        with torch.no_grad(), learner.backbone.with_cached_layers(learner.adapter, ids, (0, 0, 0)):
            assert learner.backbone.logits(ids, at).isfinite().all()
    torch.testing.assert_close(*found, atol=1e-5, rtol=1e-5)


def test_it_goes_on_when_there_is_no_more_room(
    folder: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(activations, "total_memory", lambda: 12_000 * activations.SHARE)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: SimpleNamespace(free=0))
    cached, plain = _learner(folder), _learner(folder, cache=False)
    expected = _graded(plain, _examples())[0]
    work = []
    with caplog.at_level(logging.WARNING), _counted(cached.backbone.model) as counts:
        for _ in range(3):
            assert _graded(cached, _examples())[0] == pytest.approx(expected, abs=1e-6)
            work.append(counts[0])
            counts[0] = 0
    assert work[0] > work[1] == work[2] > 0
    assert len(caplog.messages) == 1


@pytest.mark.parametrize(
    ("kind", "own"),
    [
        ("qwen2", {"num_key_value_heads": 2}),
        ("qwen3", {"num_key_value_heads": 2, "head_dim": 8}),
        ("gemma", {"num_key_value_heads": 2, "head_dim": 8}),
        ("gemma2", {"num_key_value_heads": 2, "head_dim": 8, "sliding_window": 4}),
        ("mistral", {"num_key_value_heads": 2, "sliding_window": 4}),
        ("opt", {"ffn_dim": 64, "word_embed_proj_dim": 32}),
        ("gpt_neox", {}),
        ("gpt_neo", {"num_layers": 3, "num_heads": 4, "attention_types": [[["global"], 3]]}),
        ("falcon", {}),
        ("bloom", {"n_layer": 3, "n_head": 4}),
    ],
)
def test_other_architectures(kind: str, own: dict[str, Any]) -> None:
    sizes = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 3}
    sizes |= {"num_attention_heads": 4, "vocab_size": 300, "max_position_embeddings": 64}
    config = AutoConfig.for_model(kind, **{**sizes, **own})
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(config).eval()
    backbone = Backbone(kind, model, None, torch.device("cpu"), ComputeMode(bf16=False))
    name = backbone.attach(Lora(r=2, target_modules="all-linear", layers_to_transform=(2,)), 0)
    ids, lengths = _padded([tuple(range(4, 24)), tuple(range(40, 49))])
    at = torch.tensor([19, 20 + 8])
    with torch.no_grad():
        plain = backbone.logits(ids, at)
        for _ in range(2):
            with backbone.with_cached_layers(name, ids, lengths), _counted(model) as counts:
                torch.testing.assert_close(backbone.logits(ids, at), plain, atol=1e-5, rtol=1e-5)
            assert counts == [0, 0, 2 * 20]


def test_a_model_whose_layers_depend_on_each_other_goes_the_plain_way(tiny_llama: Path) -> None:
    backbone = load(BaseModelSettings(str(tiny_llama), bf16=False))
    first, last = decoder_layers(backbone.model)[1]
    left: list[Tensor] = []  # for the last layer, by the first, in one pass
    backbone.model.get_input_embeddings().register_forward_hook(lambda *_: left.clear())
    first.mlp.register_forward_hook(lambda _, __, output: left.append(output))
    last.mlp.register_forward_hook(lambda _, __, output: output + sum(left))
    name = backbone.attach(TOP, 0)
    ids, lengths = _padded([(3, 4, 5)])
    with torch.no_grad(), _counted(backbone.model) as counts:
        for _ in range(2):
            with backbone.with_cached_layers(name, ids, lengths):
                backbone.logits(ids, torch.tensor([2]))
    assert counts == [2 * 3, 2 * 3]


def test_adapters_of_different_depth_do_not_mix(tiny_llama: Path) -> None:
    cached, plain = _learner(tiny_llama), _learner(tiny_llama, cache=False)
    whole = cached.backbone.attach(Lora(r=2), 1)
    for parameter in cached.backbone.parameters(whole).values():
        parameter.data.normal_(0, 0.2)
    cached.backbone.activate(whole)
    expected = _graded(plain, _examples())[0]
    for _ in range(2):
        assert _graded(cached, _examples())[0] == pytest.approx(expected, abs=1e-6)


def test_a_whole_run_with_and_without(experiment_file: Path, tmp_path: Path) -> None:
    words = ["adapter.lora.layers_to_transform=[1]", "adapter.lora.target_modules=all-linear"]
    records = []
    for cache in ("true", "false"):
        own = [f"model.activation_cache={cache}", f"output_dir={tmp_path / cache}"]
        folder = simulation.run(load_experiment(experiment_file, [*words, *own]))
        records.append(run_folder.read_rounds(folder))
    assert len(records[0]) == 4
    for cached, plain in zip(*records, strict=True):
        assert cached.validation == pytest.approx(plain.validation, abs=1e-5)
        assert cached.test.get("loss") == pytest.approx(plain.test.get("loss"), abs=1e-5)
        assert cached.train.get("loss") == pytest.approx(plain.train.get("loss"), abs=1e-5)
