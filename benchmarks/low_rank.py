"""The singular values that FedKD's codec keeps: changes of full layers beside LoRA's factors.

Four silos train an encoder on film reviews (experiments/adapters.yaml), once the upper two layers
in full and once LoRA of rank 8, by FedAvg without a codec. The changes of the first and of the last
round, their mean, and the trained tensors themselves then pass the codec `svd` at several
thresholds. For each: the bytes of the message ÷ those without the codec, the median rank of its
matrices as a share of the full one, and the share of matrices that travel as they are. Writes
benchmarks/results/low_rank.json.
"""

import argparse
import statistics
from collections.abc import Iterator
from typing import Any

from measured import ROOT, clock, keep

from hanse.experiment.assembly.assemble import Simulation, simulate
from hanse.experiment.loading import load
from hanse.federation.compression.svd import RANKS, RAW, SVD, TABLE
from hanse.federation.messages import Reply, Update
from hanse.randomness import RoundContext
from hanse.tensors.named import RunningMean, Tensors, add
from hanse.tensors.table import Table

EXPERIMENT = ROOT / "experiments" / "adapters.yaml"
WAYS = {
    "full, top 2 layers": ["adapter={full: {top_layers: 2}}", "train.learning_rate=3e-4"],
    "full, top 2 layers, SGD": [
        "adapter={full: {top_layers: 2}}",
        "train.learning_rate=0.1",
        "train.optim=sgd",
    ],
    "lora, r = 8": [],
}
THRESHOLDS = (0.5, 0.8, 0.9, 0.95, 0.98)


def trained(simulation: Simulation) -> Iterator[tuple[str, Tensors]]:
    """The changes of the first and last round, the mean of the last one, and the model after it."""
    experiment, model = simulation.experiment, simulation.learner.tensors()
    for round in range(1, experiment.rounds + 1):
        mean = RunningMean()
        for name, client in simulation.clients.items():
            context = RoundContext(experiment.seed, round, name, experiment.rounds)
            change, _ = client.learner.for_request(context, {}).change(model)
            mean.add(change, len(client.examples["train"]))
            if name == next(iter(simulation.clients)) and round in (1, experiment.rounds):
                yield f"a client's change in round {round}", change
        mean_change = mean.value()
        model = add(model, mean_change)
    yield "the mean change in the last round", mean_change
    yield "the trained tensors", model


def sent(tensors: Tensors) -> int:
    """The bytes of a reply with these tensors."""
    return len(Reply("silo-1", "train", 1, Update(tensors)).pack())


def coded(tensors: Tensors, threshold: float) -> dict[str, Any]:
    """Bytes and ranks of a message at one threshold."""
    codec, context = SVD(threshold, threshold), RoundContext(0)
    encoded = codec.encode(Update(tensors), {}, {}, context).tensors
    entries = Table.read(encoded[TABLE]).entries.values()
    pairs = zip(entries, encoded[RANKS].tolist(), strict=True)
    ranks = [(rank, min(entry.shape)) for entry, rank in pairs if len(entry.shape) == 2]
    shares = [1.0 if rank == RAW else rank / full for rank, full in ranks]
    return {
        "bytes": sent(encoded) / sent(tensors),
        "median_rank": statistics.median(shares),
        "raw": sum(rank == RAW for rank, _ in ranks) / len(ranks),
    }


def main() -> None:
    """Train each way, encode what it changed, print and keep the ranks and bytes."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--short", action="store_true", help="one round, one threshold")
    short = parser.parse_args().short
    thresholds = THRESHOLDS[-2:-1] if short else THRESHOLDS
    words = ["data.test=0", "data.validation=0", *(["rounds=1"] if short else [])]
    ways: dict[str, dict[str, Any]] = {}
    seconds = {}
    for way, own in WAYS.items():
        simulation = simulate(load(EXPERIMENT, [*words, *own]))
        ways[way] = {}
        for what, tensors in trained(simulation):
            ways[way][what] = {str(t): coded(tensors, t) for t in thresholds}
            print(way, what, *(f"{t}: {row['bytes']:.3f}" for t, row in ways[way][what].items()))
        seconds[way] = clock(lambda: coded(tensors, thresholds[-1]))  # noqa: B023
    print(keep("low_rank", {"ways": ways, "seconds_of_a_message": seconds}))


if __name__ == "__main__":
    main()
