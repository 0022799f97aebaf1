"""Base models, adapters and rows that all learners of one machine share."""

import json
import logging
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import torch

from hanse.data.example import Example
from hanse.data.tokenization.token_cache import Rendering, Tokenized
from hanse.errors import UserError
from hanse.experiment.adapter_choice import AdapterChoice
from hanse.experiment.assembly.dataset.client_examples import SplitRows
from hanse.experiment.assembly.dataset.federated_dataset import FederatedDataset, divide
from hanse.experiment.assembly.dataset.source_rows import judged
from hanse.experiment.schema import LABELLED, Experiment, build_objective
from hanse.federation.interfaces.results import Memory
from hanse.learners.adapted_model import AdaptedModel
from hanse.learners.backbone import NO_ADAPTER, Backbone
from hanse.learners.in_place_model import InPlaceModel
from hanse.learners.injection import adapter_files
from hanse.learners.injection.adapter import Adapter
from hanse.learners.injection.trained_heads import draw_in_place
from hanse.learners.load import load
from hanse.learners.models.label_outputs import listed, names, ordered
from hanse.learners.models.model_files import cache_folder
from hanse.learners.models.precision import ComputeMode
from hanse.learners.models.settings import BaseModelSettings, Loaded
from hanse.learners.models.start_weights import StartWeights
from hanse.observability.paired_timing import Measurement
from hanse.observability.processor import CoreUse, core_use, crowding, other_work
from hanse.observability.progress import report
from hanse.observability.steps import Activity, Work
from hanse.randomness import RoundContext

log = logging.getLogger(__name__)


@dataclass
class Resources:
    """Base models, adapters and rows on one machine, each loaded when it is first asked for.

    compute_modes: of each model, by its settings.
    measurements: from which the compute modes were chosen in this process, by the same settings.
    attached: the names of the adapters in the models.
    divided: the last federated dataset, and the settings that it was made from.
    """

    backbones: dict[Loaded, Backbone] = field(default_factory=dict)
    compute_modes: dict[str, ComputeMode] = field(default_factory=dict)
    measurements: dict[str, Measurement] = field(default_factory=dict)
    attached: dict[tuple[Loaded, Adapter, str | None, int, str], str] = field(default_factory=dict)
    divided: tuple[str, FederatedDataset] | None = None
    tokenized: dict[Hashable, Tokenized] = field(default_factory=dict)

    def dataset(self, experiment: Experiment) -> FederatedDataset:
        """The experiment's rows by client; successive runs with one seed share them."""
        client_data = {name: over.get("data") for name, over in experiment.clients.items()}
        data = experiment.data.model_dump(mode="json", exclude={"pooled"})
        key = [experiment.seed, experiment.num_clients, data, client_data, judged(experiment)]
        settings = json.dumps([*key, experiment.silo_names], default=str)
        if self.divided is None or self.divided[0] != settings:
            report(Work(Activity.PARTITIONING))
            self.divided = (settings, divide(experiment))
        return self.divided[1]

    def clear_adapters(self) -> None:
        """Remove all adapters and changes of weights, so that the next run begins afresh."""
        for (loaded, *_), name in self.attached.items():
            self.backbones[loaded].detach(name)
        self.attached.clear()
        for backbone in self.backbones.values():
            if backbone.start_weights is not None:
                backbone.start_weights.restore(backbone.model)
                backbone.start_weights = None

    def backbone(
        self, settings: BaseModelSettings, example_kind: str, labels: Mapping[str, str]
    ) -> Backbone:
        """The base model of these settings.

        labels: the label words or the tags; an encoder has one output for each of them.
        """
        classes = len(labels) if example_kind in LABELLED else 0
        mode = self.compute_modes.get(settings.compute_mode_key)
        backbone = self.backbones.get(settings.loaded)
        if (
            backbone is None
            or mode not in (None, backbone.compute_mode)
            or not backbone.serves(example_kind, classes)
        ):
            before, first = core_use(), not self.backbones
            backbone = load(settings, mode, classes, example_kind)
            if first and backbone.device.type == "cpu":
                _warn_if_crowded(before)
            self.backbones[settings.loaded] = backbone
            self.compute_modes[settings.compute_mode_key] = backbone.compute_mode
            if backbone.measurement.comparisons:
                self.measurements[settings.compute_mode_key] = backbone.measurement
        backbone.labels = {} if backbone.head.generates_text else dict(labels)
        return backbone

    def reader(self, split: SplitRows, labels: Mapping[str, str]) -> Tokenized:
        """The tokenized rows that a split's rows belong to, with all rows read in the same way."""
        model, kind, template = split.model, split.example_kind, split.template
        lengths = (model.max_length, model.long_texts)
        key = (model.loaded, *lengths, kind, template, *labels.items())
        if key not in self.tokenized:
            backbone = self.backbone(model, kind, labels)
            rendering = _rendering(backbone, model, kind, labels, template)
            self.tokenized[key] = Tokenized(rendering, cache_folder() / "tokens")
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
        adapter = self.attach(experiment.model, backbone, experiment.adapter, experiment.seed)
        if experiment.train.packing:
            _refuse_padding(backbone, adapter)
        kind = AdaptedModel if chosen_adapter(experiment.adapter).injected else InPlaceModel
        return kind(
            backbone,
            adapter,
            examples,
            experiment.train,
            objective,
            context,
            experiment.rounds,
            optimizer_state,
            max_length=backbone.max_length(experiment.model.max_length),
        )

    def attach(
        self,
        model: BaseModelSettings,
        backbone: Backbone,
        choice: AdapterChoice,
        seed: int,
        name: str = "",
    ) -> str:
        """The name of an adapter in a base model, which is attached when it is first asked for.

        Without an adapter, the model's weights change in place from then on.

        name: of a model beside the trained one. Models of different names have adapters of their
            own, even if all settings are equal.
        """
        adapter = chosen_adapter(choice)
        _refuse_crowded(backbone, adapter, model.max_length)
        purpose = f"adapter of {name}" if name else "adapter"
        drawn = RoundContext(seed).derive(purpose)
        if not adapter.injected:
            if name:
                raise UserError(
                    "adapter is in_place, and only the weights of the trained model change in "
                    f"place; set models.{name}.adapter=none, which leaves this model as it is, or "
                    "a kind, such as lora."
                )
            if backbone.start_weights is None:
                base, fresh = backbone.model, backbone.fresh
                draw_in_place(base, fresh, drawn)
                backbone.start_weights = StartWeights.of(base, backbone.name, fresh)
            return NO_ADAPTER
        key = (model.loaded, adapter, choice.source, seed, name)
        if key not in self.attached:
            self.attached[key] = backbone.attach(adapter, drawn)
        return self.attached[key]


def _warn_if_crowded(before: CoreUse) -> None:
    """Log a warning if the threads of this process exceed the cores that are left for them."""
    if advice := crowding(torch.get_num_threads(), other_work(before)):
        log.warning("%s", advice)


def outputs(experiment: Experiment, labels: Mapping[str, str]) -> dict[str, str]:
    """The labels in the order of the outputs of the model, or of the adapter it continues from.

    The model's or adapter's names for its outputs give the order; without names it is that of
    `labels`, as it is in a new head. Raises UserError if an adapter's outputs have other names.
    """
    example_kind, source = build_objective(experiment).example_kind, experiment.adapter.source
    if example_kind not in LABELLED or not labels:
        return dict(labels)
    output_names = adapter_files.labels(adapter_folder(source)) if source else {}
    owner = f"the adapter in {source}"
    if not output_names:
        owner = experiment.model.model_name_or_path
        output_names = {name: name for name in names(owner, example_kind)}
    in_order = ordered(labels, output_names)
    if in_order is None and source and output_names:
        first = f"{{{next(iter(labels))}: {next(iter(output_names.values()))}}}"
        raise UserError(
            f"{owner} chooses between {', '.join(output_names.values())}, but the data have "
            f"{', '.join(labels)}; give each label of the data its output in data.labels, such as "
            f"{first}, or begin with a fresh adapter."
        )
    if in_order is None and len(output_names) not in (0, len(labels)):
        return dict(labels)  # in a new head, on which `replaced_head` remarks
    if in_order:
        log.info("outputs  %s, as %s calls them", listed(in_order), owner)
    elif output_names:
        other = listed(output_names)
        log.warning("outputs  %s: %s calls them otherwise, %s", listed(labels), owner, other)
    return in_order or dict(labels)


def replaced_head(experiment: Experiment, labels: Mapping[str, str]) -> list[str]:
    """A remark if the model's head is replaced, since it has another number of outputs.

    labels: in the order of the outputs, as `outputs` returns them.
    """
    example_kind, model = build_objective(experiment).example_kind, experiment.model
    if example_kind not in LABELLED or not labels or experiment.adapter.source:
        return []
    known = names(model.model_name_or_path, example_kind)
    if len(known) in (0, len(labels)):
        return []
    words = listed({name: name for name in known})
    return [
        f"{model.model_name_or_path} chooses between {words}, but the data "
        f"have {len(labels)} labels, {listed(labels)}: its head is replaced by a new one, which "
        "begins untrained; data.labels can give labels of the data the names of its outputs."
    ]


def _refuse_padding(backbone: Backbone, adapter: str) -> None:
    """Raise UserError for packed examples if a model or an adapter reads padded rows only."""
    if backbone.needs_padding or backbone.adapters[adapter].needs_padding:
        raise UserError(
            f"train.packing puts examples behind each other, but {backbone.name} reads each in a "
            "row of its own here: on a GPU, as an encoder, with sliding windows, virtual tokens, "
            "model.products: plain, or adapters in the upper layers alone; set train.packing to "
            "false."
        )


def _refuse_crowded(backbone: Backbone, adapter: Adapter, max_length: int | None) -> None:
    """Raise UserError if an adapter's virtual tokens and the longest text exceed the model's."""
    tokens, limit = getattr(adapter, "num_virtual_tokens", 0), backbone.positions
    length = backbone.max_length(max_length)
    if tokens and limit is not None and tokens + length > limit:
        raise UserError(
            f"the adapter puts {tokens} tokens of its own before {length} of text, but "
            f"{backbone.name} reads at most {limit}; set model.max_length to {limit - tokens} or "
            "less."
        )


def rendering(
    experiment: Experiment, labels: Mapping[str, str], example_kind: str, backbone: Backbone
) -> Rendering:
    """The rendering of rows for the experiment's model."""
    return _rendering(backbone, experiment.model, example_kind, labels, experiment.data.template)


def _rendering(
    backbone: Backbone,
    model: BaseModelSettings,
    example_kind: str,
    labels: Mapping[str, str],
    template: str,
) -> Rendering:
    """The rendering of rows for a model's tokenizer and head."""
    length, kind = backbone.max_length(model.max_length), backbone.head.reads[example_kind]
    windowed = kind == "tokens" and model.long_texts == "windows"
    return Rendering(
        *(backbone.tokenizer, kind, labels, template, length, backbone.vocabulary, windowed)
    )


def adapter_settings(experiment: Experiment) -> Adapter:
    """The adapter's settings: the experiment's own, or those of the adapter it continues from."""
    return chosen_adapter(experiment.adapter)


def chosen_adapter(choice: AdapterChoice) -> Adapter:
    """The settings of an adapter that is fresh, or comes from a folder."""
    if choice.fresh is not None:
        return choice.fresh
    return adapter_files.read(adapter_folder(str(choice.source)))[0]


def adapter_folder(source: str) -> Path:
    """The PEFT folder in a run folder, or the PEFT folder itself."""
    folder = Path(source)
    if not folder.is_dir():
        raise UserError(f"adapter.from: there is no folder {source}; name a run or a PEFT folder.")
    return folder / "adapter" if (folder / "adapter").is_dir() else folder
