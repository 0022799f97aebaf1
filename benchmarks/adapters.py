"""How little need be trained and sent? Every adapter on experiments/adapters.yaml, three seeds.

Each is trained by the federation, by each silo alone, and on all reviews in one place. All have the
same rounds, and so the same resets of the optimizer, and as many updates between two of them; in
one place an update is on the batches of all silos. After that come all weights but those of the
first k layers, as FedNLP asked (Lin et al. 2022, 2104.08815). How learning rates are chosen, by the
federation's validation reviews, is said in rates.py. The base is the model before any training,
with the head that the seed draws.

Whatever is finished stands in benchmarks/results/adapters.json and is not done again. All of it
takes two cores nearly two hours, so it is made in parts, each within 40 minutes by the seconds that
a round took in earlier runs:

    --only light     about 25 minutes    --only bottlenecks   about 15 minutes
    --only words     about 30 minutes    --only weights       about 35 minutes

Every further rate that a search tries adds a minute, with `weights` two.
"""

import statistics
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import protocol
import spread
from many_runs import WORKERS, Task, Workers
from measured import ROOT
from protocol import UNTRAINED, Kept, Row, file_name, fingerprint, pooled
from rates import Family, Rates

from hanse.experiment.assembly.assemble import simulate
from hanse.experiment.assembly.resources import Resources
from hanse.experiment.loading import load
from hanse.journal import run_folder
from hanse.journal.round_costs import training_seconds

EXPERIMENT = ROOT / "experiments" / "adapters.yaml"
RUNS = ROOT / "runs" / "benchmark-adapters"
BASE = "lora"  # whose untrained model is the base; any adapter's is
SILOS = ("silo-1", "silo-2", "silo-3", "silo-4")
KINDS = ("alone", "federated", "centralised")

FAMILIES = {
    "low rank": Family(3e-3, ("lora",)),
    "scales": Family(3e-2, ("ia3",)),
    "biases": Family(3e-3, ("bitfit",)),
    "head": Family(3e-2, ("head",)),
    "bottlenecks": Family(3e-3, ("houlsby", "pfeiffer")),
    "vectors": Family(3e-2, ("prefix_tuning", "prompt_tuning")),
    "made vectors": Family(3e-3, ("p_tuning",)),
    "weights": Family(1e-4, ("full, embeddings frozen",)),
}


@dataclass(frozen=True)
class Way:
    """What is trained: the family, the setting `adapter`, and the kinds of training compared.

    frozen: how many of the encoder's parts, its embeddings and then its layers, do not move.
    """

    family: str
    adapter: str
    kinds: tuple[str, ...] = KINDS
    frozen: int | None = None


def _frozen(layers: int) -> Way:
    adapter = f"{{full: {{freeze_embeddings: true, freeze_layers: {layers}}}}}"
    return Way("weights", adapter, KINDS[1:], frozen=1 + layers)


PARTS = {
    "light": {
        "lora": Way("low rank", "{lora: {r: 8}}"),
        "ia3": Way("scales", "{ia3: {}}"),
        "bitfit": Way("biases", "{bitfit: {}}"),
        "head": Way("head", "{head: {}}", frozen=7),
    },
    "bottlenecks": {
        "houlsby": Way("bottlenecks", "{houlsby: {}}"),
        "pfeiffer": Way("bottlenecks", "{pfeiffer: {}}"),
    },
    "words": {
        "prefix_tuning": Way("vectors", "{prefix_tuning: {num_virtual_tokens: 20}}"),
        "prompt_tuning": Way("vectors", "{prompt_tuning: {num_virtual_tokens: 20}}"),
        "p_tuning": Way("made vectors", "{p_tuning: {num_virtual_tokens: 20}}"),
    },
    "weights": {
        "full, top 2 layers": Way("weights", "{full: {top_layers: 2}}"),
        "full": Way("weights", "{full: {}}", KINDS[1:], frozen=0),  # alone it would take too long
        "full, embeddings frozen": _frozen(0),
        **{f"full, {layers} layers frozen": _frozen(layers) for layers in (2, 4)},
    },
}
WAYS = {name: way for part in PARTS.values() for name, way in part.items()}


def settings(kind: str) -> Iterator[tuple[str, ...]]:
    """What is set for this kind of training, a run each; a federation is the experiment itself."""
    if kind == "federated":
        yield ()
    elif kind == "centralised":
        yield pooled(len(SILOS))
    else:
        for silo in SILOS:
            yield (f"participants=[{silo}]",)


@dataclass(frozen=True)
class Runs:
    """The runs of the comparison, in one folder; words: settings that are changed in all."""

    home: Path
    words: tuple[str, ...] = ()

    def tuning(self, name: str, rate: float, seed: int) -> Task:
        """A run that a learning rate is judged by; it looks at no test review."""
        words = (f"train.learning_rate={rate}", "evaluation.test=false")
        return self._task(name, f"tuning-{file_name(name)}-{rate:g}-{seed}", seed, *words)

    def untrained(self, seed: int) -> Task:
        """The model before any training, on the same reviews."""
        folder = f"tuning-base-{seed}"
        return self._task(BASE, folder, seed, "evaluation.test=false", last=UNTRAINED)

    def base(self, seed: int) -> Task:
        """The model before any training, on the test reviews."""
        return self._task(BASE, f"base-{seed}", seed, "data.validation=0", last=UNTRAINED)

    def compared(self, name: str, kind: str, seed: int, rate: float) -> list[Task]:
        """The runs of one kind with one seed: one for each silo where silos are alone."""
        # Rates are chosen, so validation reviews would be scored for nothing.
        own = (f"train.learning_rate={rate}", "data.validation=0")
        return [
            self._task(name, f"{file_name(name)}-{kind}-{seed}-{place}", seed, *own, *words)
            for place, words in enumerate(settings(kind))
        ]

    def _task(
        self, name: str, folder: str, seed: int, *words: str, last: tuple[str, ...] = ()
    ) -> Task:
        own = (f"adapter={WAYS[name].adapter}", f"seed={seed}", *words, *self.words, *last)
        return Task(self.home / folder, EXPERIMENT, own)


def scores(tasks: Sequence[Task]) -> list[float]:
    """Each test review's score, a mean over the runs."""
    found = [protocol.items(task) for task in tasks]
    return [statistics.fmean(same) for same in zip(*found, strict=True)]


def trained(name: str, words: Sequence[str]) -> tuple[int, float]:
    """How many parameters are trained, and what share that is of the model's own."""
    words = [f"adapter={WAYS[name].adapter}", "data.test=0", "data.validation=0", *words]
    learner = simulate(load(EXPERIMENT, words), _held).learner
    count = sum(parameter.numel() for parameter in learner.parameters().values())
    share = count / learner.backbone.weights
    _held.clear_adapters()
    return count, share


_held = Resources()


def line(name: str, runs: dict[str, list[list[Task]]], words: Sequence[str]) -> Row:
    """One way: its accuracy by kind, with intervals, and what it costs.

    runs: by kind, those of each seed.
    """
    count, share = trained(name, words)
    found: Row = {"family": WAYS[name].family, "trained": count, "share": share}
    found["frozen"] = WAYS[name].frozen
    rows = {kind: [scores(tasks) for tasks in by_seed] for kind, by_seed in runs.items()}
    for kind, by_seed in rows.items():
        found[kind] = spread.standing(by_seed)
        if kind != "federated":
            ahead = spread.ahead(by_seed, rows["federated"])
            found[kind]["ahead_of_federated"] = ahead["by_item"]
            found[kind]["ahead_by_seed"] = ahead["by_seed"]
    federated = [
        run_folder.read_rounds(task.folder) for tasks in runs["federated"] for task in tasks
    ]
    rounds = [record for records in federated for record in records if record.round]
    found["bytes"] = statistics.fmean(record.bytes.total for record in rounds)
    found["seconds"] = statistics.median(training_seconds(row.seconds) for row in rounds)
    return found


@dataclass
class Comparison:
    """The comparison as far as it is."""

    runs: Runs
    seeds: Sequence[int]
    rates: Rates
    kept: Kept
    workers: Workers

    def make(self, names: Sequence[str]) -> None:
        """Choose rates, then finish the base and the lines of these ways."""
        self._base()
        plan: dict[str, dict[str, list[list[Task]]]] = {}
        for name, row in self.rates.validated(names).items():
            if row["no_result"]:
                self._keep(name, {"no_result": row["no_result"]}, "")
                continue
            runs = {kind: self._each(name, kind, row["rate"]) for kind in WAYS[name].kinds}
            if self.kept.row(fingerprint(*flat(runs)), "ways", name) is None:
                plan[name] = runs
        for name in self.workers.groups({name: flat(runs) for name, runs in plan.items()}):
            self._conclude(name, plan[name])

    def _each(self, name: str, kind: str, rate: float) -> list[list[Task]]:
        return [self.runs.compared(name, kind, seed, rate) for seed in self.seeds]

    def _base(self) -> None:
        tasks = [self.runs.base(seed) for seed in self.seeds]
        made = fingerprint(*tasks)
        if self.kept.row(made, "base") is None:
            self.workers.finish(tasks)
            self.kept.put(spread.standing([scores([task]) for task in tasks]), made, "base")

    def _conclude(self, name: str, runs: dict[str, list[list[Task]]]) -> None:
        """Keep a line whose runs are done, or have diverged."""
        if all(task.finished for task in flat(runs)):
            self._keep(name, line(name, runs, self.runs.words), fingerprint(*flat(runs)))
        else:
            self._keep(name, {"no_result": "diverged on one of the deals"}, "")

    def _keep(self, name: str, row: Row, made: str) -> None:
        self.kept.put(row, made, "ways", name)
        lines = self.kept.content["ways"]
        self.kept.content["ways"] = {each: lines[each] for each in WAYS if each in lines}
        self.kept.write()


def flat(runs: dict[str, list[list[Task]]]) -> list[Task]:
    """All runs of a way."""
    return [task for by_seed in runs.values() for tasks in by_seed for task in tasks]


def compare(
    names: Sequence[str],
    runs: Runs,
    seeds: Sequence[int] = protocol.SEEDS,
    deals: Sequence[int] = protocol.DEALS,
    workers: int = WORKERS,
) -> Row:
    """Finish the lines of these ways; the content of the result file."""
    family_of = {name: way.family for name, way in WAYS.items()}
    kept = Kept("adapters", {"seeds": list(seeds), "deals": list(deals)})
    with Workers(workers) as some:
        rates = Rates(FAMILIES, family_of, runs.tuning, runs.untrained, deals, kept, some)
        Comparison(runs, seeds, rates, kept, some).make(names)
    return kept.content


def main() -> None:
    """Make what is asked for, and print a line for each way."""
    asked = protocol.asked(__doc__)
    names = protocol.wanted(PARTS, asked.only)
    content = compare(names, Runs(asked.home(RUNS), asked.words), *asked.short)
    print(f"base: {content['base']['accuracy']:.3f}")
    for name, row in content["ways"].items():
        shown = [f"{kind} {row[kind]['accuracy']:.3f}" for kind in KINDS if kind in row]
        print(f"{name}: {row.get('no_result') or ', '.join(shown)}")


if __name__ == "__main__":
    main()
