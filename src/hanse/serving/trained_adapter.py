"""A trained adapter beside its base model, found in a run's folder or in a PEFT folder."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from hanse.data.example import Example
from hanse.errors import UserError
from hanse.experiment import loading
from hanse.experiment.adapter_choice import AnyAdapter
from hanse.experiment.assembly.resources import Resources, outputs
from hanse.experiment.schema import Experiment, build_algorithm, build_objective
from hanse.federation.constants import FOLDER, Constants, ConstantStore
from hanse.federation.server_state import ServerState
from hanse.journal.checkpoints import latest
from hanse.learners.adapted_model import AdaptedModel
from hanse.learners.injection import adapter_files
from hanse.learners.injection.adapter_layout import CONFIG, WEIGHTS
from hanse.learners.models.label_outputs import names
from hanse.randomness import RoundContext
from hanse.tensors.low_rank import RESIDUAL
from hanse.tensors.named import Tensors

CLASSIFIES = {"SEQ_CLS": "classify", "TOKEN_CLS": "tag"}  # the objective of PEFT's task


@dataclass(frozen=True)
class Trained:
    """An adapter and the experiment that says what it belongs to.

    rounds: after how many an unfinished run left it; None if it is finished.
    constants: what an unfinished run's adapter has beside its trained tensors.
    """

    experiment: Experiment
    tensors: Tensors
    rounds: int | None = None
    constants: Constants = field(default_factory=Constants)

    def learner(self, machine: Resources, splits: Mapping[str, Sequence[Example]]) -> AdaptedModel:
        """A learner over these splits, with the adapter at work."""
        context = RoundContext(self.experiment.seed)
        learner = machine.learner(self.experiment, splits, context, {})
        self.use(learner)
        learner.backbone.read_constants(learner.adapter, self.tensors)
        return learner

    def use(self, learner: AdaptedModel, base: bool = False) -> None:
        """Put the adapter to work in its learner, or nothing at all: the base model.

        A head that is new belongs to the adapter; without it there is only the one it began with.
        """
        learner.put_constants(self.constants)
        if base and learner.backbone.fresh:
            learner.load(learner.initial())
            return
        learner.base_only = base
        # PEFT may keep more on disk than what is trained.
        own = {n: t for n, t in self.tensors.items() if n in learner.parameters()}
        # An unfinished run's change of the base's weights is not in the adapter yet.
        change = {n: t for n, t in self.tensors.items() if n.startswith(RESIDUAL)}
        learner.load(own if base else {**own, **change})


def find(folder: Path, overrides: Iterable[str] = (), trusted: bool = False) -> Trained:
    """What a run (finished or not) or a PEFT folder holds; no model is loaded yet.

    trusted: whether all code that the run names may run; see `loading.load_left`.
    """
    if (folder / "experiment.yaml").is_file():
        experiment = loading.load_left(folder / "experiment.yaml", overrides, trusted)
        if (folder / "adapter" / WEIGHTS).is_file():
            tensors = adapter_files.read(folder / "adapter")[1]
            there = AnyAdapter.model_validate({"from": str(folder / "adapter")})
            # As it is on disk: exact aggregation may have raised its rank.
            own = experiment.model_copy(update={"adapter": there})
            return Trained(_named(own, folder / "adapter"), tensors)
        return _unfinished(folder, experiment)
    if (folder / CONFIG).is_file():
        return _plain(folder, overrides)
    raise UserError(
        f"{folder} holds neither a run (experiment.yaml) nor a PEFT adapter "
        f"({CONFIG}); name the folder of one."
    )


def _unfinished(folder: Path, experiment: Experiment) -> Trained:
    """The adapter of a run's newest checkpoint."""
    checkpoint = latest(folder)
    if checkpoint is None:
        raise UserError(
            f"{folder} has no adapter and no checkpoint yet; run `hanse resume {folder}` first."
        )
    tensors = build_algorithm(experiment).model(ServerState.restored(checkpoint).algorithm_state)
    constants = ConstantStore(folder / FOLDER).read(checkpoint.constants)
    return Trained(experiment, tensors, checkpoint.round, constants)


def _plain(folder: Path, overrides: Iterable[str]) -> Trained:
    """A PEFT adapter, with the base model that its configuration names."""
    base, tensors = adapter_files.base_model(folder), adapter_files.read(folder)[1]
    written = {"model": {"model_name_or_path": base}, "adapter": {"from": str(folder)}}
    file, objective = folder / CONFIG, CLASSIFIES.get(adapter_files.task(folder))
    if objective is None:
        return Trained(loading.compose(written, "", file, overrides), tensors)
    told = {"objective": objective, "data": {"labels": _labels(folder, base, objective)}}
    experiment = loading.compose({**written, **told}, "", file, overrides)
    if not experiment.data.labels:
        raise UserError(
            f"{file} is of a classifier, and neither {adapter_files.LABELS} beside it nor {base} "
            "says which label each output is; name them all in their order, such as "
            "'data.labels={0: negative, 1: positive}'."
        )
    return Trained(_named(experiment, folder), tensors)


def _labels(folder: Path, base: str, objective: str) -> dict[str, str]:
    """What the outputs of a PEFT adapter stand for, as it says, or else its base model."""
    example_kind = build_objective(Experiment.model_validate({"objective": objective})).example_kind
    return adapter_files.labels(folder) or {name: name for name in names(base, example_kind)}


def _named(experiment: Experiment, folder: Path) -> Experiment:
    """The experiment with its labels in the order of the adapter's outputs, if it says which."""
    if not adapter_files.labels(folder):
        return experiment
    labels = outputs(experiment, experiment.data.labels or adapter_files.labels(folder))
    data = experiment.data.model_copy(update={"labels": labels})
    return experiment.model_copy(update={"data": data})
