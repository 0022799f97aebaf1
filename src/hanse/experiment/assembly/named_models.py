"""The models beside the trained one: loaded for the server and the clients that use them."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace

from hanse.data.example import Example
from hanse.errors import UserError
from hanse.experiment.assembly.client_adapters import load_adapter
from hanse.experiment.assembly.dataset.client_examples import SERVER, Reader
from hanse.experiment.assembly.marks import Owners
from hanse.experiment.assembly.resources import Resources
from hanse.experiment.declared import client_models, server_models
from hanse.experiment.named_model import NamedModel
from hanse.experiment.schema import Experiment, build_objective
from hanse.learners.adapted_model import AdaptedModel
from hanse.learners.backbone import NO_ADAPTER, Backbone
from hanse.learners.models.label_outputs import names, ordered
from hanse.randomness import RoundContext

Examples = Mapping[Reader, Mapping[str, Sequence[Example]]]


def by_holder(
    experiment: Experiment, clients: Mapping[str, Experiment], server: bool
) -> dict[str, tuple[str, ...]]:
    """The names of the models that the server and each of these clients use.

    server: whether the server's models are loaded here. Raises SettingError for a name that
    `models` does not have.
    """
    used = dict.fromkeys(clients, client_models(experiment))
    return {SERVER: server_models(experiment), **used} if server else used


@dataclass(frozen=True)
class Holders:
    """The server and the clients of a run that are on this machine.

    examples: of each of their models, by split. used: the names of their models beside the trained
        one. owners: those who mark what they train.
    """

    resources: Resources
    examples: Examples
    used: Mapping[str, Sequence[str]]
    owners: Owners = field(default_factory=Owners)

    def equipped(self, learner: AdaptedModel, holder: str, experiment: Experiment) -> AdaptedModel:
        """A learner with one holder's rows, models beside it, and mark.

        experiment: with this holder's settings.
        """
        models, mark = self.models(holder, experiment), self.owners.mark(holder, learner)
        splits = self.examples[Reader(holder)]
        return replace(learner, splits=splits, models=models, mark=mark)

    def models(self, holder: str, experiment: Experiment) -> dict[str, AdaptedModel]:
        """The learners of one holder's models beside the trained one, by name.

        Holders whose settings of a model are equal share its base model and its place for an
        adapter, which starts with the same tensors for all.
        experiment: with this holder's settings.
        """
        return {
            name: _learner(self.resources, experiment, name, self.examples[Reader(holder, name)])
            for name in self.used.get(holder, ())
        }


def _learner(
    resources: Resources,
    experiment: Experiment,
    name: str,
    examples: Mapping[str, Sequence[Example]],
) -> AdaptedModel:
    """One model as a learner, with its own adapter or frozen."""
    settings, objective = experiment.models[name], build_objective(experiment)
    context = RoundContext(experiment.seed)
    with naming(name):
        kind, labels = objective.example_kind, experiment.data.labels
        backbone = resources.backbone(settings, kind, labels)
        adapter = NO_ADAPTER
        if settings.adapter is None:
            _refuse_untrained_head(settings, backbone, kind, labels)
        else:
            adapter = resources.attach(settings, backbone, settings.adapter, experiment.seed, name)
        learner = AdaptedModel(
            backbone,
            adapter,
            examples,
            experiment.train,
            objective,
            context,
            experiment.rounds,
            {},
            base_only=settings.adapter is None,
            max_length=backbone.max_length(settings.max_length),
        )
        if settings.adapter is not None and settings.adapter.source is not None:
            load_adapter(learner, settings.adapter.source)
    return learner


def _refuse_untrained_head(
    settings: NamedModel, backbone: Backbone, example_kind: str, labels: Mapping[str, str]
) -> None:
    """Raise UserError for a frozen classifier whose outputs mean nothing, or something else."""
    if example_kind == "tokens":
        return
    own = {name: name for name in names(settings.model_name_or_path, example_kind)}
    if backbone.fresh or (own and list(ordered(labels, own) or ()) != list(labels)):
        raise UserError(
            f"{backbone.name} is frozen, and its outputs are not {', '.join(labels.values())} in "
            "this order; give it an adapter, which trains its outputs, too, or take a model with "
            "these outputs."
        )


@contextmanager
def naming(name: str) -> Iterator[None]:
    """Within this context, mistakes name the model; an empty name stands for the trained one."""
    try:
        yield
    except UserError as error:
        if not name:
            raise
        raise UserError(f"models.{name}: {error}") from None
