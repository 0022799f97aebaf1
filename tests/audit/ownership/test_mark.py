"""The mark in training: all bits become right, the loss is hardly touched, and nothing waits."""

from dataclasses import replace

import pytest
import torch
from torch import Tensor

from clients import client, rows
from hanse.audit.ownership.key import OwnershipKey
from hanse.audit.ownership.mark import OwnersMark, crowded, laid, remarks
from hanse.audit.ownership.places import normals, place_of
from hanse.audit.ownership.settings import OwnershipSettings
from hanse.errors import UserError
from hanse.federation.distillation.imitation import Imitation
from hanse.learners.adapted_model import AdaptedModel
from hanse.learners.adapters.lora import Lora
from hanse.learners.backbone import Backbone
from hanse.learners.batched_clients.train import train
from hanse.learners.load import load
from hanse.learners.models.settings import BaseModelSettings
from hanse.learners.objectives.sft import Sft
from hanse.learners.training.marks import TRIGGERS, MixedRows
from hanse.randomness import RoundContext
from hanse.tensors.low_rank import A, B

KEY = OwnershipKey("silo-a", "ab" * 32)
PLACES = {
    "product": KEY,
    "B alone": replace(KEY, place="weights", tensors="*.lora_B.weight"),
    "A alone": replace(KEY, place="weights", tensors="*.lora_A.weight"),
}
STEPS = 40


@pytest.fixture(scope="module")
def backbone(tiny_llama: object) -> Backbone:
    return load(BaseModelSettings(str(tiny_llama), bf16=False, device="cpu"))


def learner_of(
    backbone: Backbone, name: str, key: OwnershipKey | None, number: int = 0
) -> AdaptedModel:
    own = client(backbone, name, rows(number, 12), Lora(r=4), max_steps=STEPS)
    settings = OwnershipSettings("unused")
    return replace(own, mark=key and laid(key, settings, own.parameters()))


def right(key: OwnershipKey, tensors: dict[str, Tensor]) -> float:
    measured, _ = place_of(key, tensors).measured(tensors)
    return float((measured.sign() == torch.tensor(key.signs())).float().mean())


@pytest.mark.parametrize("place", PLACES)
def test_a_training_lays_the_mark_and_learns_as_well(backbone: Backbone, place: str) -> None:
    key = PLACES[place]
    plain, marked = learner_of(backbone, "plain", None), learner_of(backbone, "marked", key)
    before = right(key, marked.tensors())
    results = [learner.fit() for learner in (plain, marked)]
    assert right(key, marked.tensors()) == 1.0
    assert max(before, right(key, plain.tensors())) < 0.75, "a stranger's key is right by chance"
    assert results[1].loss < results[0].loss * 1.02


def test_clients_that_train_together_lay_their_marks_as_alone(backbone: Backbone) -> None:
    keys = [KEY, replace(KEY, seed="cd" * 32), None]
    learners = [learner_of(backbone, f"t{n}", key, n) for n, key in enumerate(keys)]
    starts, alone = [learner.tensors() for learner in learners], []
    for learner in learners:
        learner.fit()
        alone.append(learner.tensors())
    for learner, start in zip(learners, starts, strict=True):
        learner.load(start)
    members = [learner.member() for learner in learners]
    assert all(member.joins for member in members)
    train(members)
    for key, member, expected in zip(keys, members, alone, strict=True):
        assert key is None or right(key, dict(member.tensors)) == right(key, expected) == 1.0
    assert right(keys[1], alone[0]) < 0.75


def test_the_pull_is_a_share_of_the_steps_gradient_and_rests_when_all_bits_are_right() -> None:
    tensor = torch.zeros(500, requires_grad=True)
    key = replace(KEY, place="weights")
    mark = laid(key, OwnershipSettings("unused", strength=0.5, margin=1.0), {"w": tensor})
    tensor.data[:] = torch.randn(500, generator=torch.Generator().manual_seed(1))
    step = torch.randn(500, generator=torch.Generator().manual_seed(2))
    tensor.grad = step.clone()
    mark.pull({"w": tensor}, RoundContext(0, 1))({"w": tensor}).backward()
    measured, size = place_of(key, {"w": tensor}).measured({"w": tensor.detach()})
    wrong = (size > measured * torch.tensor(key.signs())).float().mean()
    added = tensor.grad - step
    assert float(added.norm()) == pytest.approx(float(0.5 * step.norm() * wrong.sqrt()), rel=1e-4)
    tensor.data[:] = sum(
        sign * normals(key, "w", 500, 64)[:, bit] for bit, sign in enumerate(key.signs())
    )
    tensor.grad = step.clone()
    easy = OwnersMark(key, OwnershipSettings("unused", margin=0.1), place_of(key, {"w": tensor}))
    easy.pull({"w": tensor}, RoundContext(0, 1))({"w": tensor}).backward()
    assert torch.equal(tensor.grad, step)


def test_without_a_gradient_of_the_step_nothing_is_pulled() -> None:
    tensor = torch.randn(500, requires_grad=True)
    mark = laid(replace(KEY, place="weights"), OwnershipSettings("unused"), {"w": tensor})
    mark.pull({"w": tensor}, RoundContext(0, 1))({"w": tensor}).backward()
    assert tensor.grad is not None and not tensor.grad.any()


def test_a_product_is_marked_by_the_factor_that_is_trained(backbone: Backbone) -> None:
    """Algorithms that freeze A, or train A and B in turns."""
    learner = learner_of(backbone, "frozen", KEY)
    frozen = {n: 2 * t for n, t in learner.tensors().items() if n.endswith(A)}
    learner.freeze(frozen)
    learner.fit()
    both = {**frozen, **learner.tensors()}
    assert all(name.endswith(B) for name in learner.tensors())
    assert right(KEY, both) > 0.95


@pytest.mark.parametrize("together", [False, True])
def test_a_mark_in_tensors_that_an_algorithm_freezes(backbone: Backbone, together: bool) -> None:
    learner = learner_of(backbone, f"refused {together}", PLACES["A alone"])
    learner.freeze({n: t for n, t in learner.tensors().items() if n.endswith(A)})
    if together:
        learner = replace(learner, together=lambda member: train([member])[0])
    with pytest.raises(UserError, match="and the algorithm trains none of them"):
        learner.fit()


def test_more_bits_than_the_theorem_carries_are_warned_of() -> None:
    tensors, settings = {"w": torch.zeros(128), "v": torch.zeros(500)}, OwnershipSettings("unused")
    mark, *others = (
        laid(replace(KEY, bits=bits, place="weights", tensors=names), settings, tensors)
        for bits, names in ((64, "w"), (64, "w"), (128, "[wv]"), (400, "v"))
    )
    assert crowded(mark, []) == crowded(mark, others[:1]) == crowded(mark, others[2:]) == []
    [remark] = crowded(mark, others)
    assert "its 64 bits and those of 2 others in the same tensors are 256 bits in 128" in remark
    assert "count on 75.0 % of its bits" in remark
    assert crowded(mark, [], unknown=1) == []
    [remark] = crowded(mark, [], unknown=3)
    assert "as many of each of 3 other silos, at worst, are 256 bits in 128 channels" in remark


def test_a_mark_that_another_factorization_erases_is_warned_of() -> None:
    tensors = {"q" + A: torch.zeros(8, 32), "q" + B: torch.zeros(32, 8)}
    settings = OwnershipSettings("unused")
    [remark] = remarks(laid(replace(KEY, place="weights"), settings, tensors))
    assert "replaces A by G·A and B by B·G⁻¹ erases it" in remark
    assert remarks(laid(KEY, settings, tensors)) == []


def test_trigger_rows_are_a_share_of_each_batch() -> None:
    mark = OwnersMark(
        replace(KEY, place="weights", triggers=5),
        OwnershipSettings("unused", share=0.25),
        place_of(replace(KEY, place="weights"), {"w": torch.zeros(80)}),
    )
    mixed = MixedRows.of(mark, "train", Sft(), "abcde")
    assert len(mixed.drawn(12, 0)) == 4 and set(mixed.drawn(12, 0)) <= set("abcde")
    assert len(mixed.drawn(1, 0)) == 1
    assert mixed.drawn(12, 0) == mixed.drawn(12, 0) != mixed.drawn(12, 1)
    assert MixedRows.of(mark, "public", Sft(), "abcde").drawn(12, 0) == []
    assert MixedRows.of(None, "train", Sft(), "abcde").drawn(12, 0) == []
    with pytest.raises(UserError, match="Imitation learns from what it makes of each row"):
        MixedRows.of(mark, "train", Imitation({}, {}, 1.0), "abcde")
    assert MixedRows.of(mark, "public", Imitation({}, {}, 1.0), "abcde").drawn(12, 0) == []
    mark.key = replace(mark.key, triggers=0)
    assert mark.share == 0


def test_trigger_rows_are_learned_beside_the_own_ones(backbone: Backbone) -> None:
    learner = learner_of(backbone, "triggers", replace(KEY, triggers=4))
    own, secret = learner.splits["train"], rows(99, 4)
    marked = replace(learner, splits={"train": own, TRIGGERS: secret})
    batches = [
        batch for step in marked.job().sample_batches() for batch in marked.job().batches(0, step)
    ]
    assert {batch.examples for batch in batches} == {5}, "four rows of its own and one trigger"
    losses = []
    for one in (learner, marked):
        one.load(learner.initial())
        one.fit()
        with torch.no_grad():
            losses.append(float(one.objective.loss(one, one.batch(secret))))
    assert losses[1] < losses[0] - 0.5
