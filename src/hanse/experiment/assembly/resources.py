"""What one machine holds once, however many learners look at it: models, adapters, rows."""

import json
import logging
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from hanse.data.example import Example
from hanse.data.formats.row import Row
from hanse.data.tokenization.token_cache import Rendering, Tokenized
from hanse.errors import UserError
from hanse.experiment.assembly.client_examples import SplitRows
from hanse.experiment.assembly.federated_dataset import FederatedDataset, divide
from hanse.experiment.schema import Experiment, build_objective
from hanse.federation.interfaces.results import Memory
from hanse.learners.adapted_model import AdaptedModel
from hanse.learners.backbone import Backbone
from hanse.learners.injection import adapter_files
from hanse.learners.injection.adapter import Adapter
from hanse.learners.load import load
from hanse.learners.models.label_outputs import listed, names, ordered
from hanse.learners.models.model_files import cache
from hanse.learners.models.precision import ComputeMode
from hanse.learners.models.settings import BaseModelSettings, Loaded
from hanse.observability.progress import report
from hanse.observability.steps import Activity, Work
from hanse.randomness import RoundContext

log = logging.getLogger(__name__)

ANY_LENGTH = 1_000_000_000  # tokens: more than any text has


@dataclass
class Resources:
    """Models, adapters and rows, each made when it is first asked for."""

    backbones: dict[Loaded, Backbone] = field(default_factory=dict)
    compute_modes: dict[str, ComputeMode] = field(default_factory=dict)  # by their settings
    attached: dict[tuple[Loaded, Adapter, int], str] = field(default_factory=dict)
    divided: tuple[str, FederatedDataset] | None = (
        None  # the last division, and what it was made from
    )
    tokenized: dict[Hashable, Tokenized] = field(default_factory=dict)

    def division(self, experiment: Experiment) -> FederatedDataset:
        """The experiment's division; runs of one seed that follow each other have the same."""
        own = {name: over.get("data") for name, over in experiment.clients.items()}
        data = experiment.data.model_dump(mode="json", exclude={"pooled"})
        told = json.dumps([experiment.seed, experiment.num_clients, data, own], default=str)
        if self.divided is None or self.divided[0] != told:
            report(Work(Activity.PARTITIONING))
            self.divided = (told, divide(experiment))
        return self.divided[1]

    def clear_adapters(self) -> None:
        """Take all adapters out again, so that the next run begins with fresh ones."""
        for (loaded, _, _), name in self.attached.items():
            self.backbones[loaded].detach(name)
        self.attached.clear()

    def backbone(
        self, settings: BaseModelSettings, example_kind: str, labels: Mapping[str, str]
    ) -> Backbone:
        """The base model that these settings mean, loaded when first asked for.

        example_kind: how rows become examples. labels: the label words or the tags, if examples are
            of such a kind; an encoder has an output for each of them.
        """
        classes = 0 if example_kind == "tokens" else len(labels)
        mode, held = self.compute_modes.get(settings.noted), self.backbones.get(settings.loaded)
        serves = held is not None and held.serves(example_kind, classes)
        if held is None or not serves or mode not in (None, held.compute_mode):
            held = self.backbones[settings.loaded] = load(settings, mode, classes, example_kind)
            self.compute_modes[settings.noted] = held.compute_mode
        held.labels = {} if held.head.speaks else dict(labels)
        return held

    def reader(self, share: SplitRows, labels: Mapping[str, str]) -> Tokenized:
        """What makes examples of a share's rows, and of all others that are read alike."""
        model, example_kind, template = share.model, share.example_kind, share.template
        key = (model.loaded, model.max_length, example_kind, template, *labels.items())
        if key not in self.tokenized:
            rendering = _rendering(
                self.backbone(model, example_kind, labels), model, example_kind, labels, template
            )
            self.tokenized[key] = Tokenized(rendering, cache() / "tokens")
        return self.tokenized[key]

    def learner(
        self,
        experiment: Experiment,
        examples: Mapping[str, Sequence[Example]],
        context: RoundContext,
        optimizer_state: Memory,
    ) -> AdaptedModel:
        """A learner with the experiment's model and adapter over these splits."""
        objective = build_objective(experiment)
        backbone = self.backbone(experiment.model, objective.example_kind, experiment.data.labels)
        adapter = adapter_settings(experiment)
        _refuse_crowded(backbone, adapter, experiment.model.max_length)
        key = (experiment.model.loaded, adapter, experiment.seed)
        if key not in self.attached:
            seed = RoundContext(experiment.seed).derive("adapter")
            self.attached[key] = backbone.attach(adapter, seed)
        return AdaptedModel(
            backbone,
            self.attached[key],
            examples,
            experiment.train,
            objective,
            context,
            experiment.rounds,
            optimizer_state,
        )


def outputs(experiment: Experiment, labels: Mapping[str, str]) -> dict[str, str]:
    """The labels in the order of the outputs of the model, or of the adapter that is gone on from.

    Where it has names for its outputs, these tell; otherwise the order is that of `labels`.
    Raises UserError if the outputs are others than the labels, and cannot become theirs.
    """
    example_kind, source = build_objective(experiment).example_kind, experiment.adapter.source
    if example_kind == "tokens" or not labels:
        return dict(labels)
    known = adapter_files.labels(adapter_folder(source)) if source else {}
    whose = f"the adapter in {source}"
    if not known:
        whose = experiment.model.model_name_or_path
        known = {name: name for name in names(whose, example_kind)}
    found = ordered(labels, known)
    if found is None and known and (source or len(known) != len(labels)):
        raise UserError(
            f"{whose} chooses between {', '.join(known.values())}, but the data have "
            f"{', '.join(labels)}; say in data.labels which of the data's is which, such as "
            f"{{{next(iter(labels))}: {next(iter(known.values()))}}}, or take a model without "
            "outputs of its own."
        )
    if found:
        log.info("outputs  %s, as %s calls them", listed(found), whose)
    elif known:
        theirs = listed(known)
        log.warning("outputs  %s: %s calls them otherwise, %s", listed(labels), whose, theirs)
    return found or dict(labels)


def _refuse_crowded(backbone: Backbone, adapter: Adapter, wanted: int | None) -> None:
    """Words of an adapter's own take places that a text then cannot have."""
    own, limit = getattr(adapter, "num_virtual_tokens", 0), backbone.positions
    length = backbone.max_length(wanted)
    if own and limit is not None and own + length > limit:
        raise UserError(
            f"the adapter puts {own} tokens of its own before {length} of text, but "
            f"{backbone.name} reads at most {limit}; set model.max_length to {limit - own} or less."
        )


def examples(
    experiment: Experiment,
    rows: Sequence[Row],
    labels: dict[str, str],
    example_kind: str,
    backbone: Backbone,
    whole: bool = False,
) -> list[Example]:
    """Rows as the experiment's model reads them; whole: as if it could read any length."""
    if not rows:
        return []
    report(Work(Activity.TOKENIZING, total=len(rows)))
    template = experiment.data.template
    rendering = _rendering(backbone, experiment.model, example_kind, labels, template)
    return (replace(rendering, max_length=ANY_LENGTH) if whole else rendering).render(rows)


def _rendering(
    backbone: Backbone,
    model: BaseModelSettings,
    example_kind: str,
    labels: Mapping[str, str],
    template: str,
) -> Rendering:
    length = backbone.max_length(model.max_length)
    reads = backbone.head.reads[example_kind]
    return Rendering(backbone.tokenizer, reads, labels, template, length, backbone.vocabulary)


def adapter_settings(experiment: Experiment) -> Adapter:
    """The adapter's settings, its own or those of the adapter it goes on from."""
    if experiment.adapter.fresh is not None:
        return experiment.adapter.fresh
    return adapter_files.read(adapter_folder(str(experiment.adapter.source)))[0]


def adapter_folder(source: str) -> Path:
    """The PEFT folder that a run folder or a PEFT folder stands for."""
    folder = Path(source)
    if not folder.is_dir():
        raise UserError(f"adapter.from: there is no folder {source}; name a run or a PEFT folder.")
    return folder / "adapter" if (folder / "adapter").is_dir() else folder
