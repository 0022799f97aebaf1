"""What a silo declares of itself is checked before any algorithm goes by it."""

import pytest

from hanse.deployment.envelopes import BadEnvelopeError, Envelope, Envelopes, SiloReply
from hanse.federation.messages import ClientProfile

ENVELOPE = Envelope("run1", "rounds: 1")
DUE = {"a": {"rank": 8.0, "scaling": 2.0}}


def answer(examples: int = 12, rank: float = 8.0, scaling: float = 2.0) -> bytes:
    profile = ClientProfile("a", examples, {"rank": rank, "scaling": scaling})
    return SiloReply("a", "first", profile).pack()


@pytest.mark.parametrize(
    ("declared", "said"),
    [
        ({"scaling": 0.0}, "rank 8 and scaling 0"),  # FlexLoRA divides by it
        ({"scaling": 1e9}, "scaling 1e\\+09"),
        ({"rank": 1e9}, "rank 1e\\+09"),  # factors of that rank would fill memory
        ({"rank": 7.5}, "whole number"),
        ({"examples": 0}, "declares 0 examples"),
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
