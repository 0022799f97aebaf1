"""Private training as it is written in the paper: a loop over the rows of each step."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from hanse.federation.interfaces.row_protection import RowProtection
from hanse.learners.training.job import TrainingJob
from hanse.learners.training.timer import Stopwatch


@dataclass
class RowLoop:
    """(Σᵢ sᵢgᵢ + noise) ÷ expected rows, one row after another."""

    job: TrainingJob
    protection: RowProtection
    kind: str = "a loop over rows"

    @property
    def sampling(self) -> Any:
        return self.job.settings.sampling(len(self.job.learner.examples(self.job.split)))

    @property
    def steps(self) -> int:
        return int(self.sampling.steps)

    def compute(self, step: int, watch: Stopwatch) -> tuple[Sequence[Any], Tensor]:
        learner, sampling = self.job.learner, self.sampling
        live, examples = learner.parameters(), learner.examples(self.job.split)
        total = {n: torch.zeros_like(p, dtype=torch.float64) for n, p in live.items()}
        batches, losses = [], torch.zeros(())
        for place in self.protection.draw(sampling):
            batches.append(learner.batch([examples[place]]))
            for parameter in live.values():
                parameter.grad = None
            loss = self.job.objective.loss(learner, batches[-1])
            loss.backward()
            losses = losses + loss.detach() * batches[-1].items
            found = {n: p.grad.double() for n, p in live.items() if p.grad is not None}
            length = torch.cat([g.flatten() for g in found.values()]).norm()
            share = self.protection.shares(length[None])[0]
            total = {n: t + share * found[n] if n in found else t for n, t in total.items()}
        for name, parameter in live.items():
            noise = self.protection.noise(parameter.shape)
            parameter.grad = ((total[name] + noise) / sampling.expected).to(parameter.dtype)
        return batches, losses
