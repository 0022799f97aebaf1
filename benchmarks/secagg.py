"""Secure sums beside the plain mean: their costs, and the sums that killed silos leave.

costs    32 silos that all share their secrets with each other, and an adapter of 2 MB: bytes up and
         down, and CPU seconds, of a silo and of the server. Gates: at most 2.2 × the bytes of the
         plain mean, and 0.5 s of a silo's processor in the protocol
graphs   50, 100 and 400 silos, and vectors of 10 kB: what is sent beyond the plain mean, which
         must grow with a silo's neighbours, not with all silos
flower   4 silos as processes over Flower: seconds of a round, of which plain rounds have one or two
         exchanges, and secure sums five
killed   11 silos as processes over Flower, some of them killed in three steps of the protocol
quality  experiments/quickstart.yaml on three seeds, with and without secure sums

Whatever is finished stands in benchmarks/results/secagg.json and is not done again; `--anew` does
the parts of `--only` again. On two quiet cores `costs` takes half a minute, `graphs` two minutes,
`flower` six, `killed` ten and `quality` fifteen.
"""

import argparse
import json
import logging
import os
import tempfile
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path

import protocol  # before torch, which then takes one thread
import secagg_costs
import secagg_deployed
import secagg_killed
import spread
import torch
from many_runs import Task, Workers
from measured import ROOT
from protocol import Kept, Row
from secagg_costs import Federation

from hanse.federation.aggregators.secagg import SecAgg
from hanse.federation.secure_sums.grid import Grid
from hanse.journal import run_folder

GATES = {"bytes_ratio": 2.2, "cpu_seconds": 0.5}
LARGE = 8, 2**16  # tensors, and numbers of each: 2 MB
SMALL = 4, 640  # 10 kB
COSTS = {
    "mean": Federation(32, *LARGE, neighbours="plain"),
    "secagg": Federation(32, *LARGE, neighbours="complete"),
}
GRAPHS = {
    **{f"{n}, mean": Federation(n, *SMALL, neighbours="plain") for n in (50, 100, 400)},
    **{f"{n}, secagg": Federation(n, *SMALL) for n in (50, 100, 400)},
    "50, secagg, complete": Federation(50, *SMALL, neighbours="complete"),
}
ROUNDS_COSTS = 6
SILOS, ROUNDS = 4, 8  # over Flower; the first round waits for silos that still start
EXPERIMENT = ROOT / "experiments" / "quickstart.yaml"
RULES = ("mean", "secagg")


def costs(kept: Kept, short: bool) -> None:
    """Bytes and CPU seconds of silos and server."""
    _without_model(kept, "costs", COSTS, 2 if short else ROUNDS_COSTS)


def graphs(kept: Kept, short: bool) -> None:
    """The same for more and more silos with small vectors."""
    few = {name: one for name, one in GRAPHS.items() if one.silos <= 50}
    _without_model(kept, "graphs", few if short else GRAPHS, 2)


def _without_model(kept: Kept, part: str, some: Mapping[str, Federation], rounds: int) -> None:
    """One row for each federation; the first of its rounds counts for bytes alone."""
    for name, federation in some.items():
        work = partial(secagg_costs.measure, federation, rounds)
        _once(kept, work, f"{federation}, {rounds} rounds", part, name)


def flower(kept: Kept, short: bool) -> None:
    """Seconds of a round over Flower."""
    rounds = 3 if short else ROUNDS
    for name, way in secagg_deployed.WAYS.items():
        work = partial(secagg_deployed.measure, name=name, silos=SILOS, rounds=rounds)
        _once(kept, partial(_apart, work), f"{way}, {SILOS} silos, {rounds}", "flower", name)


def killed(kept: Kept, short: bool) -> None:
    """Silos that are killed in the steps of a round."""
    made = f"{secagg_killed.SILOS} silos, {secagg_killed.DEATHS}"
    _once(kept, partial(_apart, secagg_killed.measure), made, "killed")


def quality(kept: Kept, short: bool) -> None:
    """The accuracy with and without secure sums, on the same test reviews."""
    seeds = protocol.SEEDS[:1] if short else protocol.SEEDS
    home = ROOT / "runs" / ("secagg-short" if short else "secagg")
    words = ("rounds=2", "data.test=100") if short else ()
    tasks = {
        rule: [
            Task(
                home / f"{rule}-{seed}",
                EXPERIMENT,
                (f"seed={seed}", f"aggregator={rule}", "evaluation.test=final", *words),
            )
            for seed in seeds
        ]
        for rule in RULES
    }
    made = protocol.fingerprint(*(task for own in tasks.values() for task in own))
    _once(kept, partial(_scored, tasks), made, "quality")


def _scored(tasks: dict[str, list[Task]]) -> Row:
    """The scores of both rules, and how far secure sums are ahead."""
    with Workers() as workers:
        workers.finish(task for own in tasks.values() for task in own)
    items = {rule: [protocol.items(task) for task in own] for rule, own in tasks.items()}
    records = [r for task in tasks["secagg"] for r in run_folder.read_rounds(task.folder)]
    silos = len(tasks["secagg"][0].experiment().participant_names)
    rule = SecAgg()
    return {
        "experiment": str(EXPERIMENT.relative_to(ROOT)),
        "step": Grid(silos, rule.bits, rule.clip, 1.0).step,
        "clipped": sum(record.train.get("clipped", 0.0) for record in records),
        "changed": sum(
            one != other
            for runs in zip(*items.values(), strict=True)
            for one, other in zip(*runs, strict=True)
        ),
        **{rule: spread.standing(own) for rule, own in items.items()},
        "ahead": spread.ahead(items["secagg"], items["mean"]),
    }


def _once(kept: Kept, work: Callable[[], Row], made: str, *path: str) -> None:
    """Do some work unless its row is there, made in the same way; keep the row, and print it."""
    if kept.row(made, *path) is None:
        kept.put(work(), made, *path)
        print(f"{' / '.join(path)}: {json.dumps(kept.row(made, *path))}", flush=True)


def _apart(work: Callable[[Path], Row]) -> Row:
    """Do some work in a folder of its own."""
    with tempfile.TemporaryDirectory(prefix="hanse-secagg-") as folder:
        os.environ["HANSE_CACHE"] = str(Path(folder) / "cache")
        return work(Path(folder))


def show(content: Row) -> None:
    """Print the gates of what is there."""
    if len(found := content.get("costs", {})) == len(COSTS):
        plain, masked = (_bytes(found[rule]) for rule in RULES)
        cpu = found["secagg"]["cpu_seconds"]
        print(
            f"bytes ÷ those of the plain mean: {masked / plain:.3f} (gate {GATES['bytes_ratio']})"
        )
        print(f"CPU seconds of a silo: {cpu['protocol']:.3f} (gate {GATES['cpu_seconds']})")


def _bytes(row: Row) -> float:
    return sum(sum(both.values()) for both in row["bytes"].values())


PARTS: dict[str, Callable[[Kept, bool], None]] = {
    "costs": costs,
    "graphs": graphs,
    "flower": flower,
    "killed": killed,
    "quality": quality,
}


def main() -> None:
    """Measure what is asked for and not there, and keep it."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--only", nargs="+", choices=PARTS, default=[*PARTS])
    parser.add_argument("--anew", action="store_true")
    parser.add_argument("--short", action="store_true", help="proves little; out of the way")
    asked = parser.parse_args()
    logging.basicConfig(format="%(asctime)s  %(message)s", datefmt="%H:%M:%S")
    logging.getLogger("many_runs").setLevel(logging.INFO)
    torch.set_num_threads(1)
    kept = Kept("secagg", {"gates": GATES})
    for part in asked.only if asked.anew else ():
        kept.content.pop(part, None)
    for part in asked.only:
        PARTS[part](kept, asked.short)
    show(kept.content)


if __name__ == "__main__":
    main()
