"""bf16: the values that it rounds, the tensors that it leaves alone, and the layout it declares."""

import torch

from hanse.federation.compression.bf16 import BF16
from hanse.federation.messages import Update
from hanse.randomness import RoundContext
from hanse.tensors.named import Bounded, blob

CONTEXT = RoundContext(0, 1, "a")
STEP = 2.0**-7  # between 1 and 2 a bfloat16 has seven bits after the point


def passed(**tensors: torch.Tensor) -> tuple[Update, Update]:
    """An update with these tensors, encoded, and decoded again."""
    encoded = BF16().encode(Update(tensors, {"loss": 0.1}, 3.0), {}, {}, CONTEXT)
    return encoded, BF16().decode(encoded, {}, CONTEXT)


def test_values_go_to_the_nearest_and_from_the_middle_to_the_even_one() -> None:
    values = torch.tensor([1 + STEP / 4, 1 + STEP / 2, 1 + 3 * STEP / 2, -1 - 0.75 * STEP, 0.0])
    encoded, decoded = passed(w=values)
    assert encoded.tensors["w"].dtype == torch.bfloat16
    assert decoded.tensors["w"].dtype == torch.float32
    assert decoded.tensors["w"].tolist() == [1.0, 1.0, 1 + 2 * STEP, -1 - STEP, 0.0]
    assert (decoded.numbers, decoded.weight) == ({"loss": 0.1}, 3.0)


def test_integers_and_short_floats_travel_as_they_are() -> None:
    short = {
        "counts": torch.tensor([2**31 + 1]),
        "bytes": torch.tensor([255], dtype=torch.uint8),
        "half": torch.tensor([1 + 2.0**-10], dtype=torch.float16),
    }
    encoded, decoded = passed(**short)
    for name, tensor in short.items():
        for update in (encoded, decoded):
            assert update.tensors[name].dtype == tensor.dtype
            assert torch.equal(update.tensors[name], tensor)


def test_what_was_rounded_once_stays() -> None:
    _, once = passed(w=torch.randn(5, 7))
    _, twice = passed(w=once.tensors["w"])
    assert torch.equal(once.tensors["w"], twice.tensors["w"])


def test_the_layout_of_varying_lengths() -> None:
    top = Bounded(torch.empty(9, 3, device="meta"))
    layout = BF16().layout({"logits": top, "blob": blob(5)}, {})
    assert isinstance(layout["logits"], Bounded) and isinstance(layout["blob"], Bounded)
    assert layout["logits"].largest.dtype == torch.bfloat16
    assert layout["logits"].largest.shape == (9, 3)
    assert layout["blob"].largest.dtype == torch.uint8
