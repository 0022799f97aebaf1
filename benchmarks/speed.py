"""The demo's job, SmolLM2 on film reviews, by hanse as it comes, by a plain loop, and by Flower.

One round of four silos with batches of eight. In this process, with the model loaded, these take
turns:

plain        Hugging Face and PEFT in float32, one client after another: a padding mask, and logits
             at every position, as such loops are written; batches are those of hanse, which puts
             rows of like length together
as written   the same loop on as many reviews of the same silos in shuffled order, as a DataLoader
             gives them
float32      hanse in the same precision, one client after another
one by one   hanse in the precision that it chooses on this machine, `clients_per_pass: off`
as it comes  the same with `clients_per_pass: auto`, the round's messages, journal and all

Their ratios are of tokens a second by the wall clock, padding not counted, medians over repeats.
Gate: as it comes, at least twice the plain loop where the processor has bfloat16, elsewhere 1.3
times. Before that whole commands take turns (whole_runs.py says which), three times each, since
Flower's take minutes. Gate: at most half of the CPU seconds of Flower's simulation.
"""

import argparse
from collections.abc import Sequence
from typing import Any

from flower_peer import UnavailableError
from measured import clock, keep, ratio
from overhead import JOB, QUICKSTART, Order, ours, plain
from whole_runs import FLOAT32, compare

from hanse.data.packed import lengths
from hanse.experiment.assembly.assemble import Simulation, simulate
from hanse.experiment.loading import load
from hanse.learners.training.batch_sampling import sample_batches
from hanse.learners.training.settings import TrainingSettings
from hanse.randomness import RoundContext
from hanse.simulation.clients_per_pass import decided

OWN = {
    "float32": [FLOAT32, "clients_per_pass=off"],
    "one by one": ["clients_per_pass=off"],
    "as it comes": ["clients_per_pass=auto"],
}


def shuffled(
    sizes: Sequence[int], settings: TrainingSettings, context: RoundContext
) -> list[list[list[int]]]:
    """The batches that hanse would draw if it knew nothing of lengths: random rows in each."""
    return sample_batches([0] * len(sizes), settings, context)


LOOPS: dict[str, Order] = {"plain": sample_batches, "as written": shuffled}


def tokens(simulation: Simulation, order: Order) -> int:
    """Tokens of the reviews that all silos train on in the first round, without padding."""
    experiment, found = simulation.experiment, 0
    for name, silo in simulation.clients.items():
        sizes = lengths(silo.examples["train"])
        steps = order(sizes, experiment.train, RoundContext(experiment.seed, 1, name))
        found += sum(sizes[index] for step in steps for batch in step for index in batch)
    return found


def in_process(words: Sequence[str], repeats: int) -> dict[str, Any]:
    """Seconds of a round by loops and by hanse, with ratios."""
    made = {name: decided(simulate(load(QUICKSTART, [*words, *own]))) for name, own in OWN.items()}
    starts = {name: simulation.learner.tensors() for name, simulation in made.items()}

    def work(name: str) -> object:
        if name in LOOPS:
            return plain(made["float32"], starts["float32"], False, LOOPS[name])
        return ours(made[name], starts[name])

    seconds: dict[str, list[float]] = {name: [] for name in (*LOOPS, *OWN)}
    for repeat in range(1 + repeats):
        for name, own in seconds.items():
            spent = clock(lambda name=name: work(name))  # type: ignore[misc]
            if repeat:  # the first time, libraries prepare themselves
                own.append(spent)
            print(f"repeat {repeat} of {repeats}: {name} {spent:.1f} seconds", flush=True)
    read = {name: tokens(made["float32"], LOOPS.get(name, sample_batches)) for name in seconds}

    def over(loop: str) -> dict[str, float]:
        return {
            name: read[name] / read[loop] * ratio(seconds[loop], own)
            for name, own in seconds.items()
        }

    last = made["as it comes"]
    return {
        "seconds": seconds,
        "tokens": read,
        "speedup": over("plain"),
        "over_as_written": over("as written"),
        "bf16": last.learner.backbone.bf16,
        "plain_attention": last.learner.backbone.compute_mode.plain_attention,
        "clients_per_pass": last.experiment.clients_per_pass,
    }


def whole(words: Sequence[str], repeats: int, rounds: Sequence[int]) -> dict[str, Any]:
    """What `compare` finds under "flower"; none, and why, where Flower cannot be had."""
    try:
        return {"flower": compare(words, repeats, rounds)}
    except UnavailableError as error:
        print(f"without Flower: {error}", flush=True)
        return {"flower": None, "flower_skipped": str(error)}


def main() -> None:
    """Measure all ways, print the ratios, keep the samples."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--short", action="store_true", help="one step of each silo, once")
    parser.add_argument("--no-peers", action="store_true", help="without Flower")
    chosen = parser.parse_args()
    words = [*JOB, *(["train.max_steps=1"] if chosen.short else [])]
    found: dict[str, Any] = {"flower": None, "flower_skipped": "--no-peers"}
    if not chosen.no_peers:  # first, while this process takes no memory
        found = whole(words, *((1, (1,)) if chosen.short else (min(3, chosen.repeats), (1, 3))))
    result = {**in_process(words, 1 if chosen.short else chosen.repeats), **found}
    for name in ("speedup", "over_as_written"):
        print(name, result[name])
    if result["flower"]:
        print("over Flower", result["flower"]["over_flower"])
    print(keep("speed", result))


if __name__ == "__main__":
    main()
