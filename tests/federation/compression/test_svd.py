"""svd: the rank that it keeps, the numbers that it sends, and the messages that it refuses."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from hanse.errors import UserError
from hanse.federation.algorithms.fedavg import FedAvg
from hanse.federation.compression.svd import NUMBERS, RANKS, RAW, SVD, TABLE
from hanse.federation.messages import Update, validate_update
from hanse.federation.pipeline import Pipeline
from hanse.journal.run_folder import read_ledger
from hanse.randomness import RoundContext
from hanse.tensors.named import Tensors, layout
from hanse.tensors.serialization import MessageError, pack
from hanse.tensors.table import Entry, Table
from toys import federate, held_out, silos

CONTEXT = RoundContext(0, 1, "a")


def spectrum(values: list[float], rows: int, columns: int, seed: int = 0) -> Tensor:
    """A matrix with these singular values and random singular vectors."""
    draw = np.random.default_rng(seed)
    left = np.linalg.qr(draw.standard_normal((rows, len(values))))[0]
    right = np.linalg.qr(draw.standard_normal((columns, len(values))))[0]
    return torch.tensor((left * values) @ right.T, dtype=torch.float32)


def passed(tensors: Tensors, energy: float = 0.9) -> tuple[Tensors, Tensors]:
    """The tensors encoded by one threshold, and decoded as a receiver decodes them."""
    pipeline = Pipeline("upload", (SVD(energy, energy),))
    update = pipeline.encode(Update(tensors), {}, {}, CONTEXT)
    validate_update(update, pipeline.layout(layout(tensors), {}))
    decoded = pipeline.decode(update, {}, CONTEXT, layout(tensors))
    validate_update(decoded, layout(tensors))
    return update.tensors, decoded.tensors


def rank(matrix: Tensor, energy: float) -> int:
    return int(passed({"w": matrix}, energy)[0][RANKS])


@pytest.mark.parametrize("energy", [0.0, 0.3, 0.6, 0.9, 0.99])
@pytest.mark.parametrize("seed", range(4))
def test_the_rank_is_the_least_that_exceeds_the_threshold(seed: int, energy: float) -> None:
    values = [2.0**-i for i in range(12)]
    matrix = spectrum(values, 40, 30 + seed, seed)
    shares = np.cumsum(np.square(values)) / np.sum(np.square(values))
    encoded, decoded = passed({"w": matrix}, energy)
    kept = int(encoded[RANKS])
    assert shares[kept - 1] > energy and (kept == 1 or shares[kept - 2] <= energy)
    assert len(encoded[NUMBERS]) == kept * (40 + 30 + seed)
    # The nearest matrix of this rank leaves exactly the other singular values (Eckart, Young).
    lost = float((matrix - decoded["w"]).double().square().sum())
    assert lost == pytest.approx(np.sum(np.square(values[kept:])), rel=1e-3, abs=1e-9)


def test_a_share_that_is_exactly_the_threshold_is_not_enough() -> None:
    matrix = torch.zeros(20, 20)
    matrix[0, 0], matrix[1, 1], matrix[2, 2] = 2.0, 2.0, 2.0  # a third of the energy each
    assert rank(matrix, 1 / 3 - 1e-6) == 1
    assert rank(matrix, 1 / 3) == rank(matrix, 0.5) == 2
    assert rank(matrix, 0.7) == 3


def test_the_rank_grows_with_the_threshold() -> None:
    matrix = spectrum([1 / (1 + i) for i in range(20)], 100, 100)
    ranks = [rank(matrix, energy) for energy in np.linspace(0, 0.99, 40)]
    assert ranks == sorted(ranks) and ranks[0] == 1 and ranks[-1] > 10


def test_a_flat_spectrum_travels_as_it_is() -> None:
    """The official code keeps no singular value here, and the update is lost."""
    flat = spectrum([1.0] * 20, 20, 20)
    encoded, decoded = passed({"w": flat}, 0.98)
    assert encoded[RANKS].tolist() == [RAW]
    assert torch.equal(decoded["w"], flat)


ODD = {
    "one row": torch.randn(1, 9),
    "one column": torch.randn(9, 1),
    "one number": torch.randn(1, 1),
    "no rows": torch.empty(0, 5),
    "no columns": torch.empty(2**40, 0),
    "a vector": torch.randn(7),
    "a scalar": torch.tensor(3.0),
    "three dimensions": torch.randn(3, 4, 5),
    "noise": torch.randn(16, 16),
}


@pytest.mark.parametrize("name", ODD)
def test_what_singular_values_do_not_shorten_travels_as_it_is(name: str) -> None:
    encoded, decoded = passed({name: ODD[name]}, 0.98)
    assert torch.equal(decoded[name], ODD[name])
    assert len(encoded[NUMBERS]) == ODD[name].numel()


def test_three_rows_are_a_matrix() -> None:
    """The official code takes three rows for U, Σ and V."""
    matrix = spectrum([1.0], 3, 50)
    encoded, decoded = passed({"w": matrix})
    assert encoded[RANKS].tolist() == [1] and len(encoded[NUMBERS]) == 53
    torch.testing.assert_close(decoded["w"], matrix, atol=1e-6, rtol=1e-5)


def test_zeros_take_no_numbers() -> None:
    encoded, decoded = passed({"w": torch.zeros(30, 20), "v": torch.zeros(1, 4)})
    assert encoded[RANKS].tolist() == [0, 0] and not len(encoded[NUMBERS])
    assert torch.equal(decoded["w"], torch.zeros(30, 20))


def test_many_tensors_arrive_under_their_names_and_dtypes() -> None:
    tensors = {
        "a.weight": spectrum([4.0, 1.0, 0.01], 24, 40).double(),
        "a.bias": torch.randn(24),
        "counts": torch.arange(5),
        "half": torch.randn(30, 30).bfloat16(),
        "b.weight": spectrum([1.0, 0.5], 50, 10),
    }
    _, decoded = passed(tensors, 0.999)
    assert decoded.keys() == tensors.keys()
    for name in ("a.bias", "counts", "half"):
        assert torch.equal(decoded[name], tensors[name])
    torch.testing.assert_close(decoded["b.weight"], tensors["b.weight"], atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(decoded["a.weight"], tensors["a.weight"], atol=0.02, rtol=0)


@pytest.mark.parametrize("energy", [0.5, 0.95, 0.999])
def test_a_message_is_never_longer_than_without_the_codec(energy: float) -> None:
    decays = [0.3, 0.9, 1.0]
    tensors = {
        f"model.layers.{i}.weight": spectrum([decay**k for k in range(24)], 24, 32, i)
        for i, decay in enumerate(decays)
    } | {f"model.layers.{i}.bias": torch.randn(24) for i in range(3)}
    encoded, _ = passed(tensors, energy)
    assert len(pack({}, {}, {"update": encoded})) < len(pack({}, {}, {"update": tensors}))


def test_values_that_are_not_finite_arrive_as_they_are() -> None:
    broken = spectrum([1.0], 20, 20)
    broken[3, 4] = torch.nan
    update = SVD(0.9, 0.9).encode(Update({"w": broken}), {}, {}, CONTEXT)
    decoded = SVD(0.9, 0.9).decode(update, {}, CONTEXT).tensors["w"]
    torch.testing.assert_close(decoded, broken, atol=0, rtol=0, equal_nan=True)


def test_the_threshold_rises_over_the_run() -> None:
    codec = SVD(start=0.9, end=0.98)
    thresholds = [codec.threshold(RoundContext(0, n, rounds=5)) for n in range(1, 6)]
    assert thresholds == pytest.approx([0.90, 0.92, 0.94, 0.96, 0.98])
    assert codec.threshold(RoundContext(0, 1, rounds=1)) == 0.9
    matrix = {"w": spectrum([2.0**-i for i in range(12)], 60, 60)}
    ranks = [
        int(codec.encode(Update(matrix), {}, {}, RoundContext(0, n, rounds=5)).tensors[RANKS])
        for n in range(1, 6)
    ]
    assert ranks == [2, 2, 3, 3, 3]  # 1 − 4⁻ᴷ exceeds 0.90, …, 0.98


def test_a_schedule_needs_the_number_of_rounds() -> None:
    assert SVD(0.9, 0.9).threshold(CONTEXT) == 0.9
    with pytest.raises(UserError, match=r"from 0\.9 to 0\.98 .* give start and end the same"):
        SVD(0.9, 0.98).encode(Update({"w": torch.ones(4, 4)}), {}, {}, CONTEXT)


def test_a_threshold_that_falls_is_refused() -> None:
    with pytest.raises(UserError, match=r"svd.start is 0\.98 and svd.end is 0\.95, and .*rises"):
        SVD(0.98, 0.95)


def message(entries: dict[str, Entry], ranks: list[int], numbers: int) -> Update:
    return Update(
        {
            TABLE: Table(entries).to_tensor(),
            RANKS: torch.tensor(ranks, dtype=torch.int32),
            NUMBERS: torch.zeros(numbers),
        }
    )


HUGE = {"w": Entry(torch.float32, (2**20, 2**20))}
SMALL = {"w": Entry(torch.float32, (4, 5))}
CUBE = {"w": Entry(torch.float32, (4, 5, 6))}
BAD = {
    "a bomb": message(HUGE, [1], 2**21),
    "a bomb of zeros": message(HUGE, [0], 0),
    "too few numbers": message(SMALL, [1], 8),
    "too many numbers": message(SMALL, [1], 10),
    "a rank of a cube": message(CUBE, [1], 15),
    "a negative rank": message(SMALL, [-2], 20),
    "a rank above the full one": message(SMALL, [3], 27),
    "no ranks": message(SMALL, [], 20),
    "two ranks": message(SMALL, [1, 1], 18),
    "lacks its table": Update({RANKS: torch.zeros(1), NUMBERS: torch.zeros(20)}),
    "lacks its ranks": replace(
        message(SMALL, [1], 9), tensors={TABLE: Table(SMALL).to_tensor(), NUMBERS: torch.zeros(9)}
    ),
}


@pytest.mark.parametrize("name", BAD)
def test_what_nothing_encodes_to_is_refused(name: str) -> None:
    expected = layout({"w": torch.zeros(4, 5)})
    with pytest.raises(MessageError):
        Pipeline("upload", (SVD(),)).decode(BAD[name], {}, CONTEXT, expected)


def test_a_run_sends_both_ways_by_singular_values(tmp_path: Path) -> None:
    features, toys = 200, silos(3, features=200)
    codec = SVD(start=0.5, end=0.99)
    settings = {"upload": [codec], "download": [codec], "error_feedback": True}
    runs = {
        name: federate(FedAvg(), toys, tmp_path / name, held_out(features=features), **own)
        for name, own in {"plain": {}, "coded": settings}.items()
    }
    sizes = {
        name: sum(row.up + row.down for row in read_ledger(tmp_path / name) if row.kind == "train")
        for name in runs
    }
    assert sizes["coded"] < 0.75 * sizes["plain"]
    losses = {name: run.records[-1].test["loss"] for name, run in runs.items()}
    assert losses["coded"] == pytest.approx(losses["plain"], rel=0.1)
