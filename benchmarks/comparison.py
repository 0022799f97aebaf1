"""Which algorithm? All of them on experiments/comparison.yaml, dealt alike and unlike, three seeds.

First each algorithm's learning rate is chosen by validation reviews, with a seed of its own and on
the unlike deal. Runs take turns in two processes of one thread each; what a round takes is then
measured with one at a time. What was stopped is gone on with. Writes
benchmarks/results/comparison.json.
"""

import argparse
import logging
import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from many_runs import WORKERS, Task, finish
from measured import ROOT, keep

from hanse import journal, spending
from hanse.evaluation.intervals import Interval, paired, student

EXPERIMENT = ROOT / "experiments" / "comparison.yaml"
RUNS = ROOT / "runs" / "benchmark-comparison"
BASELINE = "fedavg"
TUNING = 0  # the seed with which learning rates are chosen
DEALS = {"alike": "data.partition=iid", "unlike": "data.partition.dirichlet.alpha=0.1"}
ADAMW = (3e-4, 1e-3, 3e-3)
SGD = (0.03, 0.1, 0.3)
PLAIN = ["train.optim=sgd"]
# The experiment's layers, as other adapters than LoRA are told them.
LAYERS = r".*layers\.2[6-9]\."
CORES = f"adapter={{lora_xs: {{r: 32, target_modules: '{LAYERS}.*_proj'}}}}"
PAIR = (
    f"adapter={{pfeiffer: {{target_modules: '{LAYERS}mlp.down_proj'}}, lora: {{r: 8, "
    f"lora_alpha: 16, target_modules: '{LAYERS}.*(q|k|v|o|gate|up)_proj'}}}}"
)
RANKS = [f"clients.silo-{1 + place}.adapter.lora.r={r}" for place, r in enumerate((4, 8, 16, 16))]

Settings = tuple[str, ...]


@dataclass(frozen=True)
class Way:
    """One line of the comparison.

    like: whose learning rate it takes; none: its own is looked for among `rates`. Where silos keep
        models of their own, validation says little, since the server has none of these.
    """

    settings: tuple[str, ...]
    rates: tuple[float, ...] = ADAMW
    like: str = ""


WAYS = {
    BASELINE: Way(("algorithm=fedavg",)),
    "fedprox": Way(("algorithm.fedprox.mu=0.1",)),
    "fedopt": Way(("algorithm.fedopt.optimizer=adam",)),
    "fednova": Way(("algorithm=fednova",)),
    "feddyn": Way(("algorithm=feddyn",)),
    "fedavg, plain SGD": Way(("algorithm=fedavg", *PLAIN), SGD),
    "scaffold": Way(("algorithm=scaffold", *PLAIN), SGD),
    "ffa_lora": Way(("algorithm=ffa_lora",)),
    "rolora": Way(("algorithm=rolora",)),
    "flora": Way(("algorithm=flora",)),
    "fedex_lora": Way(("algorithm=fedex_lora",)),
    "flexlora": Way(("algorithm=flexlora",)),
    "flexlora, ranks 4 to 16": Way(("algorithm=flexlora", "adapter.lora.r=16", *RANKS)),
    "hetlora": Way(("algorithm=hetlora",)),
    "lora_fair": Way(("algorithm=lora_fair",)),
    "fed_sb": Way(("algorithm=fed_sb", CORES)),
    "fedsa_lora": Way(("algorithm=fedsa_lora",), like=BASELINE),
    "fedper": Way((r"algorithm.fedper.share=['layers\.2[67]\.']",), like=BASELINE),
    "pftt": Way(("algorithm=pftt", PAIR), like=BASELINE),
    "ditto": Way(("algorithm=ditto",), like=BASELINE),
}


def tuning(name: str, rate: float) -> Task:
    """A run that a learning rate is judged by; it looks at no test review."""
    own = (*WAYS[name].settings, f"train.learning_rate={rate}", f"seed={TUNING}")
    unseen = ("evaluation.test=false", "evaluation.clients=false", DEALS["unlike"])
    return Task(RUNS / f"tuning-{_file(name)}-{rate:g}", EXPERIMENT, (*own, *unseen))


def compared(name: str, deal: str, seed: int, rate: float) -> Task:
    """A run that is compared with others; scoring is not to take longer than training."""
    own = (*WAYS[name].settings, f"train.learning_rate={rate}", f"seed={seed}", DEALS[deal])
    scored = ("data.validation=0", "data.client_test=0.05")
    return Task(RUNS / f"{_file(name)}-{deal}-{seed}", EXPERIMENT, (*own, *scored))


def timing(name: str, place: str = "") -> Task:
    """A short run of silos that hold as much as each other, which has the processor to itself."""
    own = (*WAYS[name].settings, f"seed={TUNING}", DEALS["alike"], "rounds=3")
    unseen = ("data.validation=0", "evaluation.test=false", "evaluation.clients=false")
    return Task(RUNS / f"timing-{_file(name)}{place}", EXPERIMENT, (*own, *unseen))


def _file(name: str) -> str:
    return name.replace(", ", "-").replace(" ", "-")


def chosen(names: Sequence[str]) -> dict[str, float]:
    """The learning rate of each way: of the highest accuracy on validation reviews."""
    own = [name for name in names if not WAYS[name].like]
    finish(tuning(name, rate) for name in own for rate in WAYS[name].rates)

    def validated(name: str, rate: float) -> tuple[float, float]:
        scores = journal.records(tuning(name, rate).folder)[-1]["validation"]
        return scores["accuracy"], -scores["loss"]

    found = {name: max(WAYS[name].rates, key=lambda rate: validated(name, rate)) for name in own}
    return {name: found[WAYS[name].like or name] for name in names}


def outcome(task: Task) -> dict[str, Any]:
    """What a run came to."""
    records = journal.records(task.folder)
    rounds = [record for record in records if record["round"]]
    last = rounds[-1]
    items = journal.read_scores(task.folder, "test-classification", last["round"])["items"]
    asked = [
        row
        for row in journal.records(task.folder, "ledger")
        if (row["round"], row["kind"]) == (last["round"], "evaluate") and row.get("weight")
    ]
    own = sum(last["client_test"][row["client"]]["accuracy"] * row["weight"] for row in asked)
    return {
        "run": task.folder.name,
        "accuracy": statistics.fmean(items),
        "items": items,
        "own_accuracy": own / sum(row["weight"] for row in asked),
        "own_items": round(sum(row["weight"] for row in asked)),
        "up_bytes": sum(record["bytes"]["up"] for record in rounds) / len(rounds),
        "down_bytes": sum(record["bytes"]["down"] for record in rounds) / len(rounds),
        "seconds": sum(sum(record["seconds"].values()) for record in records),
    }


def seconds(task: Task) -> dict[str, float]:
    """What a round takes of a run that is timed."""
    later = [record["seconds"] for record in journal.records(task.folder) if record["round"]]
    return {
        "training_seconds": statistics.median(spending.training(row) for row in later),
        "server_seconds": statistics.median(row["aggregation"] for row in later),
    }


def bounds(interval: Interval | None) -> list[float] | None:
    """As it is kept."""
    return [interval.value, interval.low, interval.high] if interval else None


def line(own: Sequence[dict[str, Any]], baseline: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """All seeds of one way on one deal, beside the baseline's.

    ahead: by how much on the test reviews, each review's mean over the seeds, paired; ahead_by_seed
        and own_ahead: the same as a mean over seeds, for which the silos' deal differs, too.
    """
    ahead, over_seeds, own_ahead = None, None, None
    if own is not baseline:
        first, second = (
            [statistics.fmean(same) for same in zip(*(run["items"] for run in runs), strict=True)]
            for runs in (own, baseline)
        )
        ahead = paired(first, second)
        over_seeds, own_ahead = (
            student([a[key] - b[key] for a, b in zip(own, baseline, strict=True)])
            for key in ("accuracy", "own_accuracy")
        )
    means = {
        key: statistics.fmean(run[key] for run in own)
        for key in own[0]
        if key not in ("run", "items")
    }
    return {
        **means,
        "ahead": bounds(ahead),
        "ahead_by_seed": bounds(over_seeds),
        "own_ahead": bounds(own_ahead),
        "seeds": [{key: value for key, value in run.items() if key != "items"} for run in own],
    }


def main() -> None:
    """Choose learning rates, run all, print a line for each, keep the figures."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, nargs="+", default=[1, 2, 3])
    parser.add_argument("--ways", nargs="+", default=list(WAYS), help="names, if not all")
    asked = parser.parse_args()
    logging.basicConfig(format="%(asctime)s  %(message)s", datefmt="%H:%M:%S", level=logging.INFO)
    names = [BASELINE, *(name for name in asked.ways if name != BASELINE)]
    rates = chosen(names)
    logging.info("learning rates: %s", rates)
    tasks = {
        (name, deal): [compared(name, deal, seed, rates[name]) for seed in asked.seeds]
        for name in names
        for deal in DEALS
    }
    finish(task for own in tasks.values() for task in own)
    # All see the same reviews, which are new to the first run alone.
    finish([timing(BASELINE, "-first"), *map(timing, names)], workers=1)
    runs = {key: [outcome(task) for task in own] for key, own in tasks.items()}
    lines = {
        deal: {
            name: {**line(runs[name, deal], runs[BASELINE, deal]), **seconds(timing(name))}
            for name in names
        }
        for deal in DEALS
    }
    for deal, ways in lines.items():
        for name, row in ways.items():
            print(
                f"{deal}  {name}  {row['accuracy']:.3f}  {row['ahead']}  {row['own_accuracy']:.3f}"
            )
    spent = sum(run["seconds"] for own in runs.values() for run in own)
    test = len(next(iter(runs.values()))[0]["items"])
    made = {"test_items": test, "seeds": asked.seeds, "rates": rates, "workers": WORKERS}
    print(keep("comparison", {**made, "minutes": spent / WORKERS / 60, "deals": lines}))


if __name__ == "__main__":
    main()
