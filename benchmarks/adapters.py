"""How little need be trained and sent? Every adapter on experiments/adapters.yaml, three seeds.

Each is trained by the federation; by each silo alone, as long as it trains in the federation; and
on all reviews in one place, as long as all silos together. After that come all weights but those of
the first k layers, as FedNLP asked (Lin et al. 2022, 2104.08815). Learning rates are those of the
federation with the highest accuracy on validation reviews, found with a seed of its own. What was
stopped is gone on with. Writes benchmarks/results/adapters.json.
"""

import argparse
import logging
import statistics
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from typing import Any

from many_runs import WORKERS, Task, finish
from measured import ROOT, keep

from hanse import journal, spending
from hanse.assembly import simulate
from hanse.evaluation.intervals import paired, student
from hanse.held import Machine
from hanse.loading import load

EXPERIMENT = ROOT / "experiments" / "adapters.yaml"
RUNS = ROOT / "runs" / "benchmark-adapters"
BASELINE = "lora"
TUNING = 0  # the seed with which learning rates are chosen
SILOS = ("silo-1", "silo-2", "silo-3", "silo-4")
ROUNDS, STEPS = 8, 10  # of the experiment; steps are a silo's in a round
KINDS = ("alone", "federated", "centralised")

SMALL, MIDDLE, LARGE = (3e-5, 1e-4, 3e-4), (1e-3, 3e-3, 1e-2), (1e-2, 3e-2, 1e-1)


@dataclass(frozen=True)
class Way:
    """What is trained: the setting `adapter`, the learning rates tried, and the kinds compared.

    frozen: how many of the encoder's parts, its embeddings and then its layers, do not move.
    like: whose learning rate it takes; none: its own is looked for among `rates`.
    """

    adapter: str
    rates: tuple[float, ...] = ()
    kinds: tuple[str, ...] = KINDS
    frozen: int | None = None
    like: str = ""


def _frozen(layers: int) -> Way:
    adapter = f"{{full: {{freeze_embeddings: true, freeze_layers: {layers}}}}}"
    return Way(adapter, kinds=KINDS[1:], frozen=1 + layers, like="full")


WAYS = {
    BASELINE: Way("{lora: {r: 8}}", MIDDLE),
    "ia3": Way("{ia3: {}}", LARGE),
    "houlsby": Way("{houlsby: {}}", MIDDLE),
    "pfeiffer": Way("{pfeiffer: {}}", MIDDLE),
    "prefix_tuning": Way("{prefix_tuning: {num_virtual_tokens: 20}}", LARGE),
    "prompt_tuning": Way("{prompt_tuning: {num_virtual_tokens: 20}}", LARGE),
    "p_tuning": Way("{p_tuning: {num_virtual_tokens: 20}}", MIDDLE),
    "bitfit": Way("{bitfit: {}}", MIDDLE),
    "head": Way("{head: {}}", LARGE, frozen=7),
    "full, top 2 layers": Way("{full: {top_layers: 2}}", SMALL),
    "full": Way("{full: {}}", SMALL, KINDS[1:], frozen=0),  # alone it would take minutes for each
    "full, embeddings frozen": _frozen(0),
    **{f"full, {layers} layers frozen": _frozen(layers) for layers in (2, 4)},
}


def settings(kind: str) -> Iterator[tuple[str, ...]]:
    """What is set for this kind of training, a run each; a federation is the experiment itself."""
    if kind == "federated":
        yield ()
    elif kind == "centralised":
        yield "data.pooled=true", "rounds=1", f"train.max_steps={len(SILOS) * ROUNDS * STEPS}"
    else:
        for silo in SILOS:
            yield f"participants=[{silo}]", "rounds=1", f"train.max_steps={ROUNDS * STEPS}"


def tuning(name: str, rate: float) -> Task:
    """A run that a learning rate is judged by; it looks at no test review."""
    own = (f"adapter={WAYS[name].adapter}", f"train.learning_rate={rate}", f"seed={TUNING}")
    folder = RUNS / f"tuning-{_file(name)}-{rate:g}"
    return Task(folder, EXPERIMENT, (*own, "evaluation.test=false"))


def compared(name: str, kind: str, seed: int, rate: float) -> list[Task]:
    """The runs of one kind with one seed: four where silos are alone."""
    own = (f"adapter={WAYS[name].adapter}", f"train.learning_rate={rate}", f"seed={seed}")
    # Rates are chosen, so validation reviews would be scored for nothing.
    return [
        Task(
            RUNS / f"{_file(name)}-{kind}-{seed}-{place}",
            EXPERIMENT,
            (*own, "data.validation=0", *words),
        )
        for place, words in enumerate(settings(kind))
    ]


def _file(name: str) -> str:
    return name.replace(", ", "-").replace(" ", "-")


def chosen(names: Iterable[str]) -> dict[str, float]:
    """The learning rate of each way: of the highest accuracy on validation reviews."""

    def validated(name: str, rate: float) -> tuple[float, float]:
        scores = journal.records(tuning(name, rate).folder)[-1]["validation"]
        return scores["accuracy"], -scores["loss"]

    def best(name: str) -> float:
        return max(WAYS[name].rates, key=lambda rate: validated(name, rate))

    return {name: best(WAYS[name].like or name) for name in names}


def scores(tasks: Sequence[Task]) -> list[float]:
    """Each test review's score, a mean over the runs."""
    found = []
    for task in tasks:
        last = journal.records(task.folder)[-1]["round"]
        found.append(journal.read_scores(task.folder, "test-classification", last)["items"])
    return _means(found)


def _means(several: Sequence[Sequence[float]]) -> list[float]:
    return [statistics.fmean(same) for same in zip(*several, strict=True)]


def trained(name: str) -> tuple[int, float]:
    """How many parameters are trained, and what share that is of the model's own."""
    words = [f"adapter={WAYS[name].adapter}", "data.test=0", "data.validation=0"]
    learner = simulate(load(EXPERIMENT, words), _held).learner
    count = sum(parameter.numel() for parameter in learner.parameters().values())
    share = count / learner.backbone.weights
    _held.clear_adapters()
    return count, share


_held = Machine()


def line(name: str, rows: Mapping[str, list[list[float]]], runs: Sequence[Task]) -> dict[str, Any]:
    """One way: its accuracy by kind, with intervals, and what it costs.

    rows: the test reviews' scores, by kind, for each seed. runs: those of the federation.
    """
    federated = _means(rows["federated"])
    count, share = trained(name)
    found: dict[str, Any] = {"trained": count, "share": share, "frozen": WAYS[name].frozen}
    for kind, by_seed in rows.items():
        values = [statistics.fmean(one) for one in by_seed]
        over_seeds = student(values)
        ahead = paired(_means(by_seed), federated) if kind != "federated" else None
        found[kind] = {
            "accuracy": statistics.fmean(values),
            "seeds": values,
            "over_seeds": [over_seeds.low, over_seeds.high] if over_seeds else None,
            "ahead_of_federated": [ahead.value, ahead.low, ahead.high] if ahead else None,
        }
    rounds = [record for run in runs for record in journal.records(run.folder) if record["round"]]
    found["bytes"] = statistics.fmean(sum(record["bytes"].values()) for record in rounds)
    found["seconds"] = statistics.median(spending.training(row["seconds"]) for row in rounds)
    return found


def main() -> None:
    """Choose learning rates, run all, print a line for each way, keep the figures."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, nargs="+", default=[1, 2, 3])
    parser.add_argument("--ways", nargs="+", default=list(WAYS), help="names, if not all")
    asked = parser.parse_args()
    logging.basicConfig(format="%(asctime)s  %(message)s", datefmt="%H:%M:%S", level=logging.INFO)
    tuned = dict.fromkeys(WAYS[name].like or name for name in asked.ways)
    finish(tuning(name, rate) for name in tuned for rate in WAYS[name].rates)
    rates = chosen(asked.ways)
    logging.info("learning rates: %s", rates)
    runs = {
        (name, kind, seed): compared(name, kind, seed, rates[name])
        for name, seed in product(asked.ways, asked.seeds)
        for kind in WAYS[name].kinds
    }
    finish(task for tasks in runs.values() for task in tasks)
    lines = {}
    for name in asked.ways:
        kinds = WAYS[name].kinds
        rows = {kind: [scores(runs[name, kind, seed]) for seed in asked.seeds] for kind in kinds}
        federated = [task for seed in asked.seeds for task in runs[name, "federated", seed]]
        row = lines[name] = line(name, rows, federated)
        shown = ", ".join(f"{kind} {row[kind]['accuracy']:.3f}" for kind in kinds)
        print(f"{name}: {row['trained']:,} trained, {row['bytes'] / 1e6:.2f} MB; {shown}")
    done = [task for tasks in runs.values() for task in tasks]
    records = [record for task in done for record in journal.records(task.folder)]
    minutes = sum(sum(record["seconds"].values()) for record in records) / WORKERS / 60
    items = len(scores(done[:1]))
    made = {"test_items": items, "seeds": asked.seeds, "rates": rates, "workers": WORKERS}
    print(keep("adapters", {**made, "minutes": minutes, "ways": lines}))


if __name__ == "__main__":
    main()
