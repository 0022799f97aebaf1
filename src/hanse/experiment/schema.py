"""Every choice of a run, as typed settings, and the parts that they name."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Annotated, Any, Literal

from pydantic import Field, field_validator, model_validator

from hanse.errors import UserError
from hanse.experiment import overrides
from hanse.experiment.adapter_choice import AnyAdapter, resolved_adapter
from hanse.experiment.part_kinds import (
    AGGREGATOR,
    ALGORITHM,
    NAMED,
    OBJECTIVE,
    PARTITIONER,
    TASK,
    TRACKER,
    PartKind,
    changed_at,
    spec_name,
)
from hanse.experiment.sections import Data, Deployment, Evaluation, SettingsModel, Spec
from hanse.experiment.validation import NAME, SettingError
from hanse.journal.yaml_text import Place
from hanse.lazy_imports import lazy_imports
from hanse.learners.adapters.lora import Lora
from hanse.learners.models.settings import BaseModelSettings
from hanse.learners.training.settings import TrainingSettings
from hanse.registry import suggestion

with lazy_imports():
    from hanse.data import partitioning
    from hanse.federation.interfaces import aggregator, algorithm, learner, task
    from hanse.journal import tracking

# By what an objective needs, the task that is measured if none is named.
MEASURED = {"tokens": "perplexity", "label_words": "classification", "tags": "tagging"}
POOLED = "pooled"  # the one client that holds all rows
ClientsPerPass = Annotated[int, Field(ge=1, le=65_536, strict=True)] | Literal["off", "auto"]
ClientName = Annotated[str, Field(pattern=NAME)]


class Experiment(SettingsModel):
    """One run. `clients.<name>` overrides model, adapter, data or train for one client.

    participants: only these clients take part; the rows are divided among all as ever.
    clients_per_pass: how many simulated clients train in one forward pass; auto: what is fastest
        here; off: each by itself, through PEFT's own layers. A run folder holds the chosen number.
    report_to: trackers that show the run; also one name alone, or none.
    """

    name: Annotated[str, Field(pattern=NAME)] = "run"
    seed: Annotated[int, Field(ge=0, lt=2**31)] = 0
    rounds: Annotated[int, Field(ge=1, le=1_000_000)] = 3
    num_clients: Annotated[int, Field(ge=1, le=1_000_000)] = 4
    fraction_train: Annotated[float, Field(gt=0, le=1)] = 1.0
    clients_per_pass: ClientsPerPass = "auto"  # noqa: S105 (no password)
    output_dir: str | None = None  # none: runs/<name>, numbered if it is taken
    model: BaseModelSettings = BaseModelSettings()
    adapter: AnyAdapter = AnyAdapter(lora=Lora())  # type: ignore[call-arg]
    data: Data = Data()
    objective: Spec = "sft"
    train: TrainingSettings = TrainingSettings()
    algorithm: Spec = "fedavg"
    aggregator: Spec = "mean"
    evaluation: Evaluation = Evaluation()
    deployment: Deployment = Deployment()
    clients: dict[ClientName, dict[str, Any]] = Field(default={})
    participants: Annotated[list[ClientName], Field(min_length=1)] | None = None
    report_to: list[Spec] = Field(default=[])

    @field_validator("clients_per_pass", mode="before")
    @classmethod
    def _written_without_quotes(cls, value: Any) -> Any:
        return "off" if value is False else value  # YAML reads off as false

    @field_validator("report_to", mode="before")
    @classmethod
    def _listed(cls, value: Any) -> Any:
        if value is None or value == "none":
            return []
        return [value] if isinstance(value, str | dict) else value

    @model_validator(mode="after")
    def _one_length_of_a_round(self) -> "Experiment":
        if self.train.max_steps is not None and self.train.num_train_epochs is not None:
            raise ValueError(
                "train has both max_steps and num_train_epochs; one of them measures a round: "
                "set the other to null."
            )
        return self

    @model_validator(mode="after")
    def _participants_are_clients(self) -> "Experiment":
        if self.participants is None:
            return self
        if self.data.pooled:
            raise ValueError(
                "participants and data.pooled exclude each other: who holds all rows is one."
            )
        known = self.client_names
        names = set(known)  # there may be a million
        for name in self.participants:
            if name not in names:
                raise ValueError(
                    f"participants: {name} is no client{suggestion(name, known)}; "
                    f"they are {known[0]} to {known[-1]}."
                )
        return self

    @property
    def participant_names(self) -> list[str]:
        """The names of those that train, in client order."""
        if self.data.pooled:
            return [POOLED]
        if self.participants is None:
            return self.client_names
        chosen = set(self.participants)
        return [name for name in self.client_names if name in chosen]

    @property
    def client_names(self) -> list[str]:
        """The names of those among whom the rows are divided, in client order."""
        return sorted(self.clients) if self.brings_own_data else self.default_names

    @property
    def default_names(self) -> list[str]:
        """The names of clients that nobody named."""
        width = len(str(self.num_clients))
        return [f"silo-{number:0{width}d}" for number in range(1, self.num_clients + 1)]

    @property
    def brings_own_data(self) -> bool:
        """Whether every client names its own file, so that nothing is partitioned."""
        own = [over.get("data") for over in self.clients.values()]
        paths = [isinstance(data, dict) and "path" in data for data in own]
        return bool(paths) and all(paths)

    def for_client(self, name: str) -> "Experiment":
        """The experiment as one client sees it."""
        over = self.clients.get(name)
        if not over:
            return self
        alone = self.model_copy(update={"clients": {}, "participants": None})
        return Experiment.model_validate(overrides.merge(alone.resolved(), over))

    def resolved(self) -> dict[str, Any]:
        """All settings as plain values, defaults written out."""
        values = self.model_dump(by_alias=True, mode="json")
        values["adapter"] = resolved_adapter(values["adapter"])
        for kind in NAMED:
            if kind is not TASK:  # of tasks a run keeps what the user has written
                values = changed_at(values, kind.place, kind.resolved)
        return values


def build_parts(experiment: Experiment) -> None:
    """Build every part that is named, to check it; raises SettingError for the first wrong one.

    All names are checked before the first part is imported.
    """
    for kind in NAMED:
        with _at(kind.place):
            for spec in kind.specs(experiment):
                kind.check_name(spec)
    for kind in NAMED:
        with _at(kind.place):
            _build_all(kind, kind.specs(experiment))
    with _at(TASK.place):
        build_tasks(experiment)


@contextmanager
def _at(place: Place) -> Iterator[None]:
    """Say of a mistake at which place of an experiment it is."""
    try:
        yield
    except UserError as error:
        raise SettingError(str(error), place) from None


def build_algorithm(experiment: Experiment) -> "algorithm.Algorithm":
    """The algorithm, with its settings."""
    part: algorithm.Algorithm = ALGORITHM.build(experiment.algorithm)
    return part


def build_aggregator(experiment: Experiment) -> "aggregator.Aggregator":
    """The aggregator, with its settings."""
    part: aggregator.Aggregator = AGGREGATOR.build(experiment.aggregator)
    return part


def build_objective(experiment: Experiment) -> "learner.Objective":
    """What clients minimize."""
    part: learner.Objective = OBJECTIVE.build(experiment.objective)
    return part


def build_partitioner(experiment: Experiment) -> "partitioning.Partitioner":
    """How rows are divided among the clients."""
    part: partitioning.Partitioner = PARTITIONER.build(experiment.data.partition)
    return part


def build_tasks(experiment: Experiment) -> "dict[str, task.Task]":
    """What is measured, by name; by default what fits the objective."""
    specs = experiment.evaluation.tasks
    if specs is None:
        specs = [MEASURED[build_objective(experiment).example_kind]]
    tasks: dict[str, task.Task] = _build_all(TASK, specs)
    if len({one.example_kind for one in tasks.values()}) > 1:
        raise UserError(
            f"the tasks {', '.join(tasks)} need examples of different kinds; "
            "measure one of them in this run, the other with `hanse evaluate`."
        )
    return tasks


def build_trackers(experiment: Experiment) -> "dict[str, tracking.Tracker]":
    """What shows the run, by name."""
    return _build_all(TRACKER, experiment.report_to)


def _build_all(kind: PartKind, specs: list[Spec]) -> dict[str, Any]:
    """The parts of one kind that a list names, by name; raises UserError for one named twice."""
    parts = {spec_name(spec).rpartition(":")[2]: kind.build(spec) for spec in specs}
    if len(parts) < len(specs):
        raise UserError(f"{kind.setting} names a {kind.noun} twice; it has {', '.join(parts)}.")
    return parts
