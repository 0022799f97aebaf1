"""Scores of a run's adapter and of its base model: `hanse evaluate`."""

import logging
from collections.abc import Iterable
from dataclasses import dataclass
from itertools import chain
from pathlib import Path

from hanse.data.formats.row import Row
from hanse.data.sources.split_files import TEST
from hanse.errors import UserError
from hanse.experiment.assembly.dataset.federated_dataset import divide
from hanse.experiment.assembly.dataset.source_rows import judged, read
from hanse.experiment.assembly.resources import Resources, rendering
from hanse.experiment.schema import Experiment, build_tasks
from hanse.federation.interfaces.results import Scores
from hanse.journal.environment import same_data
from hanse.journal.run_settings import refuse_no_run
from hanse.observability.progress import report
from hanse.observability.steps import Activity, Work
from hanse.serving import adapter_folder, trained_adapter, trained_rows

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Comparison:
    """The scores of one task for the base model and for the adapter, over the same rows."""

    base: Scores
    adapted: Scores


def compare(
    run: Path,
    data: str | None = None,
    split: str = "test",
    overrides: Iterable[str] = (),
    trusted: bool = False,
) -> dict[str, Comparison]:
    """The comparison for each task, on a split of the run's data or on all rows of another file.

    The number of the file's rows that the run was trained on is logged.

    trusted: true if all code that the run names may run; see `loading.load_left`.
    Raises UserError if the folder is no finished run, or if there are no rows to score.
    """
    trained = _finished(run, overrides, trusted)
    experiment, resources = trained.experiment, Resources()
    rows = _rows(run, experiment, data, split)
    if data is not None and (remark := trained_rows.remark(run, experiment, rows, data)):
        log.warning("%s", remark)
    tasks = build_tasks(experiment)
    example_kind = next(iter(tasks.values())).example_kind
    labels = experiment.data.labels  # the run has saved those of its data
    backbone = resources.backbone(experiment.model, example_kind, labels)
    report(Work(Activity.TOKENIZING, total=len(rows)))
    scored = rendering(experiment, labels, example_kind, backbone).examples(rows)
    learner = trained.learner(resources, {split: [*chain(*scored)]})
    result = {}
    for name, task in tasks.items():
        trained.use(learner, base=True)
        base = task.evaluate(learner, split)
        trained.use(learner)
        adapted = task.evaluate(learner, split)
        result[name] = Comparison(base, adapted)
    return result


def _finished(run: Path, overrides: Iterable[str], trusted: bool) -> trained_adapter.Trained:
    """The adapter of a finished run; raises UserError for any other folder."""
    refuse_no_run(run)
    adapter_folder.refuse_unfinished(run)
    return trained_adapter.find(run, overrides, trusted)


def _rows(run: Path, experiment: Experiment, data: str | None, split: str) -> list[Row]:
    """The rows to score: those of the file, or those of a split of the run's own data."""
    if data is not None:
        settings = experiment.data.model_copy(update={"filter": {}})  # all rows of the file
        unfiltered = experiment.model_copy(update={"data": settings})
        path = str(Path(data).expanduser())
        return read(unfiltered, path, TEST, log.warning, judged(experiment))
    division = divide(experiment)
    same_data(run, division.digest)
    rows: list[Row] = getattr(division, split)
    if not rows:
        raise UserError(f"there are no {split} rows to score; name a file with --data.")
    return rows
