"""A smaller middle is trained to be like the whole model's (Xiao et al. 2023, 2302.04870, §3.3)."""

import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Annotated, Any

import torch
from pydantic import Field, PositiveInt
from torch import Tensor
from torch.nn import Module
from torch.nn.functional import cross_entropy
from torch.optim import AdamW

from hanse.data.example import Example
from hanse.errors import UserError
from hanse.learners.models.emulators.shrink import Emulator
from hanse.learners.models.heads.language_model import LanguageModel
from hanse.learners.models.layers import layer_list
from hanse.learners.training.batches import Batch, collate, to_device
from hanse.learners.training.out_of_memory import is_shortage
from hanse.observability.progress import track
from hanse.observability.steps import Activity, Work

CPU = torch.device("cpu")
Losses = dict[str, float]  # "lm", "kd"
WARMUP = 0.1  # share of the steps in which the learning rate rises
Weight = Annotated[float, Field(ge=0, allow_inf_nan=False)]
MOST_RATE = 1e6
LIMIT = 1.0  # of the norm of a step's gradient


@dataclass(frozen=True)
class Distillation:
    """The training of a middle: lm_weight·LM + kd_weight·MSE of states at the middle's end.

    LM: the emulator's cross-entropy on the texts. MSE: the mean of ((h - e)/rms(h))² over the
    batch's tokens, for the whole model's states h and the emulator's e; rms(h) = √mean(h²) over the
    same tokens. AdamW, with a rise of the learning rate and then a cosine, which the paper has for
    longer trainings; the share of the rise and the limit of gradients are a reconstruction.
    """

    steps: PositiveInt = 500
    learning_rate: Annotated[float, Field(gt=0, le=MOST_RATE)] = 1e-4
    lm_weight: Weight = 1.0
    kd_weight: Weight = 30.0
    batch_size: PositiveInt = 8
    seed: Annotated[int, Field(ge=0, lt=2**31)] = 0

    def rate(self, step: int) -> float:
        """The learning rate of a step, counted from 0."""
        rise = max(1, round(WARMUP * self.steps))
        if step < rise:
            return self.learning_rate * (step + 1) / rise
        progress = (step - rise) / max(1, self.steps - rise)
        return self.learning_rate * (1 + math.cos(math.pi * progress)) / 2

    def batches(self, examples: Sequence[Example]) -> Iterator[list[Example]]:
        """The examples of each step: passes over all of them, each in an order of its own."""
        draws = torch.Generator().manual_seed(self.seed)
        order: list[int] = []
        for _ in range(self.steps):
            while len(order) < self.batch_size:
                order += torch.randperm(len(examples), generator=draws).tolist()
            yield [examples[place] for place in order[: self.batch_size]]
            del order[: self.batch_size]


def distill(
    whole: Any,
    emulator: Emulator,
    examples: Sequence[Example],
    settings: Distillation,
    device: torch.device = CPU,
) -> list[Losses]:
    """Train an emulator's middle in place; return the losses of each step.

    whole: the model that it was made of, in the same precision; it stays as it is. device: where
    both are during the training; then they are on the CPU again. Raises UserError at the first loss
    or gradient that is not finite, and if memory does not suffice.
    """
    try:
        for model in (whole, emulator.model):  # a weight that both have is moved once
            model.to(device)
        losses = _distill(whole, emulator, examples, settings)
    except Exception as error:
        if not is_shortage(error):
            raise
        raise UserError(
            f"memory does not suffice for the distillation ({str(error).strip():.200}); lower "
            "--batch-size or --max-length, or let the compressor keep fewer layers."
        ) from None
    for model in (whole, emulator.model):
        model.to(CPU)
    return losses


def _distill(
    whole: Any, emulator: Emulator, examples: Sequence[Example], settings: Distillation
) -> list[Losses]:
    for parameter in (*whole.parameters(), *emulator.model.parameters()):
        parameter.requires_grad_(False)
    trained = [parameter for layer in emulator.middle for parameter in layer.parameters()]
    for parameter in trained:
        parameter.requires_grad_(True)
    optimizer = AdamW(trained, weight_decay=0.0)
    work, losses = Work(Activity.DISTILLING, total=settings.steps), []
    for step, rows in enumerate(track(settings.batches(examples), work)):
        batch = collate(rows, trained[0].device)
        lm, kd = _losses(whole, emulator, batch)
        (settings.lm_weight * lm + settings.kd_weight * kd).backward()
        norm = torch.nn.utils.clip_grad_norm_(trained, LIMIT)
        _refuse_infinite(step, settings, lm, kd, norm)
        optimizer.param_groups[0]["lr"] = settings.rate(step)
        optimizer.step()
        optimizer.zero_grad()
        losses.append({"lm": float(lm.detach()), "kd": float(kd.detach())})
    for parameter in trained:
        parameter.requires_grad_(False)
    return losses


def _refuse_infinite(step: int, settings: Distillation, *numbers: Tensor) -> None:
    """Raise UserError unless all numbers after so many steps are finite."""
    if all(bool(number.isfinite()) for number in numbers):
        return
    if step == 0:
        raise UserError(
            "the model's states on these texts are not finite numbers, so nothing can be learned "
            "from them; choose other texts, or a model with finite weights."
        )
    raise UserError(
        f"the distillation diverges: after {step} of {settings.steps} steps its losses are not "
        f"finite; lower --learning-rate, which is {settings.learning_rate:g}."
    )


def _losses(whole: Any, emulator: Emulator, batch: Batch) -> tuple[Tensor, Tensor]:
    """The emulator's cross-entropy, and its distance from the whole model at the middle's end."""
    top, device = emulator.cut.top, batch.targets.device
    host = (batch.ids, batch.at, torch.tensor(batch.lengths))
    ids, at, lengths = to_device(host, device)
    with torch.no_grad(), _inputs(whole, top) as states:
        whole.base_model(input_ids=ids, use_cache=False)
    with _inputs(emulator.model, top) as own:
        logits = LanguageModel().logits(emulator.model, ids, at, lengths)
    real = torch.arange(ids.shape[1], device=device) < lengths[:, None]
    return cross_entropy(logits.float(), batch.targets), distance(states[0][real], own[0][real])


def distance(states: Tensor, others: Tensor) -> Tensor:
    """The mean of ((h - e)/rms(h))² of states h (N, width) and others e."""
    return ((states - others) / states.square().mean().sqrt()).square().mean()


@contextmanager
def _inputs(model: Any, top: int) -> Iterator[list[Tensor]]:
    """Within this context, the inputs of the first of a model's top layers are collected."""
    seen: list[Tensor] = []

    def see(_: Module, inputs: tuple[Any, ...], named: dict[str, Any]) -> None:
        seen.append(inputs[0] if inputs else named["hidden_states"])

    layer = layer_list(model)[1][-top]
    handle = layer.register_forward_pre_hook(see, with_kwargs=True)
    try:
        yield seen
    finally:
        handle.remove()
