"""The optimizer of clients that train together: steps, clipping and penalty of each client."""

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.optim import SGD, AdamW, Optimizer

from hanse.learners.batched_clients.member import STEP, Member
from hanse.learners.batched_clients.stacked_adapters import StackedAdapters
from hanse.learners.training import optimizer_state


class BatchedOptimizer:
    """One of torch's optimizers for stacked adapters, with a group of settings for each client.

    Each client's steps are those that it would do by itself.
    members: in the order of the stack's rows.
    """

    def __init__(self, stack: StackedAdapters, members: Sequence[Member]) -> None:
        self._stack, self._members = stack, members
        self._rows = list(stack.rows.detach())
        self._optimizer = _optimizer(self._rows, members)
        limits = [member.job.settings.max_grad_norm or torch.inf for member in members]
        self._limits = torch.tensor(limits, device=stack.rows.device)
        for row, member in zip(self._rows, members, strict=True):
            if member.job.keeps_optimizer_state and member.job.optimizer_state:
                self._optimizer.state[row] = self._restored(row, member)

    def step(self, rates: Sequence[float]) -> Tensor:
        """One step of the first clients, with these learning rates; the others do not change.

        Returns the share of each client's gradient that clipping has left.
        """
        gradient = self._stack.rows.grad
        assert gradient is not None  # a step has at least one batch
        active = len(rates)
        clients = zip(self._members[:active], self._rows, gradient, strict=False)
        for member, row, client_gradient in clients:
            if member.job.penalty is not None:
                self._penalize(member, row, client_gradient)
        norms = gradient[:active].norm(dim=1)
        share = optimizer_state.remaining_share(self._limits[:active], norms)
        gradient[:active].mul_(share[:, None])
        groups = zip(self._rows, self._optimizer.param_groups, strict=True)
        for index, (row, group) in enumerate(groups):
            row.grad = gradient[index] if index < active else None
            group["lr"] = rates[index] if index < active else 0.0
        self._optimizer.step()
        self._stack.rows.grad = None
        return share

    def write_back(self) -> None:
        """Give each client its trained tensors and its optimizer's state."""
        for row, member in zip(self._rows, self._members, strict=True):
            if member.job.keeps_optimizer_state:
                self._write_state(row, member)
            views = self._stack.views(row.detach().cpu(), member.tensors)
            member.tensors = {name: view.clone() for name, view in views.items()}

    def _write_state(self, row: Tensor, member: Member) -> None:
        """Replace a client's optimizer state of all trained tensors."""
        like, states = member.tensors, member.job.optimizer_state
        for key in [key for key in states if key.rpartition(":")[0] in like]:
            del states[key]
        for state, tensor in self._optimizer.state[row].items():
            value = tensor.detach().cpu()
            values = self._stack.views(value, like) if value.dim() else dict.fromkeys(like, value)
            for name, part in values.items():
                states[f"{name}:{state}"] = part.clone()

    def _penalize(self, member: Member, row: Tensor, gradient: Tensor) -> None:
        """Add a penalty's gradient to a client's."""
        assert member.job.penalty is not None
        live = self._stack.views(row.detach(), member.tensors)
        grads = self._stack.views(gradient, member.tensors)
        for name, view in live.items():
            view.requires_grad_()
            view.grad = grads[name]  # backward adds to it in place
        member.job.penalty(live).backward()

    def _restored(self, row: Tensor, member: Member) -> dict[str, Tensor]:
        """The optimizer's state of a client's row, from the state of its tensors."""
        restored: dict[str, Tensor] = {}
        for key, value in member.job.optimizer_state.items():
            name, _, state = key.rpartition(":")
            if name not in member.tensors:
                continue  # the tensor is not trained this time
            if state == STEP:
                restored[state] = value.clone().to(row.device)
                continue
            state_row = restored.setdefault(state, torch.zeros_like(row))
            self._stack.views(state_row, member.tensors)[name].copy_(value)
        return restored


def _optimizer(rows: list[Tensor], members: Sequence[Member]) -> Optimizer:
    """One optimizer with a group for each client."""
    groups = [
        {"params": [row], "weight_decay": member.job.settings.weight_decay}
        for row, member in zip(rows, members, strict=True)
    ]
    if members[0].job.settings.optim == "sgd":
        for group, member in zip(groups, members, strict=True):
            group["momentum"] = member.job.settings.momentum
        return SGD(groups, lr=0.0, fused=True)
    return AdamW(groups, lr=0.0, fused=True)
