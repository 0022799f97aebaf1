"""A plain model folder: the base model with a trained adapter merged into its weights."""

import logging
import warnings
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from hanse import atomic_files
from hanse.errors import UserError
from hanse.experiment.assembly.resources import adapter_settings
from hanse.experiment.schema import Experiment, build_algorithm
from hanse.learners.injection import adapter_files, merge
from hanse.learners.models.model_files import hub_id
from hanse.observability.progress import report
from hanse.observability.steps import Activity, Work
from hanse.serving import adapter_folder
from hanse.serving.plain_model import base, changed
from hanse.serving.trained_adapter import Trained, find

log = logging.getLogger(__name__)


def write(
    folder: Path,
    target: Path,
    overrides: Iterable[str] = (),
    trusted: bool = False,
    generates_text: bool = False,
) -> None:
    """Write the merged model of a finished run or of a PEFT folder, and its tokenizer.

    The weights have the type that they have in the base model's folder. Quantized ones are
    unpacked: the adapter has been trained on what they have become. Those that were changed
    in place are written in float32.

    trusted: true if all code that the run names may run; see `loading.load_left`.
    generates_text: refuse classifiers and taggers.
    Raises UserError if the adapter is none that weights can take in, or if `target` is not free.
    """
    if target.exists():
        raise UserError(f"{target} exists already; name a folder that does not.")
    trained = _finished(folder, overrides, trusted)
    experiment, adapter = trained.experiment, Path(str(trained.experiment.adapter.source))
    adapters = adapter_files.kind_folders(adapter)
    in_place = not adapter_settings(experiment).injected
    if not in_place:
        merge.refuse_unmergeable(adapters)
    head, model, tokenizer = changed(trained) if in_place else base(experiment)
    if generates_text and not head.generates_text:
        raise UserError(
            f"{folder} is a classifier, and GGUF files are for language models; use --merge for a "
            "folder that transformers loads."
        )
    merged = model if in_place else _merged(model, adapters)
    with atomic_files.folder(target) as draft:
        _save(merged, draft)
        tokenizer.save_pretrained(str(draft))
        (draft / "README.md").write_text(_card(experiment), encoding="utf-8")
    log.info("merged model %s, in %s", target, str(merged.dtype).removeprefix("torch."))


def _merged(model: Any, adapters: Sequence[Path]) -> Any:
    """The model with all adapters in its weights."""
    report(Work(Activity.MERGING_ADAPTER))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of PEFT's own calls, and about embeddings untied here
        return merge.merged(model, adapters)


def _finished(folder: Path, overrides: Iterable[str], trusted: bool) -> Trained:
    """The adapter in a folder; raises UserError if it is not finished, or not one for all."""
    adapter_folder.refuse_unfinished(folder)
    trained = find(folder, overrides, trusted)
    algorithm = build_algorithm(trained.experiment)
    if algorithm.personalizes:
        raise UserError(
            f"the result of {type(algorithm).__name__} is no single adapter: each client keeps "
            f"tensors of its own, and {folder} has the shared ones only; nothing can be merged."
        )
    return trained


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
    path = experiment.model.model_name_or_path
    lines = ["---", "library_name: transformers", "tags: [federated-learning, hanse]"]
    if repository := hub_id(path):
        lines.insert(2, f"base_model: {repository}")
    name = repository or Path(path).name
    text = f"`{name}` with the adapter of a federated fine-tuning by hanse in its weights."
    return "\n".join([*lines, "---", "", f"# {experiment.name}", "", text, ""])
