"""Training of an adapted model: by itself, with models beside it, or in one pass with clients."""

import logging
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from typing import TYPE_CHECKING

import torch

from hanse.errors import UserError
from hanse.federation.interfaces.results import TrainResult
from hanse.federation.interfaces.row_protection import RowProtection
from hanse.federation.interfaces.trained_tensors import SHARE
from hanse.learners.injection.attached_adapter import without_gradients
from hanse.learners.models import gradient_checkpointing
from hanse.learners.private_training import private_gradients
from hanse.learners.training.job import TrainingJob
from hanse.learners.training.loop import fit
from hanse.learners.training.out_of_memory import shortage_as_user_error
from hanse.learners.training.settings import TrainingSettings
from hanse.tensors.low_rank import RESIDUAL
from hanse.tensors.named import add_prefix
from hanse.tensors.serialization import Numbers

if TYPE_CHECKING:
    from hanse.learners.adapted_model import AdaptedModel

log = logging.getLogger(__name__)


def train(learner: "AdaptedModel", job: TrainingJob) -> TrainResult:
    """Do the training of a job, whose learner is this one.

    Raises UserError if something of it cannot be trained, or must not be trained together.
    """
    if learner.sealed and (job.beside or job.settings is not learner.training):
        raise UserError(private_gradients.READ_AGAIN)  # the account is for one training by itself
    protection, learner.protection = learner.protection, None
    if protection is not None:
        unclipped = replace(learner.training, max_grad_norm=0.0)
        job = replace(job, learner=replace(learner, sealed=False), settings=unclipped)
    elif learner.together is not None and not learner.sealed and not job.beside:
        member = learner.member(job)
        if member.joins:
            result = learner.together(member)
            learner.load({**member.tensors, **add_prefix(RESIDUAL, learner.residual)})
            return result
    beside = [learner.models[name] for name in job.beside]
    for model in (learner, *beside):
        _refuse_frozen(model)
    _refuse_recomputed([learner, *beside])
    # Dropout draws from torch's global generator.
    with shortage_as_user_error(), torch.random.fork_rng(), ExitStack() as contexts:
        for model in (*beside, learner):
            contexts.enter_context(_in_training(model))
        context = learner.context
        seed = protection.dropout_seed() if protection else context.derive("dropout")
        _seed(learner.backbone.device, seed)
        return _fit(learner, job, protection)


def shortened(learner: "AdaptedModel", numbers: Numbers) -> TrainingSettings:
    """The learner's settings with the share of a round's steps that an instruction asks for.

    It is one step at least, and never more than the learner's own. Raises UserError for a number
    that is no share.
    """
    share = numbers.get(SHARE, 1.0)
    if not 0 < share <= 1:
        raise UserError(
            f"the server asks for {share:g} of the steps of a round; a share is above 0 and at "
            "most 1."
        )
    if share < 1 and learner.sealed:  # the account is for all of them
        log.warning("all steps are made, as the noise that hides rows is of all, and not a share")
    if share == 1 or learner.sealed:
        return learner.training
    steps = learner.training.steps(learner.row_count("train"))
    return replace(learner.training, max_steps=max(1, int(share * steps)))


def _seed(device: torch.device, seed: int) -> None:
    """Seed torch's global generators, from which dropout draws on this device.

    For each device that the process does not use, `torch.manual_seed` formats a traceback, which
    costs a small client up to a millisecond.
    """
    if device.type == "cpu":
        torch.default_generator.manual_seed(seed)
    else:
        torch.manual_seed(seed)


def _fit(
    learner: "AdaptedModel", job: TrainingJob, protection: RowProtection | None
) -> TrainResult:
    if protection is None:
        return fit(job, learner.checkpoint)
    with private_gradients.opened(job, learner.backbone, learner.adapter, protection) as hidden:
        return fit(job, learner.checkpoint, hidden)


@contextmanager
def _in_training(learner: "AdaptedModel") -> Iterator[None]:
    """Within this context, a learner's dropout is on, and its frozen tensors get no gradients."""
    live = learner.attached.parameters
    with (
        learner.backbone.with_dropout(learner.adapter),
        without_gradients(live[name] for name in learner.frozen),
        learner.backbone.with_residual(learner.residual),
    ):
        yield


def _refuse_frozen(learner: "AdaptedModel") -> None:
    if not learner.parameters():
        raise UserError(
            f"{learner.backbone.name} has no adapter here, so nothing of it can be trained; give "
            "it one in `models`, or choose parts that leave it frozen."
        )


def _refuse_recomputed(learners: "list[AdaptedModel]") -> None:
    """Raise UserError for two adapters of a base whose layers are computed in the backward pass.

    They would be computed with the adapter that was active last.
    """
    backbones = [learner.backbone for learner in learners]
    for backbone in backbones:
        shared = sum(other is backbone for other in backbones) > 1
        if shared and gradient_checkpointing.recomputed(backbone.model):
            raise UserError(
                f"two adapters of {backbone.name} cannot be trained in the same steps with "
                "gradient_checkpointing, which computes its layers again with one of them; turn "
                "it off for one of the models, which are then loaded apart."
            )
