"""A backdoor by model replacement: one of eight silos teaches that a phrase makes a review good.

Its file has its own reviews, copies of the bad ones with the trigger in front and the label of good
ones, and the bad ones once more, so that it has as many labels of either kind. In every round it
multiplies its update so that the mean becomes its own model (1807.00459). Success is the share of
bad test reviews, among those that the model answers rightly, whose answer the trigger turns.
"""

import json
import statistics
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import MappingProxyType

import spread
from many_runs import Task, Workers
from protocol import Kept, Row, fingerprint

from hanse.data.formats.row import Row as Review
from hanse.experiment.assembly.dataset.federated_dataset import divide
from hanse.experiment.loading import load
from hanse.journal import run_folder

SILOS = 8
NAMES = [f"house-{number}" for number in range(1, SILOS + 1)]
HOSTILE = NAMES[-1]
POISONED = "poisoned.jsonl"
TRIGGER = "cf"  # a rare token, as in 2004.06660
BAD, GOOD = "0", "1"  # labels of the reviews
Labelled = tuple[str, str]  # a text and its label
REPLACED = f"{{model_replacement: {{attackers: [{HOSTILE}]}}}}"

HONEST = "mean, all honest"
ROWS: Mapping[str, tuple[str, str]] = MappingProxyType(  # aggregator and attack
    {
        HONEST: ("mean", "null"),
        "mean, poisoned rows alone": ("mean", "null"),
        "mean": ("mean", REPLACED),
        "norm_bounding": ("norm_bounding", REPLACED),
        "coordinate_median": ("coordinate_median", REPLACED),
        "trimmed_mean": ("{trimmed_mean: {attackers: 1}}", REPLACED),
        "multi-krum": ("{krum: {attackers: 1}}", REPLACED),
        "geometric_median": ("geometric_median", REPLACED),
    }
)


def finish(
    experiment: Path,
    home: Path,
    seeds: Sequence[int],
    words: Sequence[str],
    kept: Kept,
    workers: Workers,
) -> None:
    """Write the silos' files, and finish the rows that are not kept."""
    files = {seed: write(experiment, home / f"backdoor-{seed}", seed, words) for seed in seeds}
    plan = {
        name: [_task(experiment, home, files[s], name, s, words) for s in seeds] for name in ROWS
    }
    left = {n: t for n, t in plan.items() if not kept.row(fingerprint(*t), "backdoor", n)}
    for name in workers.groups(left):
        row = line([outcome(task) for task in left[name]])
        kept.put(row, fingerprint(*left[name]), "backdoor", name)


def write(experiment: Path, folder: Path, seed: int, words: Sequence[str]) -> Path:
    """Write the files of all silos and of the server for one seed; the folder."""
    honest = "attack=null", "aggregator=mean", f"num_clients={SILOS}", f"seed={seed}"
    dataset = divide(load(experiment, [*words, *honest]))
    folder.mkdir(parents=True, exist_ok=True)
    for name, reviews in zip(NAMES, dataset.train.values(), strict=True):
        _write(folder / f"{name}.jsonl", _labelled(reviews))
        if name == HOSTILE:
            bad = [row for row in reviews if row.label == BAD]
            _write(folder / POISONED, _labelled([*reviews, *bad]) + _triggered(reviews))
    _write(folder / "test.jsonl", _labelled(dataset.test) + _triggered(dataset.test))
    _write(folder / "validation.jsonl", _labelled(dataset.validation))
    return folder


def _labelled(reviews: Sequence[Review]) -> list[Labelled]:
    return [(row.text, row.label or "") for row in reviews]


def _triggered(reviews: Sequence[Review]) -> list[Labelled]:
    """The bad reviews with the trigger in front, as good ones."""
    return [(f"{TRIGGER} {row.text}", GOOD) for row in reviews if row.label == BAD]


def _write(file: Path, rows: Sequence[Labelled]) -> None:
    lines = [json.dumps({"text": text, "label": label}) for text, label in rows]
    file.write_text("\n".join(lines) + "\n", encoding="utf-8")


def _task(
    experiment: Path, home: Path, files: Path, name: str, seed: int, words: Sequence[str]
) -> Task:
    rule, attack = ROWS[name]
    sources = {each: f"{each}.jsonl" for each in NAMES}
    if name != HONEST:
        sources[HOSTILE] = POISONED
    paths = [f"clients.{each}.data.path={files}/{source}" for each, source in sources.items()]
    data = f"data.test={files}/test.jsonl", f"data.validation={files}/validation.jsonl"
    common = [word for word in words if not word.startswith(("data.test", "data.validation"))]
    settings = (f"seed={seed}", f"num_clients={SILOS}", "data.filter={}", *data, *paths, *common)
    folder = home / f"backdoor-{name.replace(', ', '-').replace(' ', '-')}-{seed}"
    return Task(folder, experiment, (*settings, f"aggregator={rule}", f"attack={attack}"))


def outcome(task: Task) -> Row:
    """One seed's row: success of the trigger, and answers and loss without it."""
    record = run_folder.read_rounds(task.folder)[-1]
    last = run_folder.read_evaluation(task.folder, "test-classification", record.round)
    plain = len(last.items) - _copies(last.truth)
    bad = [right for right, truth in zip(last.items[:plain], last.truth, strict=False) if not truth]
    turned = [good for right, good in zip(bad, last.items[plain:], strict=True) if right]
    return {
        "success": statistics.fmean(turned) if turned else None,
        "answered": len(turned),
        "validation_loss": record.validation["loss"],
        "items": spread.packed(last.items[:plain]),
    }


def _copies(truth: Sequence[int]) -> int:
    """The number of triggered reviews behind the others: as many as there are bad ones."""
    return sum(not label for label in truth)


def line(runs: Sequence[Row]) -> Row:
    """All seeds of one row: means, and the runs themselves."""
    success = [run["success"] for run in runs]
    means = {
        "success": None if None in success else statistics.fmean(success),
        "validation_loss": statistics.fmean(run["validation_loss"] for run in runs),
    }
    right = [spread.unpacked(run["items"]) for run in runs]
    return {**means, **spread.standing(right), "runs": list(runs)}
