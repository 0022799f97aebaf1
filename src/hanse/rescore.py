"""Score a run's adapter again beside its base model: `hanse evaluate`."""

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import torch

from hanse import loading
from hanse.assembly import Machine, adapter_folder, examples
from hanse.data import corpora
from hanse.division import divide
from hanse.errors import UserError
from hanse.evaluation.intervals import Interval, paired
from hanse.experiment import build_tasks
from hanse.learners import adapters
from hanse.machine import same_data
from hanse.randomness import Moment
from hanse.values import Scores


@dataclass(frozen=True)
class Comparison:
    """One task's scores of the base model and of the adapter, over the same rows."""

    base: Scores
    adapted: Scores
    difference: Interval | None  # of the per-item scores, adapted − base; None for a single row


def compare(
    run: Path, data: str | None = None, split: str = "test", overrides: Iterable[str] = ()
) -> dict[str, Comparison]:
    """Each task's comparison on a split of the run's own data, or on all rows of another file.

    Raises UserError if the folder is no finished run, or if there is nothing to score.
    """
    if not (run / "experiment.yaml").is_file():
        raise UserError(f"{run} is no run folder: it has no experiment.yaml.")
    if not (run / "adapter" / adapters.WEIGHTS).is_file():
        raise UserError(
            f"{run} has no finished adapter; run `hanse resume {run}` first, or name another run."
        )
    experiment = loading.load(run / "experiment.yaml", overrides)
    if data is None:
        division = divide(experiment)
        same_data(run, division.digest)
        rows = getattr(division, split)
    else:  # the run's own data are not needed, and may not be here
        rows = corpora.load(str(Path(data).expanduser()), columns=experiment.data.columns)
    labels = experiment.data.labels  # the run has written down those that it found
    machine = Machine()
    backbone = machine.backbone(experiment.model)
    tasks = build_tasks(experiment)
    needs = next(iter(tasks.values())).needs
    scored = {"scored": examples(experiment, rows, labels, needs, backbone)}
    if not scored["scored"]:
        raise UserError(f"there are no {split} rows to score; name a file with --data.")
    learner = machine.learner(experiment, scored, Moment(experiment.seed), {})
    _, tensors = adapters.read(adapter_folder(str(run)))
    result = {}
    for name, task in tasks.items():
        learner.load({key: torch.zeros_like(value) for key, value in tensors.items()})
        base = task.evaluate(learner, "scored")
        learner.load(tensors)
        adapted = task.evaluate(learner, "scored")
        result[name] = Comparison(base, adapted, paired(adapted.items, base.items))
    return result
