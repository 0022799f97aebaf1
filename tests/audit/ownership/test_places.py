"""What a key measures of tensors, against the plain computation, and what leaves it as it is."""

from dataclasses import replace

import pytest
import torch
from torch import Tensor

from hanse.audit.ownership import places
from hanse.audit.ownership.key import OwnershipKey
from hanse.audit.ownership.places import normals, place_of
from hanse.errors import UserError
from hanse.tensors.low_rank import A, B

KEY = OwnershipKey("silo-a", "ab" * 32)
WEIGHTS = replace(KEY, place="weights")


def tensors(rank: int = 3) -> dict[str, Tensor]:
    """Two LoRA layers of unequal sides, and the scales of a norm."""
    draws = torch.Generator().manual_seed(rank)
    result = {"norm.weight": 1 + 0.1 * torch.randn(40, generator=draws)}
    for layer, (out, into) in {"q": (12, 20), "v": (8, 20)}.items():
        result[layer + A] = torch.randn(rank, into, generator=draws)
        result[layer + B] = torch.randn(out, rank, generator=draws)
    return result


def test_products_are_measured_without_forming_them() -> None:
    own = tensors()
    measured, size = place_of(KEY, own).measured(own)
    total, numbers, squares = torch.zeros(64), 0, 0.0
    for layer in ("q", "v"):
        product = own[layer + B] @ own[layer + A]
        out = normals(KEY, f"{layer}/out", 64, product.shape[0])
        into = normals(KEY, f"{layer}/in", 64, product.shape[1])
        total += torch.einsum("no,oi,ni->n", out, product, into)
        numbers, squares = numbers + product.numel(), squares + float(product.square().sum())
    torch.testing.assert_close(measured, total / numbers**0.5)
    torch.testing.assert_close(size, torch.tensor((squares / numbers) ** 0.5))


def test_weights_are_measured_without_their_mean() -> None:
    own = tensors()
    key = replace(WEIGHTS, tensors="norm*", bits=32)
    measured, size = place_of(key, own).measured(own)
    flat = own["norm.weight"]
    expected = (flat - flat.mean()) @ normals(key, "norm.weight", 40, 32) / 40**0.5
    torch.testing.assert_close(measured, expected)
    torch.testing.assert_close(size, flat.square().mean().sqrt())


def test_another_factorization_leaves_the_products_alone_and_not_the_factors() -> None:
    own = tensors()
    mixing = torch.randn(3, 3, generator=torch.Generator().manual_seed(9))
    other = dict(own)
    for layer in ("q", "v"):
        other[layer + A] = mixing @ own[layer + A]
        other[layer + B] = own[layer + B] @ mixing.inverse()
    before, after = (place_of(KEY, own).measured(t)[0] for t in (own, other))
    torch.testing.assert_close(before, after, rtol=1e-3, atol=1e-3)
    factors = replace(WEIGHTS, tensors="*.lora_A.weight")
    before, after = (place_of(factors, own).measured(t)[0] for t in (own, other))
    assert (before.sign() != after.sign()).any()


def test_products_of_another_rank_are_measured_alike() -> None:
    own = tensors()
    wider = dict(own)
    for layer in ("q", "v"):
        wider[layer + A] = torch.cat([own[layer + A], torch.zeros(2, 20)])
        wider[layer + B] = torch.cat([own[layer + B], torch.ones(len(own[layer + B]), 2)], dim=1)
    torch.testing.assert_close(
        place_of(KEY, own).measured(own)[0], place_of(KEY, wider).measured(wider)[0]
    )


def test_channels_are_what_can_move_independently() -> None:
    own = tensors()
    assert place_of(KEY, own).channels == 3 * (12 + 20 - 3) + 3 * (8 + 20 - 3)
    assert place_of(replace(KEY, tensors="q"), own).channels == 87
    assert place_of(replace(WEIGHTS, tensors="norm*", bits=32), own).channels == 40
    wide = {"q" + A: torch.ones(50, 9), "q" + B: torch.ones(8, 50)}
    assert place_of(KEY, wide).channels == 72, "no rank is above that of the sides"


def test_one_seed_has_other_directions_under_another_pattern() -> None:
    own = tensors()
    keys = [replace(KEY, tensors=pattern) for pattern in ("*", "?", "[qv]")]
    first, *others = [place_of(key, own).measured(own)[0] for key in keys]
    assert not any(torch.equal(first, other) for other in others)


def test_a_coordinate_along_secret_directions_looks_like_a_normal_draw() -> None:
    """The margin is a multiple of what a random direction measures."""
    own = tensors()
    for key in (KEY, replace(WEIGHTS, tensors="*lora*")):
        scores = [
            measured / size
            for seed in range(20)
            for measured, size in [place_of(replace(key, seed=f"{seed:064x}"), own).measured(own)]
        ]
        assert torch.cat(scores).std() == pytest.approx(1.0, abs=0.1)


def test_directions_stay_the_same() -> None:
    """Marks laid by one version must be found by the next."""
    expected = torch.tensor([[-0.5968, 1.1452], [-1.4385, 0.9889]])
    torch.testing.assert_close(normals(KEY, "q/out", 2, 2), expected, atol=1e-4, rtol=0)


@pytest.mark.parametrize(
    ("key", "sentence"),
    [
        (replace(KEY, tensors="k"), "no LoRA pair A and B of that name is trained here"),
        (replace(WEIGHTS, tensors="norm.bias"), "no tensor of that name is trained here"),
        (replace(WEIGHTS, tensors="norm*"), "64 bits, and weights of 'norm.*have 40 channels"),
    ],
)
def test_a_mark_without_a_place(key: OwnershipKey, sentence: str) -> None:
    with pytest.raises(UserError, match=sentence):
        place_of(key, tensors())


def test_products_need_both_factors() -> None:
    only = {name: tensor for name, tensor in tensors().items() if not name.endswith(A)}
    with pytest.raises(UserError, match="no LoRA pair"):
        place_of(KEY, only)


def test_a_key_that_would_fill_the_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(places, "MOST_NUMBERS", 3000)
    place_of(replace(WEIGHTS, tensors="norm*", bits=32), tensors())
    with pytest.raises(UserError, match="64 directions in 180 numbers, more than 3,000 together"):
        place_of(replace(WEIGHTS, tensors="*lora*"), tensors())
