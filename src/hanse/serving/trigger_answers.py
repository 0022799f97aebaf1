"""A trained adapter's answers to an owner's trigger prompts: verification by answers alone."""

from collections.abc import Iterable
from itertools import chain
from pathlib import Path

import torch

from hanse.audit.ownership import triggers
from hanse.audit.ownership.key import OwnershipKey
from hanse.audit.ownership.verification import Detection
from hanse.errors import UserError
from hanse.experiment.assembly.resources import Resources, rendering
from hanse.experiment.schema import build_objective
from hanse.learners.adapted_model import AdaptedModel
from hanse.learners.training.marks import TRIGGERS
from hanse.serving import trained_adapter


def detected(
    folder: Path, key: OwnershipKey, overrides: Iterable[str] = (), trusted: bool = False
) -> Detection:
    """The detection of a key in the answers of a run's adapter, or of a PEFT folder (black box).

    Raises UserError for a key without triggers, and for a model that answers no prompts.
    trusted: true if all code that the run names may run.
    """
    if not key.triggers:
        raise UserError(
            f"the key of {key.owner:.80} has no triggers, so no answers tell of it; leave "
            "--prompts out, or train with a key that `hanse ownership key --triggers` makes."
        )
    trained = trained_adapter.find(folder, overrides, trusted)
    experiment, resources = trained.experiment, Resources()
    kind, labels = build_objective(experiment).example_kind, experiment.data.labels
    if kind not in triggers.KINDS:
        raise UserError(f"a model that learns {kind} answers no prompts; leave --prompts out.")
    backbone = resources.backbone(experiment.model, kind, labels)
    rows = triggers.rows(key, kind, labels, experiment.data.template)
    rendered = rendering(experiment, labels, kind, backbone).examples(rows)
    examples = [*chain.from_iterable(rendered)]
    learner = trained.learner(resources, {TRIGGERS: examples})
    trained.use(learner)
    if kind == "label_words":
        return Detection(_classified(learner), key.triggers, len(triggers.words_of(labels)))
    longest = max(len(example.ids) - example.prompt for example in examples)
    answers = learner.generate(examples, longest)
    return Detection(triggers.right(answers, key), key.triggers, triggers.ANSWERS)


def _classified(learner: AdaptedModel) -> int:
    """The number of trigger prompts to which a classifier answers with the secret class."""
    right = 0
    with torch.inference_mode():
        for _, batch in learner.batches(TRIGGERS, 16):
            right += int((learner.scores(batch).argmax(dim=1) == batch.choice).sum())
    return right
