"""Detection in tensors: strangers' keys, what a mark survives, and more bits than a place holds."""

from dataclasses import replace
from statistics import mean

import pytest
import torch
from torch import Tensor

from clients import client, rows
from hanse.audit.ownership.chance import LARGEST_P, detection_bound, least_right
from hanse.audit.ownership.key import OwnershipKey
from hanse.audit.ownership.mark import laid
from hanse.audit.ownership.places import place_of
from hanse.audit.ownership.settings import OwnershipSettings
from hanse.audit.ownership.verification import Detection, detected
from hanse.learners.adapted_model import AdaptedModel
from hanse.learners.adapters.lora import Lora
from hanse.learners.load import load
from hanse.learners.models.settings import BaseModelSettings
from hanse.randomness import RoundContext

KEY = OwnershipKey("silo-a", "ab" * 32)
MODULES = ["q_proj", "v_proj", "o_proj", "up_proj"]


@pytest.fixture(scope="module")
def marked(tiny_llama: object) -> AdaptedModel:
    """A client that has laid a mark of 64 bits."""
    backbone = load(BaseModelSettings(str(tiny_llama), bf16=False, device="cpu"))
    lora = Lora(r=8, target_modules=MODULES)  # type: ignore[arg-type]
    learner = client(backbone, "marked", rows(0, 12), lora, max_steps=60)
    own = replace(learner, mark=laid(KEY, OwnershipSettings("unused"), learner.parameters()))
    own.fit()
    return own


def pruned(tensor: Tensor, share: float) -> Tensor:
    least = tensor.abs().flatten().kthvalue(int(share * tensor.numel())).values
    return tensor.where(tensor.abs() > least, torch.zeros_like(tensor))


def noised(tensor: Tensor) -> Tensor:
    noise = torch.randn(tensor.shape, generator=torch.Generator().manual_seed(tensor.numel()))
    return tensor + 0.2 * tensor.square().mean().sqrt() * noise


CHANGES = {
    "as it is": lambda tensor: tensor,
    "pruned by 5 %": lambda tensor: pruned(tensor, 0.05),
    "pruned by 20 %": lambda tensor: pruned(tensor, 0.2),
    "int8": lambda tensor: (127 * tensor / tensor.abs().max()).round(),
    "bfloat16": lambda tensor: tensor.bfloat16(),
    "noise of a fifth of the weights": noised,
}


@pytest.mark.parametrize("change", CHANGES)
def test_a_mark_survives_small_changes(marked: AdaptedModel, change: str) -> None:
    tensors = {name: CHANGES[change](tensor) for name, tensor in marked.tensors().items()}
    found = detected(KEY, tensors)
    assert found.rate == 1.0 and found.proves


def test_a_mark_survives_further_training(marked: AdaptedModel) -> None:
    start = marked.tensors()
    training = replace(marked.training, max_steps=100, learning_rate=0.003)
    further = replace(marked, mark=None, training=training)
    further.splits = {"train": rows(5, 12)}
    further.fit()
    found = detected(KEY, further.tensors())
    marked.load(start)
    assert found.proves


def test_keys_of_strangers_are_right_by_chance(marked: AdaptedModel) -> None:
    tensors = marked.tensors()
    strangers = [detected(replace(KEY, seed=f"{n:064x}"), tensors) for n in range(100)]
    assert mean(found.rate for found in strangers) == pytest.approx(0.5, abs=0.025)
    assert not any(found.proves for found in strangers)


def test_none_of_100_000_random_keys_verifies(marked: AdaptedModel) -> None:
    """The rule of three then bounds their share by 3e-5; bits are drawn apart from directions."""
    measured, _ = place_of(KEY, marked.tensors()).measured(marked.tensors())
    model = sum(1 << bit for bit, sign in enumerate(measured.tolist()) if sign > 0)
    least = least_right(64)
    assert least == 56
    verified, right = 0, 0
    for n in range(100_000):
        bits = int.from_bytes(stranger(n).derive("bits", 8), "little")
        equal = 64 - (bits ^ model).bit_count()
        verified, right = verified + (equal >= least), right + equal
    assert verified == 0
    assert right / 6_400_000 == pytest.approx(0.5, abs=0.001)
    own = int.from_bytes(KEY.derive("bits", 8), "little")
    assert own == model, "these are the bits that a key has, in the same order"


def stranger(number: int) -> OwnershipKey:
    return OwnershipKey("stranger", f"{number:064x}")


@pytest.mark.parametrize("bits", [64, 128, 200])
def test_more_bits_than_a_place_holds_reach_the_theorems_bound(bits: int) -> None:
    """Four owners in one tensor of 200 numbers, all of whose marks are pulled at once."""
    keys = [OwnershipKey("o", f"{n:064x}", bits=bits, place="weights") for n in range(4)]
    tensor = torch.randn(200, generator=torch.Generator().manual_seed(0)).requires_grad_()
    marks = [laid(key, OwnershipSettings("unused", margin=0.3), {"w": tensor}) for key in keys]
    optimizer = torch.optim.Adam([tensor], 0.02)
    for _ in range(200):
        tensor.grad = torch.ones_like(tensor)
        pulls = [mark.pull({"w": tensor}, RoundContext(0, 1))({"w": tensor}) for mark in marks]
        tensor.grad = None
        torch.stack(pulls).sum().backward()
        optimizer.step()
    rates = [detected(key, {"w": tensor.detach()}).rate for key in keys]
    assert mean(rates) >= detection_bound(4 * bits, 200)
    assert mean(rates) < 0.99, "these places are too small"


def test_what_a_detection_says() -> None:
    found = Detection(38, 40)
    assert found.proves and found.needed == 38 and found.rate == 0.95
    assert not Detection(37, 40).proves and Detection(37, 40).p_value > LARGEST_P
    assert Detection(1, 20, 2**36).proves
    assert Detection(16, 16).needed is None and not Detection(16, 16).proves
