"""Torch's optimizers for one client, and their state as named tensors."""

from collections.abc import Mapping
from typing import TYPE_CHECKING

import torch
from torch.nn import Parameter
from torch.optim import SGD, AdamW, Optimizer

from hanse.values import Memory

if TYPE_CHECKING:
    from hanse.learners.training import Training


def build(settings: "Training", parameters: Mapping[str, Parameter]) -> Optimizer:
    """The optimizer that the settings ask for."""
    rate, decay, own = settings.learning_rate, settings.weight_decay, list(parameters.values())
    if settings.optim == "sgd":
        return SGD(own, rate, momentum=settings.momentum, weight_decay=decay)
    return AdamW(own, rate, weight_decay=decay)


def move(optimizer: Optimizer, rate: float) -> None:
    """One step along the gradients, which are then gone."""
    for group in optimizer.param_groups:
        group["lr"] = rate
    optimizer.step()
    optimizer.zero_grad()


def restore(optimizer: Optimizer, parameters: Mapping[str, Parameter], kept: Memory) -> None:
    """Give the optimizer the state it had; keys are "tensor's name:state's name"."""
    states = [(*key.rpartition(":")[::2], value) for key, value in kept.items()]
    # What an order has reshaped or taken away since starts afresh.
    strange = {
        name
        for name, _, value in states
        if name not in parameters or (value.dim() and value.shape != parameters[name].shape)
    }
    for name, state, value in states:
        if name in strange:
            continue
        parameter = parameters[name]
        # AdamW's step counter stays on the CPU, everything else beside its parameter.
        place = "cpu" if state == "step" else parameter.device
        optimizer.state[parameter][state] = value.clone().to(place)


def state_of(optimizer: Optimizer, parameters: Mapping[str, Parameter]) -> Memory:
    """What `restore` takes, on the CPU."""
    return {
        f"{name}:{state}": value.detach().cpu().clone()
        for name, parameter in parameters.items()
        for state, value in optimizer.state[parameter].items()
        if isinstance(value, torch.Tensor)
    }
