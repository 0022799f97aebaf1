"""The updates of a round that wait on disk."""

import torch

from collected_rounds import CollectedRound, honest, round_of
from hanse.federation.messages import Update
from hanse.federation.robust.received import Received
from hanse.tensors.lazy import Lazy


def test_tensors_wait_on_disk_and_are_read_anew() -> None:
    made = round_of(honest(3, size=100_000))
    received = Received.of(made)  # type: ignore[arg-type]
    assert received.names == ["c0", "c1", "c2"] and len(received) == 3
    for update, answer in zip(received.updates, made.answers.values(), strict=True):
        assert isinstance(update.tensors, Lazy)
        assert [*update.tensors] == [*answer.tensors]
        assert update.tensors["first"] is not update.tensors["first"]
        assert torch.equal(update.tensors["first"], answer.tensors["first"])


def test_one_tensor_of_each_client_is_read_at_a_time() -> None:
    made = round_of(honest(3, size=1000))
    received = Received.of(made)  # type: ignore[arg-type]
    read: list[str] = []
    watched = Received(
        *(received.round, received.algorithm, received.profiles),
        tuple(
            Update(
                Lazy(
                    update.tensors, lambda name, own=update: read.append(name) or own.tensors[name]
                )
            )
            for update in received.updates
        ),
    )
    watched.coordinates(lambda values: values[0], range(3))
    assert read == ["first"] * 3 + ["second"] * 3


def test_a_coordinate_keeps_shape_and_dtype() -> None:
    updates = {f"c{n}": Update({"w": torch.full((2, 3), n, dtype=torch.float16)}) for n in (1, 2)}
    received = Received.of(CollectedRound(updates))  # type: ignore[arg-type]
    mean = received.coordinates(lambda values: values.mean(dim=0), range(2))["w"]
    assert mean.dtype == torch.float16 and mean.shape == (2, 3)
    assert mean.unique().tolist() == [1.5]
