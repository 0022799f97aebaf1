"""Lists of codecs that make no sense are refused before any client is asked."""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import ClassVar

import pytest
import torch

from hanse.errors import UserError
from hanse.federation.aggregators.mean import Mean
from hanse.federation.algorithms.diloco import DiLoCo
from hanse.federation.algorithms.fedavg import FedAvg
from hanse.federation.algorithms.fedkseed import FedKSeed
from hanse.federation.algorithms.flexlora import FlexLoRA
from hanse.federation.compatibility.parts import check
from hanse.federation.compression.bf16 import BF16
from hanse.federation.compression.identity import Identity
from hanse.federation.compression.int4 import Int4
from hanse.federation.compression.int8 import Int8
from hanse.federation.compression.rand_k import RandK
from hanse.federation.compression.svd import SVD
from hanse.federation.compression.zstd import Zstd
from hanse.federation.interfaces.algorithm import Algorithm
from hanse.federation.interfaces.declarations import Stage
from hanse.federation.interfaces.halves import Client
from hanse.federation.interfaces.transform import Transform
from hanse.federation.messages import Instruction, Update
from hanse.federation.pipeline import Pipeline, Pipelines
from hanse.tensors.named import Layout, Tensors, blob
from toys import federate, silos


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


class Logits(FedAvg):
    payload: ClassVar[str] = "logits"


@pytest.mark.parametrize(
    ("algorithm", "sentence"),
    [
        (FedKSeed(), "FedKSeed sends scalars, whose meaning changes from round to round"),
        (FlexLoRA(), "FlexLoRA sends factors, whose meaning changes"),
        (Logits(), "Logits sends logits, whose meaning changes"),
    ],
)
def test_error_feedback_adds_changes_only(algorithm: Algorithm, sentence: str) -> None:
    def refuse(feedback: bool) -> None:
        check(algorithm, Mean(), Pipelines(Pipeline("upload", (BF16(),), (), feedback)))

    refuse(False)
    with pytest.raises(UserError) as caught:
        refuse(True)
    assert sentence in str(caught.value)
    assert str(caught.value).endswith("set compression.error_feedback: false.")


def test_error_feedback_of_scalars_on_the_download_is_refused() -> None:
    download = Pipelines(download=Pipeline("download", (BF16(),), (), True))
    check(FedAvg(), Mean(), download)
    check(FlexLoRA(), Mean(), download)
    with pytest.raises(UserError, match="FedKSeed instructs clients by scalars, whose meaning"):
        check(FedKSeed(), Mean(), download)


def test_error_feedback_around_products_rounded_at_random_is_refused() -> None:
    refuse_unfit(SVD(), Int4(), error_feedback=True)
    refuse_unfit(Int8(rounding="stochastic"), error_feedback=True)
    refuse_unfit(SVD(), Int8(rounding="stochastic"))
    with pytest.raises(UserError, match="SVD sends matrices as products, and Int8 with stochastic"):
        refuse_unfit(SVD(), Int8(rounding="stochastic"), error_feedback=True)


def test_a_download_of_more_than_a_client_decodes_is_refused() -> None:
    """A client refuses more than 4 GiB, since it does not know the layout."""
    most = {"w": torch.empty(2**30, device="meta")}
    more = {"w": torch.empty(2**30 + 1, device="meta")}
    Pipeline("download", (Zstd(),)).init(most)
    for unlimited in (Pipeline("upload", (Zstd(),)), Pipeline("download", (BF16(),))):
        unlimited.init(more)
    with pytest.raises(UserError, match=r"Zstd would decode an instruction to 4,294,967,300 bytes"):
        Pipeline("download", (Zstd(),)).init(more)


class NoTraining(DiLoCo):
    def train(self, instruction: Instruction, client: Client) -> Update:
        raise AssertionError("no client may be asked to train")


def test_a_codec_of_all_tensors_refuses_fragments_before_a_client_trains(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"and one lacks \w+, since .* the algorithm sends others"):
        federate(NoTraining(fragments=2), silos(2), tmp_path / "run", upload=[RandK()])
