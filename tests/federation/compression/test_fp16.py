"""fp16: rounding, numbers that are too large for it, and what it leaves alone."""

import pytest
import torch

from hanse.errors import UserError
from hanse.federation.compression.fp16 import FP16
from hanse.federation.messages import Update
from hanse.randomness import RoundContext

CONTEXT = RoundContext(0, 1, "a")


def encoded(tensor: torch.Tensor) -> Update:
    return FP16().encode(Update({"w": tensor}, {"loss": 0.1}, 3.0), {}, {}, CONTEXT)


def test_numbers_are_rounded_to_eleven_bits() -> None:
    step = 2.0**-10  # between 1 and 2 a float16 has ten bits after the point
    tensor = torch.tensor([1 + step / 4, 1 + step / 2, 1 + 3 * step / 2, -65504.0, 2.0**-24, 1e-9])
    message = encoded(tensor)
    decoded = FP16().decode(message, {}, CONTEXT)
    assert message.tensors["w"].dtype == torch.float16
    assert decoded.tensors["w"].dtype == torch.float32
    assert decoded.tensors["w"].tolist() == [1.0, 1.0, 1 + 2 * step, -65504.0, 2.0**-24, 0.0]
    assert (decoded.numbers, decoded.weight) == ({"loss": 0.1}, 3.0)


def test_a_number_that_is_too_large_is_refused_at_the_sender() -> None:
    with pytest.raises(UserError, match="up to 65,504, and w has larger ones; choose bf16 or int8"):
        encoded(torch.tensor([0.0, -7e4]))
    assert encoded(torch.tensor([torch.inf])).tensors["w"].isinf()


def test_integers_travel_as_they_are() -> None:
    assert torch.equal(encoded(torch.tensor([2**31 + 1])).tensors["w"], torch.tensor([2**31 + 1]))
