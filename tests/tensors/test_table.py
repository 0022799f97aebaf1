"""The table of tensors that travel as one sequence of numbers."""

import json

import pytest
import torch

from hanse.federation.interfaces.results import Memory
from hanse.federation.interfaces.transform import Transform
from hanse.federation.messages import Update
from hanse.federation.pipeline import MOST_DECODED, Pipeline
from hanse.randomness import RoundContext
from hanse.tensors.named import Bounded, Layout, Tensors, fits, from_bytes, layout
from hanse.tensors.serialization import MessageError
from hanse.tensors.table import Table, floats

TENSORS = {
    "layer.lora_A": torch.arange(6.0).reshape(2, 3),
    "größe": torch.tensor(7.0, dtype=torch.float64),
    "half": torch.tensor([[8.0], [9.0]], dtype=torch.bfloat16),
    "empty": torch.empty(0, 4),
}


def test_tensors_come_back_from_one_sequence() -> None:
    table = Table.of(TENSORS)
    flat = table.flatten(TENSORS)
    assert flat.tolist() == [0, 1, 2, 3, 4, 5, 7, 8, 9]
    back = Table.read(table.to_tensor()).split(flat)
    assert list(back) == list(TENSORS)
    for name, tensor in TENSORS.items():
        assert back[name].dtype == tensor.dtype and torch.equal(back[name], tensor)
    assert (table.numbers, table.bytes) == (9, 6 * 4 + 8 + 2 * 2)


def test_its_layout_is_exact_and_a_bound_for_tensors_of_varying_length() -> None:
    exact = Table.form(layout(TENSORS))
    assert not isinstance(exact, Bounded) and fits(Table.of(TENSORS).to_tensor(), exact)
    bounded: Layout = {"rows": Bounded(torch.empty(1000, 3, device="meta"))}
    assert fits(Table.of({"rows": torch.empty(7, 3)}).to_tensor(), Table.form(bounded))


def test_floats_leaves_integers_out() -> None:
    whole = {"count": torch.tensor([1, 2]), "value": torch.tensor([1.0])}
    assert list(floats(whole)) == ["value"]


@pytest.mark.parametrize(
    "rows",
    [
        {"a": 1},
        ["a"],
        [["a", "F32"]],
        [["a", "I64", [1]]],
        [["a", ["F32"], [1]]],
        [["a", "F32", [-1]]],
        [["a", "F32", [True]]],
        [["a", "F32", [1.5]]],
        [["a", "F32", [2**50]]],
        [["a", "F32", [1] * 20]],
        [[3, "F32", [1]]],
        [["a" * 2000, "F32", [1]]],
        [["a", "F32", [1]], ["a", "F32", [1]]],
    ],
)
def test_what_is_no_table_is_refused(rows: object) -> None:
    with pytest.raises(MessageError):
        Table.read(from_bytes(json.dumps(rows).encode()))


@pytest.mark.parametrize("data", [b"", b"[", b"\xff", b"[" * 100_000])
def test_bytes_that_are_no_json_are_refused(data: bytes) -> None:
    with pytest.raises(MessageError):
        Table.read(from_bytes(data))


def test_another_number_of_numbers_is_refused() -> None:
    with pytest.raises(MessageError, match="9 numbers"):
        Table.of(TENSORS).split(torch.zeros(8))


class Claims(Transform):
    """Zeros of as many rows as the message says."""

    def decoded_bytes(self, update: Update, state: Tensors) -> int:
        return 4 * int(update.tensors["rows"])

    def encode(
        self, update: Update, memory: Memory, state: Tensors, context: RoundContext
    ) -> Update:
        return Update({"rows": torch.tensor(len(update.tensors["x"]))})

    def layout(self, expected: Layout, state: Tensors) -> Layout:
        return {"rows": torch.empty((), dtype=torch.int64, device="meta")}

    def decode(self, update: Update, state: Tensors, context: RoundContext) -> Update:
        return Update({"x": torch.zeros(int(update.tensors["rows"]))})


def test_a_message_that_claims_more_than_is_expected_is_refused_before_it_is_decoded() -> None:
    context, expected = RoundContext(0, 1, "a"), layout({"x": torch.zeros(5)})
    pipeline = Pipeline("upload", (Claims(),))
    five = pipeline.encode(Update({"x": torch.zeros(5)}), {}, {}, context)
    assert pipeline.decode(five, {}, context, expected).tensors["x"].shape == (5,)
    with pytest.raises(MessageError, match="24 bytes, and at most 20 are expected"):
        pipeline.decode(Update({"rows": torch.tensor(6)}), {}, context, expected)
    with pytest.raises(MessageError, match=f"at most {MOST_DECODED:,}"):
        pipeline.decode(Update({"rows": torch.tensor(2**61)}), {}, context)
