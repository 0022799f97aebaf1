"""Is a planned federation faster, and better? Four simulated devices on experiments/planned.yaml.

The time of a comparison is what uniform adapters of rank 8 take for the experiment's rounds on the
simulated devices, where every round waits for the slowest silo. All others stop before that time is
over: the largest uniform adapters that all memories hold, the plan of `hanse plan` whose rounds may
take half as long, and FedAdapter. Beside them stand the base model, and all reviews in one place
with as many updates as the uniform run. Accuracy is that of the test reviews at the end; the time
to a given accuracy is that until the validation reviews are scored as high as by the uniform run
in the end.

LoRA's learning rate and FedAdapter's are chosen as rates.py says. Whatever is finished stands in
benchmarks/results/planned.json and is not done again, nor are devices measured again; a plan is
kept in the folder of the runs.
"""

import json
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import accumulate
from pathlib import Path

import protocol
import rows
import spread
from many_runs import WORKERS, Task, Workers
from measured import ROOT
from protocol import UNTRAINED, Kept, Row, file_name, pooled
from rates import Family, Rates

from hanse.experiment.assembly.assemble import simulate
from hanse.experiment.loading import load
from hanse.journal import run_folder
from hanse.planning.fedpipe import plan as planning
from hanse.planning.fedpipe import plan_page
from hanse.planning.fedpipe.choices import RUNTIME, TRAINED
from hanse.planning.fedpipe.cost_model import StepSetting
from hanse.planning.fedpipe.planned import Bounds, Plan
from hanse.planning.fedpipe.precisions import model_bytes
from hanse.simulation.client_devices import decided

EXPERIMENT = ROOT / "experiments" / "planned.yaml"
RUNS = ROOT / "runs" / "benchmark-planned"
DEVICES = "devices.json"  # in the folder of the runs
BASE, POOLED, UNIFORM, HELD = "base", "centralised", "uniform", "largest that all hold"
PLANNED, GROWING = "planned", "fedadapter"
NAMES = (BASE, POOLED, UNIFORM, HELD, PLANNED, GROWING)
SHARE = 0.5  # of the uniform round, which the planned one may take
GROWTH = "algorithm={fedadapter: {depth: 1, width: 2, wider: 2, budget: 0.4}}"
LORA = "LoRA"
FAMILIES = {LORA: Family(1e-3, (UNIFORM,)), GROWING: Family(1e-3, (GROWING,))}
FAMILY_OF = {UNIFORM: LORA, GROWING: GROWING}
UNSEEN = ("evaluation.test=false",)
UNSCORED = (*UNSEEN, "evaluation.validate_every=0")
ONE = ("rounds=1",)
PRECISION = ("model.bf16=true", "model.products=torch")  # seconds of devices depend on it
SHORT = ("rounds=3", "train.max_steps=2", "data.test=40", "data.validation=40")


@dataclass(frozen=True)
class Runs:
    """The runs of the comparison, in one folder; words: settings that are changed in all."""

    home: Path
    words: tuple[str, ...] = ()

    @property
    def devices(self) -> str:
        """The setting that gives all runs the same devices."""
        return f"devices={(self.home / DEVICES).read_text()}"

    def measured(self, before: Row | None) -> Row:
        """The devices of all runs: as they were measured before, or are now, on this machine."""
        if not (self.home / DEVICES).exists():
            if before is None:
                known = decided(simulate(load(EXPERIMENT, self.words))).experiment.devices
                before = {name: own.model_dump() for name, own in known.items()}
            self.home.mkdir(parents=True, exist_ok=True)
            (self.home / DEVICES).write_text(json.dumps(before))
        devices: Row = json.loads((self.home / DEVICES).read_text())
        return devices

    def plan(self, seed: int, seconds: float) -> Path:
        """The planned experiment of a seed, made once; seconds: the most that a round may take."""
        file = self.home / f"plan-{seed}.yaml"
        if not file.exists():
            words = f"seed={seed}", self.devices, *self.words
            made = planning.plan(load(EXPERIMENT, words), Bounds(seconds))
            text = json.dumps({"held": _held(made), "silos": _told(made), **_evidence(made)})
            file.with_suffix(".json").write_text(text)
            plan_page.write(file, EXPERIMENT, made, anew=True)
        return file

    def told(self, seed: int) -> Row:
        """What the plan of a seed says."""
        told: Row = json.loads((self.home / f"plan-{seed}.json").read_text())
        return told

    def tuning(self, name: str, rate: float, seed: int) -> Task:
        """A run that a learning rate is judged by, without devices; it looks at no test review."""
        words = f"train.learning_rate={rate}", *self._ways(name, seed), *UNSCORED
        if name == GROWING:  # its trials are decided by validation reviews
            words = tuple(word for word in words if "validate_every" not in word)
        return self._task(f"tuning-{file_name(name)}-{rate:g}-{seed}", seed, *words, "clients={}")

    def untrained(self, seed: int) -> Task:
        """The model before any training, on validation reviews."""
        words = *UNTRAINED, *UNSCORED, "clients={}"
        return self._task(f"tuning-base-{seed}", seed, *words)

    def scout(self, name: str, seed: int, rate: float, rounds: int) -> Task:
        """A run for its simulated seconds alone."""
        scored = UNSEEN if name == GROWING else UNSCORED
        return self.compared(name, seed, rate, rounds, f"scout-{rounds}", *scored)

    def compared(
        self, name: str, seed: int, rate: float, rounds: int, kind: str = "run", *words: str
    ) -> Task:
        """The run of one row with one seed."""
        own = f"train.learning_rate={rate}", f"rounds={rounds}", *self._ways(name, seed)
        plain = ("clients={}",) if name in (BASE, POOLED) else (self.devices,)
        last = UNTRAINED if name == BASE else ()
        file = self.home / f"plan-{seed}.yaml" if name == PLANNED else EXPERIMENT
        task = self._task(f"{kind}-{file_name(name)}-{seed}", seed, *own, *plain, *words, *last)
        return Task(task.folder, file, task.settings)

    def _ways(self, name: str, seed: int) -> tuple[str, ...]:
        """The settings by which a row differs."""
        if name == POOLED:
            return pooled(4)
        if name == GROWING:
            return (GROWTH,)
        return tuple(self.told(seed)["held"]) if name == HELD else ()

    def _task(self, folder: str, seed: int, *words: str) -> Task:
        return Task(self.home / folder, EXPERIMENT, (f"seed={seed}", *self.words, *words))


def _held(plan: Plan) -> list[str]:
    """The settings of the largest rank, with the largest batch, that every silo's memory holds."""
    at_rest = RUNTIME + model_bytes(simulate(plan.experiment).learner)
    size = sum(matrix.size for matrix in plan.matrices)
    layers, rows = max(matrix.depth for matrix in plan.matrices), plan.silos[0].silo.train.batch
    for rank in (rank for rank in (8, 4, 2, 1) if rank <= plan.rank):
        for batch in (batch for batch in (16, 8, 4, 2, 1) if rows % batch == 0):
            bytes_of = [
                at_rest
                + plan.steps.bytes(StepSetting(batch, own.silo.longest, rank, layers))
                + TRAINED * rank * size
                for own in plan.silos
            ]
            bounds = [own.silo.machine.memory for own in plan.silos]
            if all(own <= bound for own, bound in zip(bytes_of, bounds, strict=True)):
                return [
                    f"adapter.lora.r={rank}",
                    f"train.per_device_train_batch_size={batch}",
                    f"train.gradient_accumulation_steps={rows // batch}",
                ]
    raise SystemExit("no uniform adapter fits into all memories; give the smallest one more")


def _told(plan: Plan) -> dict[str, Row]:
    """What the plan gives each silo."""
    return {
        own.silo.name: {
            "form": own.form.name,
            "matrices": len(own.ranks),
            "ranks": sum(own.ranks.values()),
            "seconds": own.seconds,
            "memory": own.memory,
            "bytes": own.bytes,
        }
        for own in plan.silos
    }


def _evidence(plan: Plan) -> Row:
    """What the plan says of itself."""
    return {
        "matrices": len(plan.matrices),
        "agreement": plan.importance.agreement,
        "error": plan.steps.cost.error,
        "solver": plan.solver,
    }


def clock(task: Task) -> list[float]:
    """The simulated seconds from the beginning to the end of each round's training."""
    records = (record for record in run_folder.read_rounds(task.folder) if record.round)
    return [*accumulate(record.simulated_seconds["train"] for record in records)]


def rounds_within(
    name: str, seed: int, rate: float, limit: float, runs: Runs, some: Workers
) -> int:
    """The rounds of a row that end within some simulated seconds; at least one."""
    first = runs.scout(name, seed, rate, 1)
    some.finish([first])
    most = max(1, int(limit / clock(first)[0] + 1e-6))
    if name != GROWING or most == 1:  # its rounds grow with it
        return most
    whole = runs.scout(name, seed, rate, most)
    some.finish([whole])
    return max(1, sum(end <= limit * (1 + 1e-6) for end in clock(whole)))


def outcome(task: Task) -> Row:
    """One seed's row: test reviews, and what validation reviews say of every round."""
    records = [record for record in run_folder.read_rounds(task.folder) if record.round]
    simulated = bool(records[0].simulated_seconds)
    return {
        "items": spread.packed(protocol.items(task)),
        "rounds": len(records),
        "seconds": clock(task) if simulated else None,
        "validation": [record.validation["accuracy"] for record in records],
    }


def line(name: str, tasks: Sequence[Task]) -> Row:
    """All seeds of one row: means, and the runs themselves."""
    runs = [outcome(task) for task in tasks]
    return {
        **spread.standing([spread.unpacked(run["items"]) for run in runs]),
        "rounds": statistics.fmean(run["rounds"] for run in runs),
        "runs": runs,
    }


def beside(lines: Mapping[str, Row]) -> None:
    """Note in each row how far it is ahead of the uniform run, and when it is as good as that."""
    plain = lines.get(UNIFORM, {}).get("runs")
    for name, row in lines.items():
        if not plain or "runs" not in row:
            continue
        if name != UNIFORM:
            row |= spread.ahead_of(row["runs"], plain)
        pairs = zip(row["runs"], plain, strict=True)
        row["until"] = [_until(own, other) for own, other in pairs]


def _until(own: Row, plain: Row) -> float | None:
    """The share of the uniform run's time until validation is as good as that run's in the end."""
    ends = zip(own["seconds"] or [], own["validation"], strict=False)
    bound = plain["validation"][-1]
    first = next((end for end, accuracy in ends if accuracy >= bound), None)
    return None if first is None else first / plain["seconds"][-1]


def compare(
    names: Sequence[str],
    runs: Runs,
    seeds: Sequence[int] = protocol.SEEDS,
    deals: Sequence[int] = protocol.DEALS,
    workers: int = WORKERS,
) -> Row:
    """Finish these rows; the content of the result file."""
    kept = Kept("planned", {"seeds": list(seeds), "deals": list(deals), "share": SHARE})
    kept.content["devices"] = runs.measured(kept.content.get("devices"))
    usual = load(EXPERIMENT, runs.words).rounds
    with Workers(workers) as some:
        rates = Rates(FAMILIES, FAMILY_OF, runs.tuning, runs.untrained, deals, kept, some)
        judged = [UNIFORM, *(name for name in names if name == GROWING)]
        chosen = {name: row["rate"] for name, row in rates.validated(judged).items()}
        some.finish([runs.scout(UNIFORM, seed, chosen[UNIFORM], 1) for seed in seeds])
        limits = {}
        for seed in seeds:
            round_seconds = clock(runs.scout(UNIFORM, seed, chosen[UNIFORM], 1))[0]
            limits[seed] = usual * round_seconds
            runs.plan(seed, SHARE * round_seconds)
        plans = {str(seed): {"limit": limits[seed], **runs.told(seed)} for seed in seeds}
        kept.content["plans"] = plans
        plan = {}
        for name in dict.fromkeys((UNIFORM, *names)):
            rate = chosen.get(name, chosen[UNIFORM])
            fixed = {BASE: 1, POOLED: usual, UNIFORM: usual}.get(name)
            within = partial(rounds_within, name, rate=rate, runs=runs, some=some)
            counts = [fixed or within(seed, limit=limits[seed]) for seed in seeds]
            pairs = zip(seeds, counts, strict=True)
            plan[name] = [runs.compared(name, seed, rate, count) for seed, count in pairs]
        rows.finish(plan, kept, some, line, beside, NAMES)
    return kept.content


def main() -> None:
    """Make what is asked for, and print a line for each row."""
    asked = protocol.asked(__doc__)
    names = protocol.wanted({name: [name] for name in NAMES}, asked.only)
    words = *PRECISION, *asked.words, *(SHORT if asked.brief else ())
    runs = Runs(asked.home(RUNS), words)
    content = compare(names, runs, *asked.short)
    for name, row in content["rows"].items():
        if "runs" in row:
            print(f"{name}: accuracy {row['accuracy']:.3f}, {row['rounds']:.1f} rounds")


if __name__ == "__main__":
    main()
