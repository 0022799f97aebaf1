"""The experiment: all settings of a run, typed, and the parts that they name."""

from typing import Annotated, Any, Literal

from pydantic import Field, field_validator, model_validator

from hanse.audit.ownership.settings import OwnershipSettings
from hanse.errors import UserError
from hanse.experiment import overrides
from hanse.experiment.adapter_choice import AnyAdapter, resolved_adapter
from hanse.experiment.devices import known
from hanse.experiment.devices.settings import DeviceSettings
from hanse.experiment.links import Links
from hanse.experiment.named_model import NamedModel
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
from hanse.experiment.sections import (
    CompressionSettings,
    Data,
    Deployment,
    Evaluation,
    Rule,
    SettingsModel,
    Spec,
    listed,
    written_out,
)
from hanse.experiment.validation import NAME
from hanse.lazy_imports import lazy_imports
from hanse.learners.adapters.lora import Lora
from hanse.learners.models.settings import BaseModelSettings
from hanse.learners.training.settings import TrainingSettings
from hanse.registry import suggestion

with lazy_imports():
    from hanse.data import partitioning
    from hanse.federation.interfaces import aggregator, algorithm, objective, task
    from hanse.journal import tracking

# The task that scores a run if none is named, by the kind of examples of its objective.
DEFAULT_TASK = {
    "tokens": "perplexity",
    "label_words": "classification",
    "tags": "tagging",
    "answer_pairs": "preference",
    "verdicts": "verdict",
}
LABELLED = ("label_words", "tags")  # kinds of examples whose rows have labels
POOLED = "pooled"  # the name of the one client that holds all rows
ClientsPerPass = Annotated[int, Field(ge=1, le=65_536, strict=True)] | Literal["off", "auto"]
ClientName = Annotated[str, Field(pattern=NAME)]


class Experiment(SettingsModel):
    """The settings of one run.

    models: models beside the trained one, by name, for algorithms and objectives that use them.
    compression: the codecs of updates and instructions.
    privacy: the mechanism of privacy that updates pass before they are encoded; none: no mechanism.
    silo_names: names of the clients among whom one source is divided, in client order; with the
        partitioners key and natural_id, in the order of the column's values. none: silo-1, …
    attack: what hostile clients of a simulation send; none: all clients are honest.
    links: simulated links between the clients and the server; none: messages take no time.
    devices: figures of simulated devices, by name; some are known without being written.
    device: the simulated device that clients train on; none: training takes no simulated time.
    ownership: the mark that the server lays where it trains; none: no mark.
    clients: by a client's name, its own settings of those that `OVERRIDABLE` lists.
    participants: only these clients take part; absent clients still get their share of the rows.
    clients_per_pass: the number of simulated clients that train in one forward pass; auto: the
        fastest here, which the run folder records; off: one at a time, through PEFT's own layers.
    report_to: the trackers that show the run: a list, one name, or none.
    """

    name: Annotated[str, Field(pattern=NAME)] = "run"
    seed: Annotated[int, Field(ge=0, lt=2**31)] = 0
    rounds: Annotated[int, Field(ge=1, le=1_000_000)] = 3
    num_clients: Annotated[int, Field(ge=1, le=1_000_000)] = 4
    silo_names: Annotated[list[ClientName], Field(min_length=1)] | None = None
    fraction_train: Annotated[float, Field(gt=0, le=1)] = 1.0
    clients_per_pass: ClientsPerPass = "auto"  # noqa: S105 (no password)
    output_dir: str | None = None  # none: runs/<name>, numbered if it is taken
    model: BaseModelSettings = BaseModelSettings()
    adapter: AnyAdapter = AnyAdapter(lora=Lora())  # type: ignore[call-arg]
    models: dict[ClientName, NamedModel] = Field(default={})
    data: Data = Data()
    objective: Spec = "sft"
    train: TrainingSettings = TrainingSettings()
    algorithm: Spec = "fedavg"
    aggregator: Rule = "mean"
    compression: CompressionSettings = CompressionSettings()
    privacy: Spec | None = None
    evaluation: Evaluation = Evaluation()
    deployment: Deployment = Deployment()
    links: Links | None = None
    devices: dict[ClientName, DeviceSettings] = Field(default={})
    device: str | None = None
    attack: Spec | None = None
    ownership: OwnershipSettings | None = None
    clients: dict[ClientName, dict[str, Any]] = Field(default={})
    participants: Annotated[list[ClientName], Field(min_length=1)] | None = None
    report_to: list[Spec] = Field(default=[])

    @field_validator("clients_per_pass", mode="before")
    @classmethod
    def _read_false_as_off(cls, value: Any) -> Any:
        return "off" if value is False else value  # YAML reads an unquoted off as false

    @field_validator("report_to", mode="before")
    @classmethod
    def _read_one_tracker_as_list(cls, value: Any) -> Any:
        return listed(value)

    @field_validator("privacy", "links", "device", "attack", "ownership", mode="before")
    @classmethod
    def _read_the_word_none(cls, value: Any) -> Any:
        return None if value == "none" else value

    @field_validator("devices", mode="before")
    @classmethod
    def _complete_known_devices(cls, value: Any) -> Any:
        return known.completed(value)

    @field_validator("clients")
    @classmethod
    def _write_compression_out(cls, clients: dict[str, Any]) -> dict[str, Any]:
        return {
            name: changed_at(over, ("compression",), written_out) for name, over in clients.items()
        }

    @model_validator(mode="after")
    def _has_one_round_length(self) -> "Experiment":
        if self.train.max_steps is not None and self.train.num_train_epochs is not None:
            raise ValueError(
                "train has both max_steps and num_train_epochs; one of them measures a round: "
                "set the other to null."
            )
        return self

    @model_validator(mode="after")
    def _device_is_known(self) -> "Experiment":
        if self.device is not None:
            known.find(self.device, self.devices)
            known.refuse_two_seconds(self.device, self.links)
        return self

    @model_validator(mode="after")
    def _participants_are_clients(self) -> "Experiment":
        if self.participants is None:
            return self
        if self.data.pooled:
            raise ValueError(
                "participants and data.pooled exclude each other: with data.pooled one client "
                "holds all rows; leave one of the two out."
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
        """The names of the clients that train, in client order."""
        if self.data.pooled:
            return [POOLED]
        if self.participants is None:
            return self.client_names
        names = set(self.participants)
        return [name for name in self.client_names if name in names]

    @property
    def client_names(self) -> list[str]:
        """The names of the clients among whom the rows are divided, in client order."""
        return sorted(self.clients) if self.brings_own_data else self.default_names

    @property
    def default_names(self) -> list[str]:
        """The names of the clients among whom one source is divided."""
        if self.silo_names is not None:
            return self.silo_names
        width = len(str(self.num_clients))
        return [f"silo-{number:0{width}d}" for number in range(1, self.num_clients + 1)]

    @property
    def brings_own_data(self) -> bool:
        """True if every client names its own file; no rows are divided then."""
        data = [settings.get("data") for settings in self.clients.values()]
        return bool(data) and all(isinstance(own, dict) and "path" in own for own in data)

    @property
    def has_links(self) -> bool:
        """True if messages take time in a simulation."""
        return bool(self.links or any("links" in over for over in self.clients.values()))

    @property
    def has_devices(self) -> bool:
        """True if the training of some clients takes the simulated seconds of a device."""
        return bool(self.device or any(over.get("device") for over in self.clients.values()))

    @property
    def is_timed(self) -> bool:
        """True if a simulation has a clock of its own, for links or devices."""
        return self.has_links or self.has_devices

    def for_client(self, name: str) -> "Experiment":
        """The experiment with the settings of one client."""
        if not (settings := self.clients.get(name)):
            return self
        common = self.model_copy(update={"clients": {}, "participants": None, "ownership": None})
        return Experiment.model_validate(overrides.merge(common.resolved(), settings))

    def resolved(self) -> dict[str, Any]:
        """All settings as plain values, including the defaults."""
        values = self.model_dump(by_alias=True, mode="json")
        values["adapter"] = resolved_adapter(values["adapter"])
        values["models"] = {n: NamedModel.resolved(own) for n, own in values["models"].items()}
        for kind in NAMED:
            if kind is not TASK:  # tasks stay as the user has written them
                values = changed_at(values, kind.place, kind.resolved)
        return values


def build_algorithm(experiment: Experiment) -> "algorithm.Algorithm":
    """Build the algorithm, with its settings."""
    part: algorithm.Algorithm = ALGORITHM.build(experiment.algorithm)
    return part


def build_aggregator(experiment: Experiment) -> "aggregator.Aggregator":
    """Build the aggregator, with its settings."""
    part: aggregator.Aggregator = AGGREGATOR.build(experiment.aggregator)
    return part


def build_objective(experiment: Experiment) -> "objective.Objective":
    """Build the objective: the loss that clients minimize."""
    part: objective.Objective = OBJECTIVE.build(experiment.objective)
    _check_example_kind(spec_name(experiment.objective), part)
    return part


def build_partitioner(experiment: Experiment) -> "partitioning.Partitioner":
    """Build the partitioner, which divides the rows among the clients."""
    part: partitioning.Partitioner = PARTITIONER.build(experiment.data.partition)
    return part


def build_tasks(experiment: Experiment) -> "dict[str, task.Task]":
    """Build the tasks, by name; by default the one task that suits the objective."""
    specs = experiment.evaluation.tasks
    if specs is None:
        specs = [DEFAULT_TASK[build_objective(experiment).example_kind]]
    tasks: dict[str, task.Task] = build_all(TASK, specs)
    for name, part in tasks.items():
        _check_example_kind(name, part)
    if len({part.example_kind for part in tasks.values()}) > 1:
        raise UserError(
            f"the tasks {', '.join(tasks)} need examples of different kinds; "
            "measure one of them in this run, the other with `hanse evaluate`."
        )
    return tasks


def build_trackers(experiment: Experiment) -> "dict[str, tracking.Tracker]":
    """Build the trackers that show the run, by name."""
    return build_all(TRACKER, experiment.report_to)


def build_all(kind: PartKind, specs: list[Spec]) -> dict[str, Any]:
    """Build the parts of one kind, by name; raises UserError for a name that comes twice."""
    parts = {spec_name(spec).rpartition(":")[2]: kind.build(spec) for spec in specs}
    if len(parts) < len(specs):
        raise UserError(f"{kind.setting} names a {kind.noun} twice; it has {', '.join(parts)}.")
    return parts


def _check_example_kind(name: str, part: "objective.Objective | task.Task") -> None:
    """Raise UserError for a part that declares a kind of examples that no row becomes."""
    if part.example_kind not in DEFAULT_TASK:
        raise UserError(
            f"{name} declares example_kind = {part.example_kind!r}, but the kinds of examples are "
            f"{', '.join(DEFAULT_TASK)}."
        )
