"""The folder of a learner's adapter: PEFT's files, the tokenizer, a classifier's labels."""

from collections.abc import Collection
from pathlib import Path
from typing import TYPE_CHECKING

from hanse.learners.backbone import Backbone
from hanse.learners.injection import adapter_files, reopened
from hanse.learners.models.residual import merged

if TYPE_CHECKING:
    from hanse.learners.adapted_model import AdaptedModel


def save(learner: "AdaptedModel", folder: Path, without: Collection[str]) -> None:
    """Write a learner's tensors, with its residual merged into them.

    without: kinds of adapters, by PEFT's names, that are not saved.
    """
    backbone, attached = learner.backbone, learner.attached
    whole, rank = {**learner.frozen, **learner.tensors()}, None
    if learner.residual:
        whole, rank = merged(whole, learner.scaling, learner.residual)
    if len(attached.configs) > 1:
        adapter_files.save_mixed(attached.configs, whole, folder, rank, without)
    else:
        adapter_files.save(backbone.model, learner.adapter, whole, folder, rank)
    save_texts(backbone, folder)


def save_texts(backbone: Backbone, folder: Path) -> None:
    """Write the tokenizer, and a classifier's labels."""
    backbone.tokenizer.save_pretrained(str(folder))
    if backbone.labels:
        adapter_files.save_labels(backbone.labels, folder)


def reopen(learner: "AdaptedModel", folder: Path) -> None:
    """Raise UserError unless PEFT can open the saved adapter, and it has the same outputs."""
    examples = next((split[:2] for split in learner.splits.values() if split), ())
    batch = learner.batch(examples) if examples else None
    logits = None if batch is None else learner.forward(batch)
    reopened.check(folder, learner.backbone, batch, logits)
