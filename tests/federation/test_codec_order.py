"""Lists of codecs that make no sense are refused before any client is asked."""

from dataclasses import dataclass, replace
from typing import ClassVar

import pytest
import torch

from hanse.errors import UserError
from hanse.federation.aggregators.mean import Mean
from hanse.federation.algorithms.fedavg import FedAvg
from hanse.federation.compatibility import check
from hanse.federation.compression.identity import Identity
from hanse.federation.interfaces.declarations import Stage
from hanse.federation.interfaces.transform import Transform
from hanse.federation.pipeline import Pipeline, Pipelines
from hanse.tensors.named import Layout, Tensors, blob


@dataclass(frozen=True)
class Fewer(Identity):
    stage: ClassVar[Stage | None] = "reduce"


@dataclass(frozen=True)
class Fewest(Identity):
    stage: ClassVar[Stage | None] = "reduce"


@dataclass(frozen=True)
class Rounded(Identity):
    stage: ClassVar[Stage | None] = "quantize"


@dataclass(frozen=True)
class Packed(Identity):
    stage: ClassVar[Stage | None] = "pack"

    def layout(self, expected: Layout, state: Tensors) -> Layout:
        return {"data": blob(100)}


@dataclass(frozen=True)
class Blob(Packed):
    """It packs, and does not say so."""

    stage: ClassVar[Stage | None] = None


@dataclass(frozen=True)
class Scaled(Identity):
    """It loses 99 times the update."""

    @property
    def contractive(self) -> bool:
        return False


def refuse_unfit(*codecs: Transform, error_feedback: bool = False) -> None:
    upload = Pipeline("upload", codecs, error_feedback=error_feedback)
    check(FedAvg(), Mean(), Pipelines(upload))
    upload.init({"w": torch.empty(3, device="meta")})


@pytest.mark.parametrize(
    "codecs",
    [
        [Fewer(), Rounded(), Packed()],
        [Fewer(), Identity(), Packed()],
        [Rounded()],
        [Identity(), Identity()],
        [Blob(), Packed()],
    ],
)
def test_sensible_lists_are_taken(codecs: list[Transform]) -> None:
    refuse_unfit(*codecs, error_feedback=True)


@pytest.mark.parametrize(
    ("codecs", "sentence"),
    [
        (
            [Packed(), Rounded()],
            "Rounded comes after Packed, which leaves it no numbers to encode; name Rounded before "
            "Packed in compression.upload.",
        ),
        ([Rounded(), Identity(), Fewer()], "Fewer comes after Rounded, which leaves it no numbers"),
        (
            [Rounded(), Rounded()],
            "Rounded and Rounded both round numbers to fewer bits; leave one of them out of "
            "compression.upload.",
        ),
        ([Fewer(), Fewest()], "Fewer and Fewest both reduce how many numbers are sent"),
        ([Packed(), Packed()], "Packed and Packed both pack all tensors into bytes"),
        ([Blob(), Rounded()], "Rounded finds no floating-point numbers, which the codecs before"),
    ],
)
def test_lists_in_which_a_codec_finds_nothing_are_refused(
    codecs: list[Transform], sentence: str
) -> None:
    with pytest.raises(UserError) as caught:
        refuse_unfit(*codecs)
    assert sentence in str(caught.value)


def test_codecs_of_one_client_are_checked_too() -> None:
    own = {"silo-2": Pipelines(Pipeline("upload", (Packed(), Rounded()), owner="silo-2"))}
    with pytest.raises(UserError, match=r"clients\.silo-2: Rounded comes after Packed"):
        check(FedAvg(), Mean(), own=own)
    download = Pipelines(download=replace(Pipeline("download"), codecs=(Packed(), Rounded())))
    with pytest.raises(UserError, match=r"in compression\.download"):
        check(FedAvg(), Mean(), download)


def test_error_feedback_around_a_codec_that_amplifies_is_refused() -> None:
    refuse_unfit(Scaled())
    with pytest.raises(UserError, match="Scaled with these settings loses more than the update"):
        refuse_unfit(Scaled(), error_feedback=True)
