"""Steps of one client's optimizer, and its state as named tensors."""

from collections.abc import Iterable, Mapping

import torch
from torch import Tensor
from torch.nn import Parameter
from torch.optim import Optimizer

from hanse.federation.interfaces.results import Memory


def clip(parameters: Iterable[Parameter], limit: float) -> Tensor | float:
    """Clip the gradients to a common norm (limit 0: any norm); return the share that is left."""
    if not limit:
        return 1.0
    norm = torch.nn.utils.clip_grad_norm_(parameters, limit)
    return remaining_share(limit, norm)


def remaining_share(limit: float | Tensor, norms: Tensor) -> Tensor:
    """The factor by which torch's clip_grad_norm_ multiplies gradients of these norms."""
    return (limit / (norms + 1e-6)).clamp(max=1.0)


def step(optimizer: Optimizer, rate: float) -> None:
    """Do one step with this learning rate, and clear the gradients."""
    for group in optimizer.param_groups:
        group["lr"] = rate
    optimizer.step()
    optimizer.zero_grad()


def restore(optimizer: Optimizer, parameters: Mapping[str, Parameter], memory: Memory) -> None:
    """Give the optimizer its earlier state; keys are "tensor's name:state's name"."""
    states = [(*key.rpartition(":")[::2], value) for key, value in memory.items()]
    # Tensors that an instruction has reshaped or removed since then start without a state.
    changed = {
        name
        for name, _, value in states
        if name not in parameters or (value.dim() and value.shape != parameters[name].shape)
    }
    for name, state, value in states:
        if name in changed:
            continue
        parameter = parameters[name]
        # AdamW's step counter stays on the CPU, everything else beside its parameter.
        device = "cpu" if state == "step" else parameter.device
        optimizer.state[parameter][state] = value.clone().to(device)


def state_of(optimizer: Optimizer, parameters: Mapping[str, Parameter]) -> Memory:
    """The optimizer's state as `restore` takes it, on the CPU."""
    return {
        f"{name}:{state}": value.detach().cpu().clone()
        for name, parameter in parameters.items()
        for state, value in optimizer.state[parameter].items()
        if isinstance(value, torch.Tensor)
    }


def save(optimizer: Optimizer, parameters: Mapping[str, Parameter], memory: Memory) -> None:
    """Put the optimizer's state into `memory`, and remove older states of the same parameters."""
    for key in [key for key in memory if key.rpartition(":")[0] in parameters]:
        del memory[key]
    memory.update(state_of(optimizer, parameters))
