"""The choices of each silo with their gain, bytes and seconds: scores and measured steps combined.

Reconstruction, as the paper has no published code. A rank r of at most R gains the matrix's score
times log(1 + r)/log(1 + R). A form of training gains the root of the share of rows that it trains
on, less a little for each bit that the base lacks, and a very little for its time, so that of forms
alike the fastest is taken. All scores together gain 1, as does the training on all rows.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from hanse.planning.fedpipe.cost_model import StepSetting
from hanse.planning.fedpipe.problem import Choice, Problem, SiloChoices
from hanse.planning.fedpipe.silos import Silo
from hanse.planning.fedpipe.step_probes import StepModel

SHARES = (1.0, 0.75, 0.5, 0.375, 0.25, 0.125)  # of a round's rows, if a bound on it is given
MOST_ROWS = 64  # of a batch
KEPT = 0.95  # of all scores, which the kept matrices have
TRAINED = 16  # bytes of a trained number: it, its gradient, and two moments in float32
SENT = 4  # bytes of a number on the way
RUNTIME = 5e8  # bytes of Python and its libraries on a simulated device; reconstruction
FAST = 1e-4  # the gain of a round that takes no time


@dataclass(frozen=True)
class Matrix:
    """A matrix that may have an adapter. size: rows and columns. depth: as in `Problem.depths`."""

    name: str
    size: int
    score: float
    depth: int


@dataclass(frozen=True)
class Precision:
    """A form of the base in memory.

    name: of model.quantization; empty: as the experiment has it. memory: bytes of the process at
    rest. slower: seconds of its steps ÷ those of the experiment's own. loss: of gain.
    """

    name: str
    memory: float
    slower: float
    loss: float


@dataclass(frozen=True)
class Form:
    """One way of training: its precision, rows of a batch, upper layers, and share of rows."""

    precision: Precision
    rows: int
    depth: int
    share: float

    @property
    def name(self) -> str:
        """The form, as messages name it."""
        bits = self.precision.name or "the base as it is"
        part = "" if self.share == 1 else f", {100 * self.share:g} % of the rows"
        return f"{bits}, batches of {self.rows}, the upper {self.depth} layers{part}"


@dataclass(frozen=True)
class Means:
    """All that choices are made of.

    rank: the largest. layers: of the model. shares: of a round's rows that a silo may train on.
    around: bytes of this process at rest beside the base's weights.
    """

    matrices: Sequence[Matrix]
    steps: StepModel
    precisions: Sequence[Precision]
    rank: int
    layers: int
    shares: Sequence[float]
    around: float = 0.0

    def at_rest(self, silo: Silo, precision: Precision) -> float:
        """The bytes at rest: of a process such as this one, or of weights on a simulated device.

        What this process holds beside the weights, such as rows, says nothing of a device.
        """
        device = RUNTIME - self.around if silo.machine.device else 0.0
        return precision.memory + device

    def is_short(self, silo: Silo) -> bool:
        """True if a silo's memory does not hold the base as it is, with all layers.

        Batches are the smallest of its forms: of one row, but packed ones keep their size.
        """
        rows = min(_batch_sizes(silo))
        setting = StepSetting(rows, silo.longest, 0, self.layers)
        return silo.machine.memory < (
            self.at_rest(silo, self.precisions[0]) + self.steps.bytes(setting)
        )

    def seconds(self, silo: Silo, setting: StepSetting) -> float:
        """The seconds of a silo's step with the base as the experiment has it."""
        return silo.machine.slower * self.steps.seconds(setting, silo.machine.steps)

    @property
    def layer_size(self) -> float:
        """The mean sum of the sizes of a layer's matrices."""
        return sum(matrix.size for matrix in self.matrices) / self.layers

    @property
    def ranks(self) -> list[int]:
        """The ranks that a matrix may have: the powers of two from 2 that are below R, and R."""
        return sorted({self.rank} | {2**n for n in range(1, 17) if 2**n < self.rank})


def forms(silo: Silo, means: Means) -> list[Form]:
    """The forms of training at a silo; the rows of an optimizer step stay those of its settings.

    The base has fewer bits only where the silo's memory is short.
    """
    precisions = means.precisions if means.is_short(silo) else means.precisions[:1]
    depths = sorted({max(1, means.layers * n // 4) for n in (1, 2, 3, 4)})
    return [
        Form(precision, rows, depth, share)
        for precision in precisions
        for rows in _batch_sizes(silo)
        for depth in depths
        for share in means.shares
    ]


def _batch_sizes(silo: Silo) -> list[int]:
    """The rows that a batch of a silo may have."""
    usual, batch = silo.train.per_device_train_batch_size, silo.train.batch
    if silo.train.packing:
        return [usual]
    return [n for n in range(1, batch + 1) if batch % n == 0 and n <= max(MOST_ROWS, usual)]


def usual_seconds(silo: Silo, means: Means) -> float:
    """The seconds of a round with the experiment's own settings: the largest rank everywhere."""
    size = silo.train.per_device_train_batch_size
    setting = StepSetting(size, silo.mean, means.rank, means.layers)
    travel = silo.travel(SENT * means.rank * means.layers * means.layer_size)
    return silo.batches(size, 1.0) * means.seconds(silo, setting) + silo.latency + travel


def problem(silos: Sequence[Silo], means: Means, bound: float) -> Problem:
    """The problem of all silos, with the fewest matrices that have most of the scores."""
    rows = sum(silo.rows for silo in silos)
    choices = tuple(
        SiloChoices(
            silo.name,
            silo.rows / rows,
            silo.machine.memory,
            tuple(_form(silo, form, means, bound) for form in forms(silo, means)),
            tuple(_ranks(silo, matrix, means) for matrix in means.matrices),
        )
        for silo in silos
    )
    depths = tuple(matrix.depth for matrix in means.matrices)
    return Problem(choices, bound, _kept(means.matrices), depths)


def _kept(matrices: Sequence[Matrix]) -> int:
    """The number of matrices that have `KEPT` of the scores, the highest first."""
    total, count = 0.0, 0
    for score in sorted((matrix.score for matrix in matrices), reverse=True):
        if total >= KEPT:
            break
        total, count = total + score, count + 1
    return max(1, count)


def _form(silo: Silo, form: Form, means: Means, bound: float) -> Choice:
    steps, precision = means.steps, form.precision
    step = precision.slower * means.seconds(silo, StepSetting(form.rows, silo.mean, 0, form.depth))
    seconds = silo.batches(form.rows, form.share) * step + silo.latency
    memory = means.at_rest(silo, precision) + steps.bytes(
        StepSetting(form.rows, silo.longest, 0, form.depth)
    )
    gain = math.sqrt(form.share) - precision.loss - FAST * seconds / bound
    return Choice(form.name, gain, memory, seconds, form.depth)


def _ranks(silo: Silo, matrix: Matrix, means: Means) -> tuple[Choice, ...]:
    """The ranks of a matrix. Their seconds and bytes are those with the silo's own batches."""
    part = matrix.size / means.layer_size
    size = silo.train.per_device_train_batch_size
    none, one = (StepSetting(size, silo.mean, rank, 1) for rank in (0, 1))
    step = means.seconds(silo, one) - means.seconds(silo, none)
    seconds = part * silo.batches(size, 1.0) * step
    long = [StepSetting(size, silo.longest, rank, 1) for rank in (0, 1)]
    kept = part * (means.steps.bytes(long[1]) - means.steps.bytes(long[0]))
    return tuple(
        Choice(
            f"rank {rank}",
            matrix.score * math.log1p(rank) / math.log1p(means.rank),
            rank * (TRAINED * matrix.size + kept),
            rank * seconds + silo.travel(SENT * rank * matrix.size),
        )
        for rank in means.ranks
    )
