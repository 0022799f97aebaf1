"""A base model as transformers loads it, alone or with what a run has trained."""

import warnings
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import torch

from hanse.errors import UserError
from hanse.experiment.assembly.resources import adapter_settings
from hanse.experiment.schema import LABELLED, Experiment, build_objective
from hanse.learners.in_place_model import split
from hanse.learners.injection import reopened
from hanse.learners.models import pretrained, quantization, start_weights
from hanse.learners.models.head import Head, choose
from hanse.learners.models.pretrained import LoadedModel
from hanse.serving import adapter_folder
from hanse.serving.trained_adapter import Trained, find
from hanse.tensors import directions
from hanse.tensors.named import refuse_unlike

CPU = torch.device("cpu")


def adapted(folder: Path, overrides: Iterable[str] = (), trusted: bool = False) -> tuple[Any, Any]:
    """The trained model of a finished run or a PEFT folder, and its tokenizer, on the CPU.

    It is a PeftModel; after training without an adapter it is the base model with changed weights.

    trusted: true if all code that the run names may run; see `loading.load_left`.
    """
    adapter_folder.refuse_unfinished(folder)
    trained = find(folder, overrides, trusted)
    if not adapter_settings(trained.experiment).injected:
        return changed(trained)[1:]
    _, model, tokenizer = base(trained.experiment)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of PEFT's own calls
        source = Path(str(trained.experiment.adapter.source))
        return reopened.open_adapter(source, model), tokenizer


def changed(trained: Trained) -> tuple[Head, Any, Any]:
    """The model of `base`, with the weights that a run has changed in place, in float32.

    Raises UserError for a change that is not one of this model.
    """
    head, loaded = _loaded(trained.experiment, torch.float32)
    change, start = split(trained.tensors)
    seed, amounts = directions.read(change)
    new = start_weights.within(loaded.model, loaded.fresh)
    refuse_unlike(new, start)
    for name, weight in new.items():
        weight.copy_(start[name])
    directions.add(start_weights.live(loaded.model), seed, amounts)
    return head, loaded.model, loaded.tokenizer


def _name_outputs(model: Any, experiment: Experiment) -> None:
    """Write a classifier's labels into its configuration."""
    words = list(experiment.data.labels.values())
    model.config.id2label = dict(enumerate(words))
    model.config.label2id = {word: at for at, word in enumerate(words)}


def base(experiment: Experiment) -> tuple[Head, Any, Any]:
    """The head of an experiment's base model, the model, and its tokenizer.

    The weights have the type that they have on disk. Those that the experiment quantizes are plain
    ones of the same values. A classifier's labels are in its configuration.
    """
    head, loaded = _loaded(experiment)
    return head, quantization.unpacked(loaded.model), loaded.tokenizer


def _loaded(experiment: Experiment, dtype: torch.dtype | None = None) -> tuple[Head, LoadedModel]:
    """An experiment's base model with its head; dtype: of the weights, by default that on disk."""
    settings, labels = experiment.model, experiment.data.labels
    example_kind = build_objective(experiment).example_kind
    source = pretrained.find(settings.model_name_or_path)
    if getattr(source.config, "quantization_config", None):
        raise UserError(
            f"the weights of {source.name} are quantized on disk, and an adapter cannot be merged "
            "into them or loaded with them here; name the same model in full precision: "
            "model.model_name_or_path=FOLDER."
        )
    classes = len(labels) if example_kind in LABELLED else 0
    head = choose(source.name, source.config, example_kind, classes)
    dtype = dtype or getattr(source.config, "dtype", None) or torch.float32
    loaded = quantization.load(source, head, settings.quantization, dtype, CPU)
    if not head.generates_text:
        _name_outputs(loaded.model, experiment)
    return head, loaded
