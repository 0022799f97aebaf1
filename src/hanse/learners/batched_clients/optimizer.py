"""The optimizer of a cohort: each client's steps, clipping and penalty as if it were alone."""

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.optim import SGD, AdamW, Optimizer

from hanse.learners.batched_clients.member import STEP, Member
from hanse.learners.batched_clients.stacked_adapters import StackedAdapters
from hanse.learners.training import optimizer_state


class Steps:
    """One of torch's optimizers over a stack, with a group of settings for each client.

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
        """One step of the first clients, with these learning rates; the others stay as they are.

        Returns what clipping has left of each one's gradient, as a share.
        """
        gradient = self._stack.rows.grad
        assert gradient is not None  # a step has at least one batch
        active = len(rates)
        for member, row, own in zip(self._members[:active], self._rows, gradient, strict=False):
            if member.job.penalty is not None:
                self._penalize(member, row, own)
        share = optimizer_state.remaining_share(
            self._limits[:active], gradient[:active].norm(dim=1)
        )
        gradient[:active].mul_(share[:, None])
        for index, (row, group) in enumerate(
            zip(self._rows, self._optimizer.param_groups, strict=True)
        ):
            row.grad = gradient[index] if index < active else None
            group["lr"] = rates[index] if index < active else 0.0
        self._optimizer.step()
        self._stack.rows.grad = None
        return share

    def leave(self) -> None:
        """Hand each client what it has trained, and its optimizer's state."""
        for row, member in zip(self._rows, self._members, strict=True):
            like = member.tensors
            if member.job.keeps_optimizer_state:
                states = member.job.optimizer_state
                for key in [key for key in states if key.rpartition(":")[0] in like]:
                    del states[key]
                for state, value in self._optimizer.state[row].items():
                    held = value.detach().cpu()
                    own = self._stack.views(held, like) if held.dim() else dict.fromkeys(like, held)
                    for name, tensor in own.items():
                        states[f"{name}:{state}"] = tensor.clone()
            views = self._stack.views(row.detach().cpu(), like)
            member.tensors = {name: view.clone() for name, view in views.items()}

    def _penalize(self, member: Member, row: Tensor, gradient: Tensor) -> None:
        """Add a penalty's gradient to a client's."""
        assert member.job.penalty is not None
        live = self._stack.views(row.detach(), member.tensors)
        grads = self._stack.views(gradient, member.tensors)
        for name, view in live.items():
            view.requires_grad_()
            view.grad = grads[name]  # what flows in is added in place
        member.job.penalty(live).backward()

    def _restored(self, row: Tensor, member: Member) -> dict[str, Tensor]:
        """The optimizer's state of a client's row, from what it kept."""
        found: dict[str, Tensor] = {}
        for key, value in member.job.optimizer_state.items():
            name, _, state = key.rpartition(":")
            if name not in member.tensors:
                continue  # of what is not trained this time
            if state == STEP:
                found[state] = value.clone().to(row.device)
                continue
            whole = found.setdefault(state, torch.zeros_like(row))
            self._stack.views(whole, member.tensors)[name].copy_(value)
        return found


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
