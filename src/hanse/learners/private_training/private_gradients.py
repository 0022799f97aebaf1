"""Gradients of steps that hide each row: drawn in secret, limited row by row, with noise."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field

import torch
from torch import Tensor

from hanse.errors import UserError
from hanse.federation.interfaces.row_protection import RowProtection, Sampling
from hanse.learners.backbone import Backbone
from hanse.learners.batched_clients.client_view import ClientView
from hanse.learners.kernels import lora
from hanse.learners.private_training.row_gradients import RowGradients, hooked
from hanse.learners.training.batches import Batch, join
from hanse.learners.training.job import TrainingJob
from hanse.learners.training.timer import Stopwatch
from hanse.tensors.named import Tensors, norm, subtract

TOLERANCE = {
    torch.float32: 1e-3,
    torch.bfloat16: 0.1,
}  # relative, of a gradient; by the base's type
READ_AGAIN = (
    "the mechanism of privacy hides a silo's rows in one training alone, and something reads them "
    "beside it; choose another algorithm, such as fedavg, or privacy: none."
)
SMALL = 1e-6  # the norm of a difference that rounding makes


@contextmanager
def opened(
    job: TrainingJob, backbone: Backbone, adapter: str, protection: RowProtection
) -> Iterator["PrivateGradients"]:
    """Within this context, a training of a job gets gradients that hide each row.

    Raises UserError for a model whose rows are not computed each by itself.
    """
    parameters = dict(job.learner.parameters())
    with lora.by_modules(backbone.model.modules()), hooked(backbone.model, parameters) as rows:
        gradients = PrivateGradients(job, backbone, adapter, protection, rows)
        gradients.require_separate_rows()
        yield gradients


@dataclass
class PrivateGradients:
    """(Σᵢ sᵢgᵢ + noise) ÷ expected rows, where gᵢ is the gradient of one row's loss.

    A step's rows pass the model in parts of at most `per_device_train_batch_size`, so that memory
    holds the gradients of so many.
    """

    job: TrainingJob
    backbone: Backbone
    adapter: str
    protection: RowProtection
    rows: RowGradients
    _lengths: list[int] = field(init=False)

    def __post_init__(self) -> None:
        self._lengths = self.job.learner.lengths(self.job.split)

    @property
    def steps(self) -> int:
        return self._sampling.steps

    @property
    def kind(self) -> str:
        return str(self.protection)

    @property
    def _sampling(self) -> Sampling:
        return self.job.settings.sampling(len(self._lengths))

    def compute(self, step: int, watch: Stopwatch) -> tuple[Sequence[Batch], Tensor]:
        sampling, size = self._sampling, self.job.settings.per_device_train_batch_size
        drawn = sorted(self.protection.draw(sampling), key=self._lengths.__getitem__)
        parameters = self.job.learner.parameters()
        sums = {n: torch.zeros_like(p, dtype=torch.float64) for n, p in parameters.items()}
        batches, losses = [], torch.zeros((), device=self.backbone.device)
        for start in range(0, len(drawn), size):
            part = self._batches(drawn[start : start + size])
            watch.lap("data")
            losses = losses + self._backward(part, watch)
            self._add(sums, self._by_example(part))
            watch.lap("backward")
            batches += part
        for name, parameter in parameters.items():
            noise = self.protection.noise(parameter.shape).to(sums[name].device)
            mean = (sums[name] + noise) / sampling.expected
            parameter.grad = mean.to(parameter.dtype)
        return batches, losses

    def _batches(self, places: Sequence[int]) -> list[Batch]:
        """A batch of each of these examples."""
        learner = self.job.learner
        examples = learner.examples(self.job.split)
        return [learner.batch([examples[place]]) for place in places]

    def _backward(self, batches: Sequence[Batch], watch: Stopwatch) -> Tensor:
        """One backward pass of the sum of the examples' losses; returns Σ of the items' losses."""
        joined = join(batches)
        with self.backbone.with_cached_layers(self.adapter, joined.ids, joined.lengths):
            logits = self.backbone.logits(joined.ids, joined.at, joined.lengths)
        total, items = torch.zeros_like(logits[:0].sum()), torch.zeros_like(logits[:0].sum())
        for batch, own in zip(batches, logits.split(joined.counts), strict=True):
            if not batch.items:  # nothing to learn in this example
                continue
            loss = self.job.objective.loss(ClientView(self.job.learner, batch, own), batch)
            total, items = total + loss, items + loss.detach() * batch.items
        watch.lap("forward")
        total.backward()
        return items

    def _by_example(self, batches: Sequence[Batch]) -> dict[str, Tensor]:
        """(examples, numbers) the gradients of the last backward pass, flat.

        An example may be several rows of the model's input, one for each answer.
        """
        rows = len(batches[0].lengths)
        taken = self.rows.take(rows * len(batches))
        return {n: g.view(len(batches), rows, -1).sum(1) for n, g in taken.items()}

    def _add(self, sums: dict[str, Tensor], gradients: dict[str, Tensor]) -> None:
        """Add the gradients of some examples, each limited."""
        if not gradients:
            return
        squares = [g.double().square().sum(1) for g in gradients.values()]
        norms = torch.stack(squares).sum(0).sqrt()
        shares = self.protection.shares(norms)
        for name, gradient in gradients.items():
            known = gradient.double().where(shares[:, None] > 0, 0.0)  # 0 · ∞ is no number
            sums[name] += (shares @ known).view_as(sums[name])

    def require_separate_rows(self) -> None:
        """Raise UserError if an example's gradient is another one when it is alone in a batch.

        A model in which rows meet, as in experts that take the tokens of a whole batch, would let
        a row past the limit.
        """
        pair = self._batches([0, len(self._lengths) - 1])
        watch = Stopwatch(torch.device("cpu"))
        with self.job.learner.without_dropout():
            self._backward(pair, watch)
            together = self._by_example(pair)
            for place, batch in enumerate(pair):
                self._backward([batch], watch)
                alone = self._by_example([batch])
                one = {n: g[0] for n, g in alone.items()}
                other = {n: g[place] for n, g in together.items()}
                if not self._alike(one, other):
                    raise UserError(
                        f"{self.backbone.name} does not compute each row of a batch by itself, so "
                        "nothing could hide a row; choose another model, or privacy: none."
                    )

    def _alike(self, one: Tensors, other: Tensors) -> bool:
        """True if two computations of a gradient differ by rounding alone."""
        limit = TOLERANCE[torch.bfloat16 if self.backbone.bf16 else torch.float32]
        if one.keys() != other.keys():
            return False
        return norm(subtract(one, other)) <= limit * norm(one) + SMALL
