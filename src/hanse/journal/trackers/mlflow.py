"""MLflow: a tracking server, or `mlflow ui --backend-store-uri sqlite:///RUN/mlflow.db`."""

import os
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeVar

from hanse.journal.records import Metrics
from hanse.journal.tracking import Following, Tracked, Tracker

if TYPE_CHECKING:
    from mlflow import MlflowClient

URI = "MLFLOW_TRACKING_URI"
TAG = "hanse.id"
LONGEST = 6000  # characters of a parameter that MLflow keeps
BATCH = 100  # parameters or metrics that it takes at once

T = TypeVar("T")


@dataclass(frozen=True)
class MLflow(Tracker):
    """MLflow at $MLFLOW_TRACKING_URI; without that, in the run folder's mlflow.db."""

    experiment: str = "hanse"

    @property
    def packages(self) -> tuple[str, ...]:
        return ("mlflow",) if os.environ.get(URI) else ("mlflow", "sqlalchemy", "alembic")

    def open(self, run: Tracked) -> Following:
        from mlflow import MlflowClient

        os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "3")  # seven take four minutes
        own = f"sqlite:///{run.folder.resolve() / 'mlflow.db'}"
        client = MlflowClient(os.environ.get(URI) or own)
        known_experiment = client.get_experiment_by_name(self.experiment)
        home = (
            known_experiment.experiment_id
            if known_experiment
            else client.create_experiment(self.experiment)
        )
        known = client.search_runs([home], f"tags.`{TAG}` = '{run.id}'")
        if known:
            client.update_run(known[0].info.run_id, "RUNNING")
            return _Run(client, known[0].info.run_id)
        begun = client.create_run(home, run_name=run.name, tags={TAG: run.id})
        opened = _Run(client, begun.info.run_id)
        opened.note(run)
        return opened


@dataclass
class _Run(Following):
    client: "MlflowClient"
    id: str

    def __post_init__(self) -> None:
        history = self.client.get_metric_history(self.id, "tokens_per_second")  # of every round
        self.last = max((metric.step for metric in history), default=-1)

    def note(self, run: Tracked) -> None:
        """Show the run's settings."""
        from mlflow.entities import Param

        params = [
            Param(_allowed(name), str(value)[:LONGEST]) for name, value in run.settings.items()
        ]
        for batch in _batches(params):
            self.client.log_batch(self.id, params=batch)

    def log(self, round: int, metrics: Metrics, time: float) -> None:
        from mlflow.entities import Metric

        context = int(1000 * time)
        logged = [Metric(_allowed(name), value, context, round) for name, value in metrics.items()]
        for batch in _batches(logged):
            self.client.log_batch(self.id, metrics=batch)

    def close(self, finished: bool) -> None:
        self.client.set_terminated(self.id, "FINISHED" if finished else "KILLED")


def _allowed(name: str) -> str:
    """A name without the characters that MLflow refuses."""
    return re.sub(r"[^/\w.\- :]", "_", name)


def _batches(items: Sequence[T]) -> Iterator[Sequence[T]]:
    for start in range(0, len(items), BATCH):
        yield items[start : start + BATCH]
