"""A trained adapter with its base model, from a run's folder or a PEFT folder."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from hanse.data.example import Example
from hanse.errors import UserError
from hanse.experiment import loading
from hanse.experiment.adapter_choice import AnyAdapter
from hanse.experiment.assembly import in_place
from hanse.experiment.assembly.resources import Resources, outputs
from hanse.experiment.schema import Experiment, build_algorithm, build_objective
from hanse.federation.constants import FOLDER, Constants, ConstantStore
from hanse.federation.server_state import ServerState
from hanse.journal.checkpoints import latest
from hanse.journal.run_settings import EXPERIMENT, read_settings
from hanse.learners.adapted_model import AdaptedModel
from hanse.learners.in_place_model import InPlaceModel
from hanse.learners.injection import adapter_files
from hanse.learners.injection.adapter_layout import CONFIG, WEIGHTS
from hanse.learners.models.label_outputs import names
from hanse.learners.models.model_files import packaged
from hanse.randomness import RoundContext
from hanse.serving import adapter_folder
from hanse.tensors.low_rank import RESIDUAL
from hanse.tensors.named import Tensors

BASE = "model.model_name_or_path="  # an override that names the base model
CLASSIFIES = {"SEQ_CLS": "classify", "TOKEN_CLS": "tag"}  # PEFT's task: our objective


@dataclass(frozen=True)
class Trained:
    """An adapter, and the experiment with its base model and settings.

    rounds: the rounds that an unfinished run has done; None if it is finished.
    constants: the tensors of an unfinished run's adapter that are not trained.
    """

    experiment: Experiment
    tensors: Tensors
    rounds: int | None = None
    constants: Constants = field(default_factory=Constants)

    def learner(
        self, resources: Resources, splits: Mapping[str, Sequence[Example]]
    ) -> AdaptedModel:
        """A learner over these splits, with the adapter in use."""
        context = RoundContext(self.experiment.seed)
        learner = resources.learner(self.experiment, splits, context, {})
        self.use(learner)
        if not isinstance(learner, InPlaceModel):
            learner.backbone.read_constants(learner.adapter, self.tensors)
        return learner

    def use(self, learner: AdaptedModel, base: bool = False) -> None:
        """Use the adapter in its learner, or the base model alone.

        A new head belongs to the adapter; the base model then gets the head's initial values.
        """
        learner.put_constants(self.constants)
        if isinstance(learner, InPlaceModel):
            learner.load({} if base else self.tensors)
            return
        if base and learner.backbone.fresh:
            learner.load(learner.initial())
            return
        learner.base_only = base
        # PEFT may store more than the trained tensors.
        trained = {n: t for n, t in self.tensors.items() if n in learner.parameters()}
        # The update of an unfinished run's base weights is not in its adapter yet.
        residual = {n: t for n, t in self.tensors.items() if n.startswith(RESIDUAL)}
        learner.load(trained if base else {**trained, **residual})


def find(folder: Path, overrides: Iterable[str] = (), trusted: bool = False) -> Trained:
    """The adapter of a run (finished or not) or of a PEFT folder; no model is loaded yet.

    trusted: true if all code that the run names may run; see `loading.load_left`.
    """
    adapter_folder.refuse_other(folder)
    if (folder / EXPERIMENT).is_file():
        experiment = loading.load_left(folder / EXPERIMENT, overrides, trusted)
        if (folder / "adapter" / WEIGHTS).is_file():
            tensors = adapter_files.read(folder / "adapter")[1]
            # The settings on disk count, since exact aggregation may have raised the rank.
            saved = AnyAdapter.model_validate({"from": str(folder / "adapter")})
            experiment = experiment.model_copy(update={"adapter": saved})
            return Trained(in_place.prepared(_named(experiment, folder / "adapter")), tensors)
        return _unfinished(folder, experiment)
    return _plain(folder, overrides)


def _unfinished(folder: Path, experiment: Experiment) -> Trained:
    """The adapter of a run's newest checkpoint."""
    checkpoint = latest(folder)
    if checkpoint is None:
        raise UserError(
            f"{folder} has no adapter and no checkpoint yet; run `hanse resume {folder}` first."
        )
    tensors = build_algorithm(experiment).model(ServerState.restored(checkpoint).algorithm_state)
    constants = ConstantStore(folder / FOLDER).read(checkpoint.constants)
    return Trained(in_place.prepared(experiment), tensors, checkpoint.round, constants)


def _plain(folder: Path, overrides: Iterable[str]) -> Trained:
    """A PEFT adapter, with the base model that its configuration names."""
    tensors = adapter_files.read(folder)[1]
    base = _base_model(folder, overrides := list(overrides))
    settings: dict[str, Any] = {
        "model": {"model_name_or_path": base},
        "adapter": {"from": str(folder.resolve())},
    }
    file, objective = folder / CONFIG, CLASSIFIES.get(adapter_files.task(folder))
    if objective is None:
        return Trained(in_place.prepared(loading.compose(settings, "", file, overrides)), tensors)
    settings |= {"objective": objective, "data": {"labels": _labels(folder, base, objective)}}
    experiment = loading.compose(settings, "", file, overrides)
    if not experiment.data.labels:
        raise UserError(
            f"{file} belongs to a classifier, and neither {adapter_files.LABELS} beside it nor "
            f"{base} names the labels of its outputs; name them all in their order, such as "
            "'data.labels={0: negative, 1: positive}'."
        )
    return Trained(in_place.prepared(_named(experiment, folder)), tensors)


def _base_model(folder: Path, overrides: Sequence[str]) -> str:
    """The base model that the user, an adapter's configuration or the run around it names.

    Raises UserError if none does: the adapter of a model folder does not say where that lies.
    """
    wanted = [text.removeprefix(BASE) for text in overrides if text.startswith(BASE)]
    if base := wanted[-1] if wanted else adapter_files.base_model(folder):
        return packaged(base)
    run = folder.resolve().parent
    if (run / EXPERIMENT).is_file() and (base := read_settings(run).base_model):
        return base
    raise UserError(
        f"{folder / CONFIG} does not say which base model the adapter is for; name its folder or "
        f"its id at the hub: {BASE}FOLDER."
    )


def _labels(folder: Path, base: str, objective: str) -> dict[str, str]:
    """The labels of a PEFT adapter's outputs, from its folder or else from its base model."""
    example_kind = build_objective(Experiment.model_validate({"objective": objective})).example_kind
    return adapter_files.labels(folder) or {name: name for name in names(base, example_kind)}


def _named(experiment: Experiment, folder: Path) -> Experiment:
    """The experiment with its labels in the order of the adapter's outputs, if that is known."""
    if not adapter_files.labels(folder):
        return experiment
    labels = outputs(experiment, experiment.data.labels or adapter_files.labels(folder))
    data = experiment.data.model_copy(update={"labels": labels})
    return experiment.model_copy(update={"data": data})
