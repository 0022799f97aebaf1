"""A base model as transformers loads it, alone or with a trained adapter as PEFT loads it."""

import warnings
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import torch

from hanse.errors import UserError
from hanse.experiment.assembly.resources import Resources, adapter_settings
from hanse.experiment.schema import LABELLED, Experiment, build_objective
from hanse.learners.injection import reopened
from hanse.learners.models import pretrained, quantization
from hanse.learners.models.head import Head, choose
from hanse.serving import adapter_folder
from hanse.serving.trained_adapter import Trained, find

CPU = torch.device("cpu")


def adapted(folder: Path, overrides: Iterable[str] = (), trusted: bool = False) -> tuple[Any, Any]:
    """The PeftModel of a finished run or a PEFT folder, and its tokenizer, on the CPU.

    Without an adapter, it is the base model with changed weights.

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
    """What `base` returns, with the weights that a run has changed in place, in float32."""
    learner = trained.learner(Resources(), {})
    backbone, head = learner.backbone, learner.backbone.head
    if not head.generates_text:
        _name_outputs(backbone.model, trained.experiment)
    return head, backbone.model, backbone.tokenizer


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
    dtype = getattr(source.config, "dtype", None) or torch.float32
    model, tokenizer, _ = quantization.load(source, head, settings.quantization, dtype, CPU)
    if not head.generates_text:
        _name_outputs(model, experiment)
    return head, quantization.unpacked(model), tokenizer
