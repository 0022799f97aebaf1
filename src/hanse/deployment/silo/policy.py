"""The settings of a silo's policy: what it does for a server, and what it refuses."""

from fnmatch import fnmatchcase
from functools import cached_property
from typing import Annotated, Literal, get_args

from pydantic import Field, NonNegativeFloat, PositiveFloat, PositiveInt, field_validator

from hanse.experiment.part_kinds import NAMED, TASK
from hanse.experiment.sections import SettingsModel, Share
from hanse.planning.devices.silo_figures import PREFIX

Hash = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
Names = Annotated[tuple[str, ...], Field(min_length=1)]

# Settings of `data` that select and transform rows: by them a server could ask about single rows.
RowSetting = Literal[
    "filter", "columns", "template", "labels", "skip_invalid", "encoding", "system"
]
ROW_SETTINGS: tuple[RowSetting, ...] = get_args(RowSetting)

# The settings that may name parts from outside the package.
OUTSIDE = tuple(dict.fromkeys(kind.policy for kind in NAMED if kind.policy))

STEPS = ("steps", "sum_lr", "sum_clipped_lr", "sum_a")
PROTECTED = ("below_clip",)  # by a mechanism of privacy, which adds noise to their sum
MEASURED = ("seconds", "*_seconds", "joules")
TRAINING = (*STEPS, *PROTECTED, "examples", "tokens", "loss", *MEASURED)


class Privacy(SettingsModel):
    """The least differential privacy that a silo requires; without values it requires none.

    unit: what the result must hide the presence of: a row, or a whole silo and so each of its rows.
    epsilon: largest ε of all rounds together. delta: largest δ, where there is an epsilon.
    noise_multiplier: least noise ÷ largest effect of one unit, in each round.
    clip: largest clip norm, of an update or of a row's gradient; refuses one that is not fixed.
    """

    unit: Literal["row", "silo"] | None = None
    epsilon: PositiveFloat | None = None
    delta: Annotated[float, Field(gt=0, lt=1)] = 1e-5
    noise_multiplier: PositiveFloat | None = None
    clip: PositiveFloat | None = None

    @property
    def figures(self) -> list[str]:
        """The requirements, in a few words each; empty if nothing is."""
        words = {
            f"for a {self.unit}": self.unit,
            f"ε ≤ {self.epsilon or 0:g} at δ ≤ {self.delta:g}": self.epsilon,
            f"noise multiplier ≥ {self.noise_multiplier or 0:g}": self.noise_multiplier,
            f"clip ≤ {self.clip or 0:g}": self.clip,
        }
        return [phrase for phrase, value in words.items() if value is not None]


class SecureSums(SettingsModel):
    """The least protection by secure sums of updates that a silo requires.

    required: a rule that reads single updates is refused.
    colluders, security: the least values of the settings of these names of a rule that sees sums
        only, such as secagg; one without such a setting is refused. None: any.
    complete: such a rule must say `neighbours: complete`, or the server chooses with whom a silo
        shares its secrets.
    """

    required: bool = False
    colluders: Share | None = None
    security: PositiveInt | None = None
    complete: bool = False


class Policy(SettingsModel):
    """The limits of what a silo does for a server.

    models: hashes of the base models that it trains; none: any model on this machine.
    adapters, algorithms, aggregators, objectives, compression (codecs), mechanisms (of privacy):
        names of allowed parts; none: all of the package's own. A part from outside the package
        (`file.py:Class`) is refused unless it is named here, and then this silo's own file is used.
        `from` among the adapters allows to go on from a former adapter, and `none` allows
        algorithms that change all weights of the base model in place.
    tasks: the tasks that may score this silo's own rows.
    data_settings: settings of `data` that the server may choose where silo.yaml does not: filter,
        columns, template, labels, skip_invalid, encoding, system. All others come from silo.yaml
        alone.
    min_examples: fewest rows that are trained on, and fewest held-out rows that are scored.
    count_rounding: example counts that leave this silo, such as the weight of its updates, are
        rounded to a multiple of it; 1: exact counts.
    max_steps: most optimizer steps of a round; max_examples: most training examples of a round.
    max_batch_size: most examples of one forward pass.
    max_rounds: most rounds of a run.
    max_tries: how many different requests to train, or to evaluate, are answered in one round. A
        server that was killed or paused sends the same request again, which is not counted.
    max_requests_per_day: most different requests of all runs together in 24 hours, and most jobs
        that are examined, refused ones included.
    max_runs_per_day: most runs that begin in 24 hours, whatever their names.
    max_file_gb: most gigabytes of the files that a run's parts send, such as the weights of a
        codec; 0: none are taken. As much is kept of other runs. It does not bound a base model that
        is sent: see delivered_models.
    delivered_models: whether a server may send this silo the base model (deployment.deliver_model)
        if it is not on this machine. `models` holds for it, too. Who chooses the weights can make
        a model whose updates tell more about rows than others do.
    max_model_gb: most gigabytes of such a model, complete or in part. As much is kept of other
        models that were sent.
    collect: whether a server may keep each update of this silo in its run folder
        (compression.collect). One that does not say so could still; sums of updates prevent it.
    min_cohort: fewest silos of a round, this one included.
    agreement: whether silos must agree on their requests before this one trains. require: they
        must, and the silo does not join if its kit knows no others (`always` is the former word for
        it). auto: they must if its kit knows others, unless the algorithm sends each silo
        tensors of its own layout; if not, the silo logs so.
    privacy: the least differential privacy.
    secure_sums: the least protection by secure sums.
    metrics: the numbers that may leave the silo, as names or patterns such as *_seconds; others
        are dropped, and a job that adds one to a sum over silos is refused. None: what training
        reports, and what the allowed tasks report.
    marks: require: a job is refused if this silo's own mark (`ownership`) has no place in what it
        trains, and the silo does not join without one. refuse: a job is refused whose server says
        that it marks the model; one that does not say so could still.
    emulators: require: a job is refused whose base model is no emulator (`hanse emulator`), for a
        silo that wants no whole model of others on its machine. refuse: a job is refused whose base
        model is one. The model's emulator.json tells, which the server's owner could write.
    profile: allow: where the server probes for a plan (`hanse plan --from`), this machine measures
        itself and some steps of training, for at most a minute, and its figures leave: cores,
        memory, speeds, mean and longest tokens of rows, and the settings, seconds and bytes of
        these steps.
        refuse: it does not, whatever `metrics` allows.
    share_error_texts: the text of a failure, which may quote a row, may leave. Else the server
        hears only that there was a failure, and this silo's log has the text.
    """

    models: tuple[Hash, ...] = ()
    adapters: Names | None = None
    algorithms: Names | None = None
    aggregators: Names | None = None
    objectives: Names | None = None
    compression: Names | None = None
    mechanisms: Names | None = None
    tasks: tuple[str, ...] = ("classification", "perplexity")
    data_settings: tuple[RowSetting, ...] = ()
    min_examples: PositiveInt = 10
    count_rounding: PositiveInt = 10
    max_steps: PositiveInt = 1_000
    max_examples: PositiveInt = 1_000_000
    max_batch_size: PositiveInt = 256
    max_rounds: PositiveInt = 1_000
    max_tries: PositiveInt = 3
    max_requests_per_day: PositiveInt = 5_000
    max_runs_per_day: PositiveInt = 20
    max_file_gb: NonNegativeFloat = 1.0
    delivered_models: Literal["refuse", "allow"] = "refuse"
    max_model_gb: PositiveFloat = 4.0
    collect: bool = False
    min_cohort: PositiveInt = 2
    agreement: Literal["auto", "require", "always", "never"] = "auto"
    privacy: Privacy = Privacy()
    secure_sums: SecureSums = SecureSums()
    metrics: tuple[str, ...] | None = None
    marks: Literal["allow", "require", "refuse"] = "allow"
    emulators: Literal["allow", "require", "refuse"] = "allow"
    profile: Literal["refuse", "allow"] = "refuse"
    share_error_texts: bool = False

    @field_validator("adapters")
    @classmethod
    def _spelled_as_in_experiments(cls, names: Names | None) -> Names | None:
        return names and tuple("none" if name == "in_place" else name for name in names)

    def allows_number(self, name: str) -> bool:
        """True if a number of this name may leave the silo."""
        if name.startswith(PREFIX):
            return self.profile == "allow"
        return any(fnmatchcase(name, pattern) for pattern in self._numbers)

    @cached_property
    def _numbers(self) -> tuple[str, ...]:
        if self.metrics is not None:
            return self.metrics
        tasks = [TASK.find(name) for name in self.tasks if name in TASK.names()]
        return (*TRAINING, *(metric for task in tasks for metric in task.reports))
