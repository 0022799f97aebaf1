"""Does a learned codec hold on clients that it has not seen? CG-FedLLM's two phases, three seeds.

Phase TGAP: the first four of eight silos of experiments/adapters.yaml train with
compression.collect, and an autoencoder is fitted on their changes. Phase FAF: the other four silos
train by it and by int4, with error feedback, and without codec. Their changes without a codec are
what codecs of equal size are compared on; two of them vary: the compression (ratio) and noise in
the codes.

Runs that are finished are not done again. All of them take two cores about 10 minutes.
"""

import statistics
from collections.abc import Callable, Iterator
from dataclasses import asdict
from typing import Any

import safetensors.torch
import torch
from many_runs import Task, Workers
from measured import ROOT, keep
from torch import Tensor

from hanse.journal import run_folder, updates
from hanse.planning.learned_codec.collected_changes import Changes, changes
from hanse.planning.learned_codec.comparison import Figures, by_blocks, compare, figures
from hanse.planning.learned_codec.fit import fit
from hanse.tensors.autoencoder import Autoencoder

EXPERIMENT = ROOT / "experiments" / "adapters.yaml"
RUNS = ROOT / "runs" / "benchmark-learned-codec"
SEEDS = (1, 2, 3)
BLOCK, RATIO, EPOCHS, GATE = 4096, 64, 20, 0.5
RATIOS = (16, 64, 256)
NOISE_DB = (30, 20, 10, 0)  # signal to noise of the codes
FIT, HELD = "[silo-1, silo-2, silo-3, silo-4]", "[silo-5, silo-6, silo-7, silo-8]"
COMMON = ("num_clients=8", "data.validation=0", "rounds=6")


def task(name: str, seed: int, participants: str, *words: str) -> Task:
    """A run of four of the eight silos."""
    own = (f"seed={seed}", f"participants={participants}", *COMMON, *words)
    return Task(RUNS / f"{name}-{seed}", EXPERIMENT, own)


def collecting(seed: int) -> tuple[Task, Task]:
    """The runs without a codec: of the silos that are fitted, and of those that are held out."""
    words = ("compression.collect=true",)
    return task("fitted", seed, FIT, *words), task("plain", seed, HELD, *words)


def coded(seed: int) -> dict[str, Task]:
    """The held-out silos with the codec by its gate, and with int4, which needs no file."""
    trained = RUNS / f"codec-{seed}.safetensors"
    codecs = {
        f"gate {gate:g}": f"{{cg_fedllm: {{trained: {trained}, gate: {gate}}}}}"
        for gate in (GATE, 0.0)
    }
    return {
        name: task(
            *(name.replace(" ", "-"), seed, HELD),
            f"compression={{upload: [{codec}], error_feedback: true}}",
        )
        for name, codec in {**codecs, "int4": "int4"}.items()
    }


def read(run: Task) -> Changes:
    """The changes that a run has collected."""
    return changes(updates.listed(run.folder), BLOCK)


def with_noise(held: Changes, network: Autoencoder, decibels: float) -> Callable[[int], Tensor]:
    """From a change's index to what is decoded of its codes with Gaussian noise."""
    draw = torch.Generator().manual_seed(0)

    def decoded(change: int) -> Tensor:
        codes = network.to_codes(held.unit[change])
        noise = torch.randn(codes.shape, generator=draw) * codes.square().mean().sqrt()
        noisy = codes + noise * 10 ** (-decibels / 20)
        return held.values(change, network.to_blocks(noisy))

    return decoded


def sweeps(fitted: Changes, held: Changes, network: Autoencoder, seed: int) -> dict[str, Figures]:
    """Figures by ratio, and by noise in the codes."""
    blocks, results = held.unit.shape[1], {}
    for ratio in RATIOS:
        other = network if ratio == RATIO else fit(fitted.blocks, BLOCK // ratio, EPOCHS, seed)
        size = blocks * (4 * other.code + 2)
        results[f"1/{ratio}"] = figures(held, by_blocks(held, other), size)
    for decibels in NOISE_DB:
        noisy = with_noise(held, network, decibels)
        size = blocks * (4 * network.code + 2)
        results[f"codes with noise at {decibels} dB"] = figures(held, noisy, size)
    return results


def outcome(run: Task) -> dict[str, float]:
    """The scores of a finished run, its bytes up for a client and round, and its fallbacks."""
    records = run_folder.read_rounds(run.folder)
    ledger = [r for r in run_folder.read_ledger(run.folder) if r.kind == "train"]
    shares = [record.train.get("fallback_share", 0.0) for record in records if record.round]
    return {
        "loss": records[-1].test["loss"],
        "accuracy": records[-1].test["accuracy"],
        "auc": records[-1].test["auc"],
        "bytes_up": statistics.fmean(row.up for row in ledger),
        "fell_back": statistics.fmean(shares),
    }


def one_seed(seed: int, workers: Workers) -> dict[str, Any]:
    """All figures of one seed."""
    fit_run, plain = collecting(seed)
    fitted, held = read(fit_run), read(plain)
    network = fit(fitted.blocks, BLOCK // RATIO, EPOCHS, seed)
    file = RUNS / f"codec-{seed}.safetensors"
    file.write_bytes(safetensors.torch.save(dict(network.tensors)))
    runs = coded(seed)
    workers.finish(runs.values())
    return {
        "compared": compare(network, fitted, held, GATE, seed),
        "swept": sweeps(fitted, held, network, seed),
        "on the silos of the fit": compare(network, fitted, fitted, GATE, seed),
        "runs": {name: outcome(run) for name, run in {"no codec": plain, **runs}.items()},
        "numbers": held.unit[0].numel(),
        "codec_bytes": file.stat().st_size,
    }


def means(by_seed: list[dict[str, Any]]) -> Iterator[tuple[str, dict[str, float]]]:
    """The mean of each figure over the seeds, and the spread of cosines and losses."""
    for name in by_seed[0]:
        rows = [r if isinstance(r := seed[name], dict) else asdict(r) for seed in by_seed]
        row = {key: statistics.fmean(r[key] for r in rows) for key in rows[0]}
        first = next(iter(row))
        row["least"], row["most"] = (side(r[first] for r in rows) for side in (min, max))
        yield name, row


def main() -> None:
    """Run what is missing, and write the figures of all seeds."""
    with Workers() as workers:
        workers.finish(run for seed in SEEDS for run in collecting(seed))
        results = [one_seed(seed, workers) for seed in SEEDS]
    groups = ("compared", "swept", "on the silos of the fit", "runs")
    values: dict[str, Any] = {g: dict(means([row[g] for row in results])) for g in groups}
    values |= {key: results[0][key] for key in ("numbers", "codec_bytes")}
    values["seeds"] = SEEDS
    keep("learned_codec", values)


if __name__ == "__main__":
    main()
