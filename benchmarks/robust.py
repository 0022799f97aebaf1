"""Which rule bears which attackers? Every rule against every attack on experiments/poison.yaml.

Two of eleven silos are hostile, with three seeds; the attackers know the honest silos' updates. The
loss of the test reviews stands beside that of the plain mean without attackers. ALIE and min-max
move against the honest mean, since their plain shifts cancel in a head of two outputs.

Rules that leave out whole silos are then tried on silos as unlike as Dirichlet 0.1 makes them,
without attackers: whom they leave out is honest. `backdoor.py` is the third part: one of eight
silos replaces the model by one that answers to a trigger.

The base model, and all reviews in one place with as many updates, stand beside them. Whatever is
finished stands in benchmarks/results/robust.json and is not done again; all of it takes two cores
about 20 minutes.
"""

import math
import statistics
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType

import backdoor
import protocol
import spread
from many_runs import Task, Workers
from measured import ROOT
from protocol import UNTRAINED, Kept, Row, file_name, fingerprint, pooled

from hanse.journal import run_folder

EXPERIMENT = ROOT / "experiments" / "poison.yaml"
RUNS = ROOT / "runs" / "benchmark-robust"
SILOS, HOSTILE = 11, 2
CLEAN, BASE, POOLED = "none", "base", "centralised"
UNLIKE = "data.partition={dirichlet: {alpha: 0.1}}"
SHORT = ("rounds=2", "train.max_steps=2", "data.test=200", "data.validation=100")
BORNE = 1.10  # times the loss of the mean without attackers

RULES: Mapping[str, str] = MappingProxyType(
    {
        "mean": "mean",
        "coordinate_median": "coordinate_median",
        "trimmed_mean": f"{{trimmed_mean: {{attackers: {HOSTILE}}}}}",
        "krum": f"{{krum: {{attackers: {HOSTILE}, keep: 1}}}}",
        "multi-krum": f"{{krum: {{attackers: {HOSTILE}}}}}",
        "bulyan": f"{{bulyan: {{attackers: {HOSTILE}}}}}",
        "geometric_median": "geometric_median",
        "centred_clipping": "centred_clipping",
        "norm_bounding": "norm_bounding",
        "fltrust": "{fltrust: {root: silo-01}}",
    }
)
ATTACKS: Mapping[str, str] = MappingProxyType(
    {
        CLEAN: "null",
        "sign flip ×10": f"{{sign_flip: {{attackers: {HOSTILE}, factor: 10}}}}",
        "Gaussian ×10": f"{{gaussian: {{attackers: {HOSTILE}, factor: 10}}}}",
        "Gaussian ×100": f"{{gaussian: {{attackers: {HOSTILE}, factor: 100}}}}",
        "ALIE z = 1.5": f"{{alie: {{attackers: {HOSTILE}, z: 1.5, direction: against}}}}",
        "IPM ε = 2": f"{{ipm: {{attackers: {HOSTILE}, epsilon: 2}}}}",
        "min-max": f"{{min_max: {{attackers: {HOSTILE}, direction: mean}}}}",
    }
)
PARTS = {"attacks": [*RULES], "unlike": ["unlike"], "backdoor": ["backdoor"]}


@dataclass(frozen=True)
class Runs:
    """The runs of the comparison, in one folder; words: settings that are changed in all."""

    home: Path
    words: tuple[str, ...] = ()

    def attacked(self, rule: str, attack: str, seed: int) -> Task:
        """A rule against an attack."""
        words = f"aggregator={RULES[rule]}", f"attack={ATTACKS[attack]}"
        return self._task(f"{rule}-{_plain(attack)}-{seed}", seed, *words)

    def unlike(self, rule: str, seed: int) -> Task:
        """A rule without attackers, among silos that are unlike each other."""
        words = f"aggregator={RULES[rule]}", "attack=null", UNLIKE
        return self._task(f"unlike-{rule}-{seed}", seed, *words)

    def beside(self, name: str, seed: int) -> Task:
        """The base model, or all reviews in one place."""
        words = pooled(SILOS) if name == POOLED else ()
        last = UNTRAINED if name == BASE else ()
        return self._task(
            f"{name}-{seed}", seed, "aggregator=mean", "attack=null", *words, last=last
        )

    def _task(self, folder: str, seed: int, *words: str, last: tuple[str, ...] = ()) -> Task:
        return Task(self.home / folder, EXPERIMENT, (f"seed={seed}", *words, *self.words, *last))


def _plain(attack: str) -> str:
    """The name of an attack as a part of a folder's name."""
    return file_name(attack).replace("×", "x").replace("ε-=-", "").replace("z-=-", "")


def outcome(task: Task) -> Row:
    """One seed's row: the loss, right and wrong answers, and who was left out in which rounds."""
    if not task.finished:
        return {"loss": None, "items": "", "excluded": {}, "rounds": 0}
    records = [record for record in run_folder.read_rounds(task.folder) if record.round]
    last = run_folder.read_evaluation(task.folder, "test-classification", records[-1].round)
    return {
        "loss": last.metrics["loss"],
        "items": spread.packed(protocol.items(task)),
        "excluded": dict(Counter(name for record in records for name in record.excluded)),
        "rounds": len(records),
    }


def line(tasks: Sequence[Task]) -> Row:
    """All seeds of one cell; without a loss if one of them diverged."""
    runs = [outcome(task) for task in tasks]
    losses = [math.inf if run["loss"] is None else run["loss"] for run in runs]
    diverged = math.inf in losses
    right = [] if diverged else [spread.unpacked(run["items"]) for run in runs]
    rounds = sum(run["rounds"] for run in runs)
    excluded = sum(sum(run["excluded"].values()) for run in runs)
    most = max((n / run["rounds"] for run in runs for n in run["excluded"].values()), default=0.0)
    return {
        "loss": None if diverged else statistics.fmean(losses),
        "excluded_share": excluded / (rounds * SILOS) if rounds else None,
        "excluded_most": most,
        **({} if diverged else spread.standing(right)),
        "runs": runs,
    }


@dataclass
class Comparison:
    """The comparison as far as it is."""

    runs: Runs
    seeds: Sequence[int]
    kept: Kept
    workers: Workers

    def attacks(self, rules: Sequence[str]) -> None:
        """Finish the base, the centralised row, and the rows of these rules."""
        plan: dict[tuple[str, ...], list[Task]] = {
            ("beside", name): [self.runs.beside(name, seed) for seed in self.seeds]
            for name in (BASE, POOLED)
        }
        for rule in dict.fromkeys(["mean", *rules]):
            for attack in ATTACKS:
                tasks = [self.runs.attacked(rule, attack, seed) for seed in self.seeds]
                plan["attacks", rule, attack] = tasks
        self._finish(plan)

    def unlike(self) -> None:
        """Finish the rows of all rules among unlike silos."""
        self._finish({("unlike", n): [self.runs.unlike(n, s) for s in self.seeds] for n in RULES})

    def _finish(self, plan: Mapping[tuple[str, ...], Sequence[Task]]) -> None:
        """Finish the rows of a plan, and keep each as soon as its runs are done."""
        left = {key: t for key, t in plan.items() if not self.kept.row(fingerprint(*t), *key)}
        for key in self.workers.groups(left):
            self.kept.put(line(left[key]), fingerprint(*left[key]), *key)


def compare(names: Sequence[str], asked: protocol.Asked) -> Row:
    """Finish what is asked for; the content of the result file."""
    seeds, words = asked.short[0], (*asked.words, *(SHORT if asked.brief else ()))
    kept = Kept("robust", {"seeds": list(seeds), "silos": SILOS, "hostile": HOSTILE})
    home = asked.home(RUNS)
    with Workers() as workers:
        comparison = Comparison(Runs(home, words), seeds, kept, workers)
        if rules := [name for name in names if name in RULES]:
            comparison.attacks(rules)
        if "unlike" in names:
            comparison.unlike()
        if "backdoor" in names:
            backdoor.finish(EXPERIMENT, home, seeds, words, kept, workers)
    return kept.content


def ratios(content: Row, rule: str) -> dict[str, float]:
    """By attack, the rule's loss over that of the mean without attackers, a mean over seeds."""
    clean = [run["loss"] for run in content["attacks"]["mean"][CLEAN]["runs"]]
    result = {}
    for attack, row in content["attacks"].get(rule, {}).items():
        losses = [run["loss"] for run in row["runs"]]
        over = [math.inf if a is None else a / b for a, b in zip(losses, clean, strict=True)]
        result[attack] = statistics.fmean(over)
    return result


def main() -> None:
    """Make what is asked for, and print a line for each rule."""
    asked = protocol.asked(__doc__)
    content = compare(protocol.wanted(PARTS, asked.only), asked)
    for rule in content.get("attacks", {}):
        over = ratios(content, rule)
        print(f"{rule}: " + ", ".join(f"{attack} {value:.2f}" for attack, value in over.items()))
        if rule == "mean":
            fails = sum(value > BORNE for attack, value in over.items() if attack != CLEAN)
            print(f"gate: the plain mean fails in {fails} of {len(ATTACKS) - 1}, at least 4")
    for name, row in content.get("backdoor", {}).items():
        turned = "none is right" if row["success"] is None else f"{row['success']:.1%} turned"
        print(f"backdoor, {name}: of bad reviews that are answered rightly, {turned}")


if __name__ == "__main__":
    main()
