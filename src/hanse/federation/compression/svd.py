"""FedKD's codec (Wu et al. 2021, 2108.13323): each matrix by its largest singular values."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Annotated, ClassVar

import torch
from pydantic import Field
from torch import Tensor

from hanse.errors import UserError
from hanse.federation.interfaces.declarations import Stage
from hanse.federation.interfaces.results import Memory
from hanse.federation.interfaces.transform import Transform
from hanse.federation.messages import Update
from hanse.randomness import RoundContext
from hanse.tensors.named import Bounded, Layout, Tensors, largest
from hanse.tensors.serialization import MessageError
from hanse.tensors.table import Entry, Table, floats, required

TABLE, RANKS, NUMBERS = "svd.table", "svd.ranks", "svd.numbers"
OWN = {TABLE, RANKS, NUMBERS}
RAW = -1  # in place of a rank: the tensor travels as it is
Energy = Annotated[float, Field(ge=0, lt=1)]


@dataclass(frozen=True)
class SVD(Transform):
    """Each matrix as U·Σ·Vᵀ with the fewest singular values whose squares exceed a share T.

    K is the least number with Σ_{i≤K} σᵢ² / Σ σᵢ² > T. The threshold T rises evenly from `start` in
    the first round to `end` in the last. A matrix (P, Q) takes K·(P + Q) numbers: the rows of
    √Σ·Uᵀ, then those of √Σ·Vᵀ. A matrix for which these are not fewer than P·Q numbers travels as
    it is, for example one with a flat spectrum, and so do tensors of other dimensions. Zeros take
    no numbers. Tensors of integers, and of floats with two bytes or fewer, pass by. Numbers travel
    as float32. A full decomposition of each matrix costs about P·Q·min(P, Q) operations.
    """

    linear: ClassVar[bool] = False
    multiplies: ClassVar[bool] = True
    stage: ClassVar[Stage | None] = "reduce"
    payloads: ClassVar[tuple[str, ...]] = ("change", "factors", "logits", "model")
    start: Energy = 0.95  # T in the first round
    end: Energy = 0.98  # T in the last round

    def __post_init__(self) -> None:
        if self.start > self.end:
            raise UserError(
                f"svd.start is {self.start:g} and svd.end is {self.end:g}, and the threshold rises "
                "over the run; give end the value of start or a larger one."
            )

    def layout(self, expected: Layout, state: Tensors) -> Layout:
        """A table, a rank for each tensor in it, and at most as many numbers as they have."""
        encoded = _encoded(expected)
        table = Table.of(encoded)
        passing = {name: form for name, form in expected.items() if name not in encoded}
        ranks = torch.empty(len(encoded), dtype=torch.int32, device="meta")
        numbers = Bounded(torch.empty(table.numbers, device="meta"))
        return {**passing, TABLE: Table.form(encoded), RANKS: ranks, NUMBERS: numbers}

    def encode(
        self, update: Update, memory: Memory, state: Tensors, context: RoundContext
    ) -> Update:
        """Encode by this round's threshold; raises UserError where that is not known."""
        threshold = self.threshold(context)
        encoded = _encoded(update.tensors)
        ranks, parts = [], [torch.empty(0)]
        for name in encoded:
            tensor = update.tensors[name].float()
            factors = _factors(tensor, threshold)
            ranks.append(RAW if factors is None else len(factors[0]))
            parts += [part.reshape(-1) for part in factors or [tensor]]
        tensors = {name: t for name, t in update.tensors.items() if name not in encoded}
        tensors[TABLE] = Table.of(encoded).to_tensor()
        tensors[RANKS] = torch.tensor(ranks, dtype=torch.int32)
        tensors[NUMBERS] = torch.cat(parts)
        return replace(update, tensors=tensors)

    def threshold(self, context: RoundContext) -> float:
        """T = start + (end − start)·t, where t is 0 in the first round and 1 in the last."""
        if self.start == self.end:
            return self.start
        if not context.rounds:
            raise UserError(
                f"the threshold of svd goes from {self.start:g} to {self.end:g} over the run, and "
                "the number of its rounds is not known here; give start and end the same value."
            )
        done = (context.round - 1) / max(1, context.rounds - 1)
        return self.start + (self.end - self.start) * min(max(done, 0.0), 1.0)

    def decoded_bytes(self, update: Update, state: Tensors) -> int:
        """The bytes of the tensors in the table, and of those that passed by."""
        passed = sum(t.numel() * t.itemsize for n, t in update.tensors.items() if n not in OWN)
        return Table.read(required(update.tensors, TABLE)).bytes + passed

    def decode(self, update: Update, state: Tensors, context: RoundContext) -> Update:
        """The products of the factors; raises MessageError for ranks and numbers that do not fit.

        Both the numbers that came and the size of the result bound its work.
        """
        data, ranks, numbers = (required(update.tensors, name) for name in (TABLE, RANKS, NUMBERS))
        if ranks.dim() != 1 or numbers.dim() != 1:
            shapes = f"ranks {tuple(ranks.shape)} and numbers {tuple(numbers.shape)}"
            raise MessageError(f"{shapes} came where svd sends two vectors")
        table = Table.read(data)
        if len(ranks) != len(table.entries):
            raise MessageError(f"{len(ranks)} ranks came for {len(table.entries)} tensors")
        entries, listed = list(table.entries.values()), ranks.tolist()
        lengths = list(map(_length, entries, listed))
        if sum(lengths) != len(numbers):
            raise MessageError(f"these ranks need {sum(lengths)} numbers, and {len(numbers)} came")
        parts = torch.split(numbers.float(), lengths) if lengths else ()
        tensors = {n: t for n, t in update.tensors.items() if n not in OWN}
        tensors |= zip(table.entries, map(_restored, entries, listed, parts), strict=True)
        return replace(update, tensors=tensors)


def _encoded(tensors: Layout) -> Layout:
    """The tensors that are encoded: the others are too narrow to become float32, or integers."""
    return {name: form for name, form in floats(tensors).items() if largest(form).itemsize > 2}


def _factors(matrix: Tensor, threshold: float) -> Sequence[Tensor] | None:
    """√Σ·Uᵀ (K, P) and √Σ·Vᵀ (K, Q) of a matrix (P, Q); None if it travels as it is."""
    if matrix.dim() != 2 or not bool(torch.isfinite(matrix).all()):
        return None  # a decomposition of NaN fails; the server refuses NaN by its own words
    u, values, vh = torch.linalg.svd(matrix, full_matrices=False)
    rank = _least(values, threshold)
    if rank * sum(matrix.shape) >= matrix.numel() > 0:
        return None
    root = values[:rank].sqrt()[:, None]
    return root * u.T[:rank], root * vh[:rank]


def _least(values: Tensor, threshold: float) -> int:
    """The least number of the first singular values with more than this share of all squares."""
    energy = values.double().square().cumsum(0)
    if not len(energy) or energy[-1] == 0:
        return 0
    return min(int((energy <= threshold * energy[-1]).sum()) + 1, len(energy))


def _length(entry: Entry, rank: int) -> int:
    """The number of numbers that a tensor of this rank takes; raises MessageError for a bad one."""
    if rank == RAW:
        return entry.numbers
    length = rank * sum(entry.shape)
    if rank < 0 or len(entry.shape) != 2 or length > entry.numbers:
        raise MessageError(f"svd sends no tensor {entry.shape} by {rank} singular values")
    return length


def _restored(entry: Entry, rank: int, numbers: Tensor) -> Tensor:
    """The tensor with these numbers."""
    if rank != RAW:
        up, down = torch.split(numbers, [rank * side for side in entry.shape])
        numbers = up.reshape(rank, entry.shape[0]).T @ down.reshape(rank, entry.shape[1])
    return numbers.reshape(entry.shape).to(entry.dtype)
