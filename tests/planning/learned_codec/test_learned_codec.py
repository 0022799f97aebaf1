"""The fit of a learned codec on planted changes, and its comparison on held-out clients."""

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from hanse.errors import UserError
from hanse.federation.compression.cg_fedllm import CGFedLLM
from hanse.journal import updates
from hanse.planning.learned_codec import collected_changes, comparison
from hanse.planning.learned_codec import fit as fitting
from hanse.planning.learned_codec.fit import fit, principal_components
from hanse.tensors.autoencoder import Autoencoder

BLOCK, CODE, PLANTED = 256, 4, 3


def seeded(*shape: int, seed: int) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def manifold(rows: int, seed: int, noise: float = 0.3) -> torch.Tensor:
    """Rows (n, BLOCK) near a subspace of PLANTED dimensions, and some noise everywhere."""
    basis = torch.linalg.qr(seeded(BLOCK, PLANTED, seed=0)).Q
    signal = seeded(rows, PLANTED, seed=seed) @ basis.T * math.sqrt(BLOCK / PLANTED)
    return signal + noise * seeded(rows, BLOCK, seed=seed + 1000)


@pytest.fixture
def run_folder(tmp_path: Path) -> Path:
    """Changes of five clients in six rounds: eight blocks on one subspace, of very unlike sizes."""
    folder = tmp_path / "run"
    folder.mkdir()
    (folder / "experiment.yaml").write_text("name: toy\n")
    for round in range(1, 7):
        for client in range(5):
            rows = manifold(8, 10 * round + client)
            sizes = 10.0 ** -torch.arange(8).unsqueeze(1)
            change = {"a": (rows * sizes)[:5], "b": (rows * sizes)[5:].reshape(-1)}
            updates.keep(folder, round, f"c{client}", change)
    return folder


def test_principal_components_span_what_a_full_decomposition_finds() -> None:
    rows = seeded(40, 60, seed=1) * torch.linspace(3, 0.1, 60)
    basis = principal_components(rows, 5, torch.Generator().manual_seed(0))
    torch.testing.assert_close(basis.T @ basis, torch.eye(5), atol=1e-5, rtol=0)
    best = torch.linalg.svd(rows).S[:5].square().sum()
    assert float((rows @ basis).square().sum()) == pytest.approx(float(best), rel=0.01)
    few = principal_components(rows[:3], 5, torch.Generator().manual_seed(0))
    torch.testing.assert_close(rows[:3] @ few @ few.T, rows[:3], atol=1e-4, rtol=0)


def test_a_planted_manifold_is_decoded_with_a_cosine_above_0_9() -> None:
    network = fit(manifold(300, 1, noise=0.05), CODE, epochs=3, seed=0)
    new = manifold(50, 2, noise=0.05)
    decoded = network.to_blocks(network.to_codes(new))
    assert float(torch.cosine_similarity(decoded, new, dim=1).min()) > 0.9


def test_adam_gets_below_principal_components_where_codes_bend(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Points of a curve in a plane, whose halves differ in sign: one number tells the point.

    By the rate of the command it would take minutes.
    """
    monkeypatch.setattr(fitting, "LEARNING_RATE", 1e-2)  # 50 × the paper's
    places = seeded(500, 1, seed=0)
    plane = torch.linalg.qr(seeded(16, 2, seed=0)).Q
    blocks = torch.cat((2 * places, 4 * torch.tanh(2 * places)), 1) @ plane.T

    def error(network: Autoencoder) -> float:
        return float((network.to_blocks(network.to_codes(blocks)) - blocks).square().mean())

    assert error(fit(blocks, 1, 40, 1)) < 0.1 * error(fit(blocks, 1, 0, 1))


def test_a_fit_begins_at_principal_components() -> None:
    blocks = manifold(60, 1)
    network = fit(blocks, PLANTED, epochs=0, seed=0)
    basis = torch.linalg.svd(blocks).Vh[:PLANTED]
    decoded = network.to_blocks(network.to_codes(blocks))
    lost = [float((blocks - back).square().sum()) for back in (decoded, blocks @ basis.T @ basis)]
    assert lost[0] == pytest.approx(lost[1], rel=1e-3)


def test_a_change_comes_back_from_its_blocks(run_folder: Path) -> None:
    collected = updates.listed(run_folder)
    read = collected_changes.changes(collected, BLOCK)
    for change, update in enumerate(collected):
        numbers = torch.cat([tensor.reshape(-1) for tensor in update.read().values()])
        assert torch.equal(read.values(change, read.unit[change]), numbers)
    assert read.blocks.data_ptr() == read.unit.data_ptr(), "no block is empty"
    read.unit[2, 3] = 0
    assert read.blocks.shape == (30 * 8 - 1, BLOCK)


def test_a_fit_is_the_same_again_and_another_seed_is_another() -> None:
    fits = [fit(manifold(100, 1), CODE, 2, seed).tensors for seed in (0, 0, 1)]
    assert all(torch.equal(fits[0][name], fits[1][name]) for name in fits[0])
    assert not torch.equal(fits[0]["decode_hidden"], fits[2]["decode_hidden"])


def test_on_held_out_clients_it_beats_the_mean_and_random_projection(run_folder: Path) -> None:
    fitted, held = collected_changes.read(run_folder, BLOCK, 0.25, 0)
    assert fitted.unit.shape == (24, 8, BLOCK) and held.unit.shape == (6, 8, BLOCK)
    network = fit(fitted.blocks, CODE, 3, 0)
    results = comparison.compare(network, fitted, held, 0.5, 0)
    learned = results["learned"]
    assert learned.cosine > 0.9 > 0.5 > results["mean of the fit"].cosine
    assert results["random projection"].cosine == pytest.approx(math.sqrt(CODE / BLOCK), abs=0.1)
    assert learned.bytes == 8 * (BLOCK // 64 * 4 + 2)
    for name in (
        *("random projection", "low rank of the reshaped change"),
        *("int4", "principal components"),
    ):
        assert results[name].bytes == learned.bytes and results[name].snr <= learned.snr + 0.1
    assert results["learned, as sent"].fell_back == 0.0
    assert comparison.as_sent(network, held, 1.0).fell_back == 1.0


def test_signal_to_noise_is_that_of_the_sums() -> None:
    unit = torch.ones(1, 1, 128)
    held = collected_changes.Changes(unit, torch.zeros(1, 1, dtype=torch.int8))
    halved = comparison.figures(held, lambda change: torch.full((128,), 0.9), 1)
    assert halved.snr == pytest.approx(20, abs=1e-4) and halved.cosine == pytest.approx(1)


def test_equal_bytes_allow_few_groups_and_factors() -> None:
    numbers = seeded(4096, seed=0)
    kept = comparison.largest_as_int4(numbers, 3 * 38 + 5).reshape(-1, 64)
    norms = numbers.reshape(-1, 64).norm(dim=1)
    assert {*kept.any(1).nonzero().flatten().tolist()} == {*norms.topk(3).indices.tolist()}
    low = comparison.low_rank(numbers, 2 * 4 * 128 + 7).reshape(64, 64)
    assert int(torch.linalg.matrix_rank(low)) == 2
    assert not comparison.low_rank(numbers, 4 * 127).any()


def test_runs_that_cannot_be_fitted_are_refused(run_folder: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"no updates of single clients; run its experiment with"):
        collected_changes.read(tmp_path, BLOCK, 0.25, 0)
    updates.keep(tmp_path, 1, "c1", {"a": torch.ones(3)})
    with pytest.raises(UserError, match="only c1 has sent updates"):
        collected_changes.read(tmp_path, BLOCK, 0.25, 0)
    for client, tensor in (("c1", torch.zeros(3)), ("c2", torch.zeros(3))):
        updates.keep(tmp_path, 1, client, {"a": tensor})
    with pytest.raises(UserError, match="of the clients to fit are zeros; run its experiment with"):
        collected_changes.read(tmp_path, BLOCK, 0.25, 0)
    updates.keep(run_folder, 7, "c1", {"a": torch.ones(3)})
    with pytest.raises(UserError, match=r"00007/c1\.safetensors has 3 numbers in other tensors"):
        collected_changes.read(run_folder, BLOCK, 0.25, 0)


def test_beyond_the_bound_every_other_block_is_read(
    run_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = [c.unit for c in collected_changes.read(run_folder, BLOCK, 0.25, 0)]
    monkeypatch.setattr(collected_changes, "MOST_NUMBERS", 30 * 4 * BLOCK)
    halved = [c.unit for c in collected_changes.read(run_folder, BLOCK, 0.25, 0)]
    for blocks, every in zip(halved, whole, strict=True):
        assert torch.equal(blocks, every[:, ::2])


def test_the_command_writes_a_codec_and_a_table(
    hanse: Callable[..., Any], run_folder: Path, tmp_path: Path
) -> None:
    out = tmp_path / "codec.safetensors"
    words = ["--out", out, "--block", "256", "--epochs", "1"]
    done = hanse("fit-codec", run_folder, *words)
    assert "6 changes of clients held out of the fit:" in done.out and "wrote" in done.out
    assert all(word in done.out for word in ("learned, as sent", "random projection", "int4"))
    assert CGFedLLM(str(out)).weights()["encode"].shape == (4, 256)
    again = hanse("fit-codec", run_folder, *words)
    assert again.code == 2 and "exists already; name a file that does not." in again.err
    wrong = hanse("fit-codec", run_folder, "--block", "192", "--out", tmp_path / "other")
    assert "--block 192 must be a multiple of 128 and of --ratio, which is 64." in wrong.err
