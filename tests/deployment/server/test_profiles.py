"""What a silo declares of itself is checked before any algorithm goes by it."""

import pytest
import torch

from hanse.deployment.envelopes import BadEnvelopeError, Envelope, Envelopes, SiloReply
from hanse.federation.messages import ClientProfile
from hanse.tensors.named import layout, shapes

ENVELOPE = Envelope("run1", "rounds: 1")
DUE = {"a": {"rank": 8.0, "scaling": 2.0}}


def answer(examples: int = 12, rank: float = 8.0, scaling: float = 2.0, rounding: int = 1) -> bytes:
    profile = ClientProfile("a", examples, {"rank": rank, "scaling": scaling}, rounding=rounding)
    return SiloReply("a", "first", profile).pack()


@pytest.mark.parametrize(
    ("declared", "said"),
    [
        ({"scaling": 0.0}, "rank 8 and scaling 0"),  # FlexLoRA divides by it
        ({"scaling": 1e9}, "scaling 1e\\+09"),
        ({"rank": 1e9}, "rank 1e\\+09"),  # factors of that rank would fill memory
        ({"rank": 7.5}, "whole number"),
        ({"examples": 0}, "declares 0 examples"),
        ({"rounding": 0}, "declares 12 examples, rounded to 0s"),
        ({"rounding": 5}, "declares 12 examples, rounded to 5s"),
        ({"examples": 10**13}, "declares 10,000,000,000,000 examples"),
    ],
)
def test_a_profile_that_would_end_a_run_is_refused(declared: dict[str, float], said: str) -> None:
    with pytest.raises(BadEnvelopeError, match=said):
        Envelopes(ENVELOPE).read(answer(**declared), "a", 0)  # type: ignore[arg-type]


def test_an_adapter_that_the_experiment_does_not_give_is_refused() -> None:
    envelopes = Envelopes(ENVELOPE, adapters=DUE)
    assert envelopes.read(answer(), "a", 0).profile
    with pytest.raises(
        BadEnvelopeError, match="of rank 16 and scaling 2; the experiment gives it rank 8"
    ):
        envelopes.read(answer(rank=16.0), "a", 0)


def declared(sizes: dict[str, list[int]] | None) -> bytes:
    """A silo's reply that declares this layout."""
    tensors = (
        None if sizes is None else {n: torch.empty(s, device="meta") for n, s in sizes.items()}
    )
    profile = ClientProfile("a", 12, DUE["a"], tensors and layout(tensors))
    return SiloReply("a", "first", profile).pack()


def test_a_layout_travels_as_plain_values_and_only_if_there_is_one() -> None:
    profile = SiloReply.parse(declared({"B": [4, 2], "A": [2, 8]})).profile
    assert profile is not None and profile.layout is not None
    assert shapes(profile.layout) == [
        ("A", [2, 8], "torch.float32"),
        ("B", [4, 2], "torch.float32"),
    ]
    assert b"layout" not in declared(None)


@pytest.mark.parametrize(
    ("sizes", "said"),
    [
        (None, "declares no layout of what it trains"),
        ({"A": [2, 8]}, "other tensors than the experiment gives it, such as B"),
        ({"A": [2, 8], "B": [4, 3]}, "such as B"),
        ({"A": [2, 8], "B": [4, 2], "C": [1]}, "such as C"),
    ],
)
def test_a_layout_that_the_experiment_does_not_give_is_refused(
    sizes: dict[str, list[int]] | None, said: str
) -> None:
    due = layout({"A": torch.empty(2, 8), "B": torch.empty(4, 2)})
    envelopes = Envelopes(ENVELOPE, adapters=DUE, layouts={"a": due})
    assert envelopes.read(declared({"A": [2, 8], "B": [4, 2]}), "a", 0).profile
    with pytest.raises(BadEnvelopeError, match=said):
        envelopes.read(declared(sizes), "a", 0)


def test_a_layout_that_the_server_cannot_know_is_bounded_only() -> None:
    envelopes = Envelopes(ENVELOPE, adapters=DUE, layouts={"a": None})
    assert envelopes.read(declared({"other": [7]}), "a", 0).profile
    with pytest.raises(BadEnvelopeError, match="a layout that cannot be: other has sizes that no"):
        envelopes.read(declared({"other": [2**39, 4]}), "a", 0)
