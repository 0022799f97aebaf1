"""A plain model folder: the base model with a trained adapter merged into its weights."""

import logging
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import torch

from hanse import atomic_files
from hanse.errors import UserError
from hanse.experiment.schema import LABELLED, Experiment, build_algorithm, build_objective
from hanse.learners.injection import adapter_files, merge
from hanse.learners.models import pretrained, quantization
from hanse.learners.models.head import Head, choose
from hanse.learners.models.model_files import hub_id
from hanse.observability.progress import report
from hanse.observability.steps import Activity, Work
from hanse.serving.trained_adapter import Trained, find

log = logging.getLogger(__name__)

CPU = torch.device("cpu")


def write(
    folder: Path,
    target: Path,
    overrides: Iterable[str] = (),
    trusted: bool = False,
    generates_text: bool = False,
) -> None:
    """Write the merged model of a finished run or of a PEFT folder, and its tokenizer.

    The weights have the type that they have in the base model's folder. Quantized ones are
    unpacked: the adapter has been trained on what they have become.

    trusted: true if all code that the run names may run; see `loading.load_left`.
    generates_text: refuse classifiers and taggers.
    Raises UserError if the adapter is none that weights can take in, or if `target` is not free.
    """
    if target.exists():
        raise UserError(f"{target} exists already; name a folder that does not.")
    trained = _finished(folder, overrides, trusted)
    experiment, adapter = trained.experiment, Path(str(trained.experiment.adapter.source))
    adapters = adapter_files.kind_folders(adapter)
    merge.refuse_unmergeable(adapters)
    head, model, tokenizer = _base(experiment)
    if generates_text and not head.generates_text:
        raise UserError(
            f"{folder} is a classifier, and GGUF files are for language models; use --merge for a "
            "folder that transformers loads."
        )
    report(Work(Activity.MERGING_ADAPTER))
    merged = merge.merged(model, adapters)
    if not head.generates_text:
        _name_outputs(merged.config, list(experiment.data.labels.values()))
    with atomic_files.folder(target) as draft:
        _save(merged, draft)
        tokenizer.save_pretrained(str(draft))
        (draft / "README.md").write_text(_card(experiment), encoding="utf-8")
    log.info("merged model %s, in %s", target, str(merged.dtype).removeprefix("torch."))


def _finished(folder: Path, overrides: Iterable[str], trusted: bool) -> Trained:
    """The adapter in a folder; raises UserError if it is not finished, or not one for all."""
    trained = find(folder, overrides, trusted)
    if trained.rounds is not None:
        raise UserError(f"{folder} is not finished; run `hanse resume {folder}` first.")
    algorithm = build_algorithm(trained.experiment)
    if algorithm.personalizes:
        raise UserError(
            f"the result of {type(algorithm).__name__} is no single adapter: each client keeps "
            f"tensors of its own, and {folder} has the shared ones only; nothing can be merged."
        )
    return trained


def _base(experiment: Experiment) -> tuple[Head, Any, Any]:
    """The head of the base model, the model with plain weights, and its tokenizer."""
    settings, labels = experiment.model, experiment.data.labels
    example_kind = build_objective(experiment).example_kind
    source = pretrained.find(settings.model_name_or_path)
    if getattr(source.config, "quantization_config", None):
        raise UserError(
            f"the weights of {source.name} are quantized, and a merged model would have to be "
            "quantized anew; name the model as it was before: model.model_name_or_path=FOLDER."
        )
    classes = len(labels) if example_kind in LABELLED else 0
    head = choose(source.name, source.config, example_kind, classes)
    dtype = getattr(source.config, "dtype", None) or torch.float32
    model, tokenizer, _ = quantization.load(source, head, settings.quantization, dtype, CPU)
    return head, quantization.unpacked(model), tokenizer


def _name_outputs(config: Any, words: Sequence[str]) -> None:
    """Write a classifier's labels where transformers looks for them."""
    config.id2label = dict(enumerate(words))
    config.label2id = {word: at for at, word in enumerate(words)}


def _save(model: Any, folder: Path) -> None:
    """Save a model; recommendations for generation that contradict each other stay as they are."""
    recommended = getattr(model, "generation_config", None)
    if recommended is not None:
        try:
            recommended.validate(strict=True)
        except ValueError:  # such as a temperature without sampling, which cannot be saved
            recommended.do_sample = True
    model.save_pretrained(str(folder))


def _card(experiment: Experiment) -> str:
    """A short model card: the base model's id, if the hub has it, and where the model is from."""
    base = experiment.model.model_name_or_path
    lines = ["---", "library_name: transformers", "tags: [federated-learning, hanse]"]
    if repository := hub_id(base):
        lines.insert(2, f"base_model: {repository}")
    name = repository or Path(base).name
    text = f"`{name}` with the adapter of a federated fine-tuning by hanse in its weights."
    return "\n".join([*lines, "---", "", f"# {experiment.name}", "", text, ""])
