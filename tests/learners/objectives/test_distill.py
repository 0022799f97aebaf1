"""Distillation: its terms, its gradient against finite differences, and what a teacher is for."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn.functional import cross_entropy, one_hot

from clients import SETTINGS
from hanse.data.example import IGNORED, Example
from hanse.errors import UserError
from hanse.federation.interfaces.objective import Objective
from hanse.learners.adapted_model import AdaptedModel
from hanse.learners.adapters.lora import Lora
from hanse.learners.backbone import Backbone
from hanse.learners.load import load
from hanse.learners.models.settings import BaseModelSettings
from hanse.learners.objectives.classify import Classify
from hanse.learners.objectives.distill import Distill
from hanse.learners.objectives.sft import Sft
from hanse.learners.objectives.tag import Tag
from hanse.randomness import RoundContext

PLAIN: dict[str, Objective] = {"sft": Sft(), "classify": Classify(), "tag": Tag()}
CASES = [  # the kind of model, and what it learns
    *(("tiny_llama", "sft"), ("tiny_llama", "classify"), ("tiny_gpt2", "sft")),
    *(("tiny_gpt2", "classify"), ("tiny_bert", "classify"), ("tiny_bert", "tag")),
]
EVERY = dict.fromkeys(("hidden", "attention"), 0.7) | {"temperature": 2.0, "weight": 0.6}
TERMS: dict[str, dict[str, Any]] = {
    "forward": {"weight": 1.0, "temperature": 2.0},
    "reverse": {"weight": 1.0, "temperature": 2.0, "reverse": True},
    "largest": {"weight": 1.0, "temperature": 2.0, "top_k": 2},
    "hidden": {"weight": 0.0, "hidden": 1.0},
    "attention": {"weight": 0.0, "attention": 5.0},
    "every": EVERY,
}


def rows(of: str) -> list[Example]:
    draw, found = torch.Generator().manual_seed(1), []
    for number in range(5):
        ids = tuple(torch.randint(3, 290, (5 + number,), generator=draw).tolist())
        ignored = (IGNORED,) * len(ids)
        if of == "classify":
            found.append(Example(ids, ignored, ((5,), (6,), (7,)), number % 3))
        elif of == "tag":
            tags = tuple(place % 3 for place in range(len(ids)))
            found.append(Example(ids, ignored, tags=tags, classes=("a", "b", "c")))
        else:
            found.append(Example(ids, ignored[:-3] + ids[-3:]))
    return found


def learner_of(
    backbone: Backbone, of: str, seed: int, objective: Objective | None = None, **settings: Any
) -> AdaptedModel:
    """A learner on a base model, with an adapter of its own that is not zero."""
    name = backbone.attach(Lora(r=3, target_modules="all-linear"), seed=0)
    draw = torch.Generator().manual_seed(seed)
    for parameter in backbone.parameters(name).values():
        parameter.data.add_(torch.empty_like(parameter).normal_(0, 0.1, generator=draw))
    examples = rows(of)
    if backbone.head.reads.get("label_words") == "class_labels":
        examples = [replace(e, choices=((0,), (1,), (2,)) if e.choices else ()) for e in examples]
    training = replace(SETTINGS, learning_rate=0.01, **settings)
    context = RoundContext(0, 1, "a")
    part = objective or PLAIN[of]
    return AdaptedModel(backbone, name, {"train": examples}, training, part, context, 1, {})


def backbone_of(folder: Path, of: str, **settings: Any) -> Backbone:
    kind = PLAIN[of].example_kind
    model = BaseModelSettings(str(folder), bf16=False, **settings)
    return load(model, classes=0 if of == "sft" else 3, example_kind=kind)


@pytest.fixture(params=CASES, ids="-".join)
def pair(request: pytest.FixtureRequest) -> tuple[AdaptedModel, str]:
    """A learner with a teacher beside it, on one base model, and what it learns."""
    name, of = request.param
    return taught(request.getfixturevalue(name), of), of


def taught(folder: Path, of: str, **settings: Any) -> AdaptedModel:
    backbone = backbone_of(folder, of)
    teacher = learner_of(backbone, of, seed=1)
    return replace(learner_of(backbone, of, seed=2, **settings), models={"teacher": teacher})


def batch_of(learner: AdaptedModel) -> Any:
    return learner.batch(learner.examples("train"))


def gradients(learner: AdaptedModel, objective: Objective) -> tuple[float, dict[str, Tensor]]:
    for parameter in learner.parameters().values():
        parameter.grad = None
    loss = objective.loss(learner, batch_of(learner))
    loss.backward()
    live = learner.parameters()
    return float(loss.detach()), {n: p.grad for n, p in live.items() if p.grad is not None}


def slope(
    objective: Objective, learner: AdaptedModel, direction: dict[str, Tensor], step: float
) -> float:
    """The derivative by four differences: long steps cut more terms off, short ones more digits."""
    start, losses = learner.tensors(), []
    for sign in (-2, -1, 1, 2):
        learner.load({n: t + sign * step * direction.get(n, 0) for n, t in start.items()})
        with torch.no_grad():
            losses.append(float(objective.loss(learner, batch_of(learner))))
    learner.load(start)
    return (losses[0] - 8 * losses[1] + 8 * losses[2] - losses[3]) / (12 * step)


@pytest.mark.parametrize("term", TERMS)
def test_the_gradient_is_that_of_finite_differences(
    pair: tuple[AdaptedModel, str], term: str
) -> None:
    """Along the gradient's own direction, to 1e-4; nothing of it reaches the teacher."""
    learner, of = pair
    objective = Distill(of=of, **TERMS[term])  # type: ignore[arg-type]
    _, grads = gradients(learner, objective)
    norm = torch.stack([grad.norm() for grad in grads.values()]).norm()
    assert float(norm) > 1e-3
    direction = {name: grad / norm for name, grad in grads.items()}
    slopes = [slope(objective, learner, direction, step) for step in (1e-2, 4e-3, 1.5e-3)]
    assert min(abs(found / float(norm) - 1) for found in slopes) < 1e-4, (slopes, norm)
    teacher = learner.models["teacher"]
    assert all(parameter.grad is None for parameter in teacher.parameters().values())


def test_without_weight_it_is_the_plain_loss_bit_for_bit(pair: tuple[AdaptedModel, str]) -> None:
    learner, of = pair
    loss, grads = gradients(learner, Distill(of=of, weight=0))  # type: ignore[arg-type]
    plain, others = gradients(learner, PLAIN[of])
    assert loss == plain and grads.keys() == others.keys()
    assert all(torch.equal(grads[name], others[name]) for name in grads)
    assert Distill(of=of).example_kind == PLAIN[of].example_kind  # type: ignore[arg-type]


@pytest.mark.parametrize("term", [name for name in TERMS if name != "every"])
def test_from_its_equal_nothing_is_learned(pair: tuple[AdaptedModel, str], term: str) -> None:
    learner, of = pair
    learner.load(learner.models["teacher"].tensors())
    loss, grads = gradients(learner, Distill(of=of, **TERMS[term]))  # type: ignore[arg-type]
    if TERMS[term]["weight"] == 0:
        plain, others = gradients(learner, PLAIN[of])
        loss -= plain
        grads = {name: grad - others[name] for name, grad in grads.items()}
    assert loss == pytest.approx(0, abs=1e-6)
    assert all(float(grad.abs().max()) < 1e-6 for grad in grads.values())


def test_the_loss_is_the_formula(tiny_llama: Path) -> None:
    learner = taught(tiny_llama, "sft")
    batch, teacher = batch_of(learner), learner.models["teacher"]
    logits, target = learner.forward(batch).double(), teacher.forward(batch).double()
    p, q = (target / 2).softmax(1), (logits / 2).softmax(1)
    divergence = (p * (p / q).log()).sum(1).mean()
    states = [model.hidden_states(batch).double()[1:] for model in (teacher, learner)]
    maps = [model.attentions(batch).double() for model in (teacher, learner)]
    expected = (
        0.4 * cross_entropy(logits, batch.targets)
        + 0.6 * 4 * divergence
        + 0.7 * (states[0] - states[1]).square().mean()
        + 0.7 * (maps[0] - maps[1]).square().sum(3).mean()
    )
    found = Distill(**EVERY).loss(learner, batch)
    assert float(found.detach()) == pytest.approx(float(expected.detach()), rel=1e-5)


def test_all_classes_as_the_largest_are_all_classes(tiny_llama: Path) -> None:
    learner = taught(tiny_llama, "classify")
    losses = [
        float(Distill("classify", 1.0, 3.0, top_k=k).loss(learner, batch_of(learner)).detach())
        for k in (None, 3, 2, 1)
    ]
    assert losses[1] == pytest.approx(losses[0], rel=1e-5)
    assert losses[0] > losses[2] > losses[3] > 0  # what is put together differs less
    with pytest.raises(UserError, match=r"top_k is 4, and there are 3 classes"):
        Distill("classify", 1.0, top_k=4).require(learner)


class Perfect:
    """A teacher that is nearly certain of each right token."""

    def forward(self, batch: Any) -> Tensor:
        return 20.0 * one_hot(batch.targets, 512)


@pytest.mark.parametrize("settings", [{}, {"reverse": True}, {"top_k": 3}])
def test_a_perfect_teacher_lowers_the_cross_entropy(
    settings: dict[str, Any], tiny_llama: Path
) -> None:
    """The learner sees nothing else of the right tokens."""
    objective = Distill(weight=1.0, **settings)
    learner = learner_of(
        backbone_of(tiny_llama, "sft"), "sft", 2, objective, max_steps=30, num_train_epochs=None
    )
    learner.models = {"teacher": Perfect()}  # type: ignore[dict-item]
    with torch.no_grad():
        before = float(Sft().loss(learner, batch_of(learner)))
    learner.fit()
    with torch.no_grad():
        assert float(Sft().loss(learner, batch_of(learner))) < 0.7 * before


def test_a_learner_without_a_teacher_learns_from_its_labels(tiny_llama: Path) -> None:
    learner = taught(tiny_llama, "sft")
    teacher = learner.models["teacher"]
    loss, grads = gradients(teacher, Distill(**EVERY))
    plain, others = gradients(teacher, Sft())
    assert loss == plain and all(torch.equal(grads[name], others[name]) for name in others)


def test_recomputed_layers_find_the_adapter_of_the_learner(tiny_llama: Path) -> None:
    found = []
    for recompute in (False, True):
        backbone = backbone_of(tiny_llama, "sft", gradient_checkpointing=recompute)
        teacher = learner_of(backbone, "sft", seed=1)
        learner = replace(learner_of(backbone, "sft", seed=2), models={"teacher": teacher})
        found.append(gradients(learner, Distill(weight=0.5, hidden=1.0))[1])
    for name, grad in found[0].items():
        torch.testing.assert_close(found[1][name], grad, msg=name)


def wider(folder: Path, changes: dict[str, int], to: Path) -> Path:
    """A random model of other sizes with the same tokenizer."""
    from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer

    config = AutoConfig.from_pretrained(folder)
    for name, value in changes.items():
        setattr(config, name, value)
    torch.manual_seed(3)
    AutoModelForCausalLM.from_config(config).save_pretrained(to)
    AutoTokenizer.from_pretrained(folder).save_pretrained(to)
    return to


def with_teacher(folder: Path, other: Path, **settings: Any) -> AdaptedModel:
    learner = learner_of(backbone_of(folder, "sft"), "sft", seed=2, **settings)
    return replace(learner, models={"teacher": learner_of(backbone_of(other, "sft"), "sft", 1)})


def test_a_deeper_teacher_with_more_outputs_than_tokens(tiny_llama: Path, tmp_path: Path) -> None:
    deeper = wider(tiny_llama, {"num_hidden_layers": 4, "vocab_size": 640}, tmp_path / "deep")
    learner = with_teacher(tiny_llama, deeper)
    objective = Distill(**EVERY)
    objective.require(learner)
    batch = batch_of(learner)
    states = learner.models["teacher"].hidden_states(batch), learner.hidden_states(batch)
    expected = (states[0][[2, 4]] - states[1][[1, 2]]).square().mean()
    alone = [Distill(weight=0, hidden=a).loss(learner, batch) for a in (0.0, 1.0)]
    assert float((alone[1] - alone[0]).detach()) == pytest.approx(float(expected.detach()), 1e-4)


@pytest.mark.parametrize(
    ("changes", "setting", "message"),
    [
        ({"hidden_size": 64}, "hidden", "hidden states of 64 and of 32 numbers"),
        ({"num_attention_heads": 8, "head_dim": 4}, "attention", "8 and 4 heads of attention"),
    ],
)
def test_layers_that_cannot_be_compared_are_refused(
    tiny_llama: Path, tmp_path: Path, changes: dict[str, int], setting: str, message: str
) -> None:
    learner = with_teacher(tiny_llama, wider(tiny_llama, changes, tmp_path / "wide"))
    Distill().require(learner)
    with pytest.raises(UserError, match=rf"{message}.* set objective\.distill\.{setting} to 0"):
        Distill(**{setting: 0.5}).require(learner)
