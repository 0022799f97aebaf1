"""bf16: the values that it rounds, the tensors that it leaves alone, and the layout it declares."""

import pytest
import torch

from hanse.federation.codecs.half_precision import HalfPrecision
from hanse.federation.compression.bf16 import BF16
from hanse.federation.compression.fp16 import FP16
from hanse.federation.messages import Update
from hanse.randomness import RoundContext
from hanse.tensors.named import Bounded, blob, fits, layout
from hanse.tensors.serialization import MessageError
from hanse.tensors.table import Table

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
    forms = BF16().layout({"logits": top, "blob": blob(5)}, {})
    assert isinstance(forms["logits"], Bounded) and isinstance(forms["blob"], Bounded)
    assert forms["logits"].largest.dtype == torch.bfloat16
    assert forms["logits"].largest.shape == (9, 3)
    assert forms["blob"].largest.dtype == torch.uint8


@pytest.mark.parametrize("codec", [BF16(), FP16()])
def test_tensors_come_back_in_the_dtype_that_they_had(codec: HalfPrecision) -> None:
    """Those of the format travel as they are; float64 is rounded as float32 is."""
    dtypes = (torch.float64, torch.float32, torch.float16, torch.bfloat16)
    tensors = {str(dtype): torch.tensor([1.0, 1 + 2.0**-7, 3.0]).to(dtype) for dtype in dtypes}
    encoded = codec.encode(Update(tensors), {}, {}, CONTEXT).tensors
    forms = codec.layout(layout(tensors), {})
    assert encoded.keys() == forms.keys()
    assert all(fits(encoded[name], form) for name, form in forms.items())
    assert {encoded[str(dtype)].element_size() for dtype in dtypes} == {2}
    decoded = codec.decode(Update(encoded), {}, CONTEXT).tensors
    assert decoded.keys() == tensors.keys()
    for name, tensor in tensors.items():
        assert decoded[name].dtype == tensor.dtype and torch.equal(decoded[name], tensor)


def test_float32_alone_needs_no_table() -> None:
    encoded, _ = passed(w=torch.ones(3), count=torch.tensor([1]))
    assert encoded.tensors.keys() == {"w", "count"}


def test_a_table_of_tensors_that_did_not_come_is_refused() -> None:
    table = Table.of({"x": torch.ones(2)}).to_tensor()
    message = Update({"w": torch.ones(2).bfloat16(), "bf16.table": table})
    with pytest.raises(MessageError, match=r"'x' is in bf16\.table, and did not come"):
        BF16().decode(message, {}, CONTEXT)
    with pytest.raises(MessageError, match="a table of tensors is one tensor of bytes"):
        BF16().decode(Update({"bf16.table": torch.ones(2)}), {}, CONTEXT)
