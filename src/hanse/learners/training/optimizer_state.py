"""A step of one client's optimizer, and its state as named tensors."""

from collections.abc import Iterable, Mapping

import torch
from torch import Tensor
from torch.nn import Parameter
from torch.optim import Optimizer

from hanse.federation.interfaces.results import Memory


def clip(parameters: Iterable[Parameter], limit: float) -> Tensor | float:
    """Shorten the gradients together to a norm of `limit`, 0 for any; what is left, as a share."""
    if not limit:
        return 1.0
    norm = torch.nn.utils.clip_grad_norm_(parameters, limit)
    return share(limit, norm)


def share(limit: float | Tensor, norms: Tensor) -> Tensor:
    """What clipping leaves of gradients of these norms, as torch's clip_grad_norm_ has it."""
    return (limit / (norms + 1e-6)).clamp(max=1.0)


def move(optimizer: Optimizer, rate: float) -> None:
    """One step along the gradients, which are then gone."""
    for group in optimizer.param_groups:
        group["lr"] = rate
    optimizer.step()
    optimizer.zero_grad()


def restore(optimizer: Optimizer, parameters: Mapping[str, Parameter], kept: Memory) -> None:
    """Give the optimizer the state it had; keys are "tensor's name:state's name"."""
    states = [(*key.rpartition(":")[::2], value) for key, value in kept.items()]
    # What an instruction has reshaped or taken away since starts afresh.
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


def keep(optimizer: Optimizer, parameters: Mapping[str, Parameter], kept: Memory) -> None:
    """Put the state into `kept`, in place of what it had of the same parameters."""
    for key in [key for key in kept if key.rpartition(":")[0] in parameters]:
        del kept[key]
    kept.update(state_of(optimizer, parameters))
