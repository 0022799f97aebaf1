"""Logits as a payload: the largest of each row, and the mass of all others as one number.

`rest` is the logarithm of Σ exp(logit) over the classes that are left out. With it as the logit of
one more class, a row's softmax is the whole distribution, in which the others are one class. It
holds at the temperature at which it was taken: divide the logits by the temperature first.

A row of k values takes k·(e + 4) + e bytes, with e bytes for a number. With k ≥ V nothing is left
out, there is no `rest`, and a row takes V·(e + 4) bytes.

Nothing of a row is more than GAP below its largest: exp(-GAP) is 4e-18, which float32 cannot tell
from 0 beside 1, and codecs whose steps depend on the largest number keep the others.
"""

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from hanse.tensors.named import Bounded, Tensors
from hanse.tensors.serialization import MessageError

VALUES, INDICES, REST = "values", "indices", "rest"
GAP = 40.0
LARGEST = 65504.0  # of a logit in a message, in size: the largest number of float16


def top_k(logits: Tensor, k: int) -> dict[str, Tensor]:
    """The k largest logits of each row (N, V): values (N, k), indices (N, k) int32, rest (N,)."""
    if k < 1:
        raise ValueError(f"the {k} largest logits are none")
    return moderate(of_classes(logits, logits.topk(min(k, logits.shape[1]), dim=1).indices))


def moderate(parts: Tensors) -> dict[str, Tensor]:
    """The same parts, in which nothing is infinite or more than GAP below its row's largest.

    A row with an infinite largest becomes 0 there and -GAP elsewhere. NaN stays.
    """
    largest = parts[VALUES].amax(dim=1)
    largest = torch.maximum(largest, parts[REST]) if REST in parts else largest

    def near(part: Tensor, top: Tensor) -> Tensor:
        gaps = torch.where(part == top, 0, (part - top).clamp(min=-GAP))
        return torch.where(top.isinf(), gaps, torch.maximum(part, top - GAP))

    result = {VALUES: near(parts[VALUES], largest[:, None]), INDICES: parts[INDICES]}
    return {**result, REST: near(parts[REST], largest)} if REST in parts else result


def of_classes(logits: Tensor, indices: Tensor) -> dict[str, Tensor]:
    """The logits (N, V) of these classes (N, k), and the rest; differentiable."""
    indices = indices.long().to(logits.device)
    parts = {VALUES: logits.gather(1, indices), INDICES: indices.int()}
    if indices.shape[1] < logits.shape[1]:
        wide = logits if logits.dtype == torch.float64 else logits.float()
        others = wide.scatter(1, indices, -math.inf)
        parts[REST] = others.logsumexp(dim=1).to(logits.dtype)
    return parts


def log_probabilities(parts: Tensors) -> Tensor:
    """The log-probabilities of the kept classes and of all others as the last class: (N, k + 1).

    With k ≥ V there are no others: (N, V).
    """
    columns = [parts[VALUES], *([parts[REST][:, None]] if REST in parts else [])]
    columns = [column if column.dtype == torch.float64 else column.float() for column in columns]
    return torch.cat(columns, dim=1).log_softmax(dim=1)


def of_labels(parts: Tensors, labels: Tensor, classes: int) -> Tensor:
    """The log-probability of one of all classes in each row: (N,) float64; labels: (N,).

    A class that is not among the kept ones has its equal share of the rest, as in `dense`.
    """
    kept = parts[INDICES].shape[1]
    columns = log_probabilities({n: t.double() for n, t in parts.items() if n != INDICES})
    known = columns[:, :kept].masked_fill(parts[INDICES] != labels[:, None], -math.inf).amax(dim=1)
    if REST not in parts:
        return known
    return torch.where(known > -math.inf, known, columns[:, kept] - math.log(classes - kept))


def dense(parts: Tensors, classes: int) -> Tensor:
    """Log-probabilities of all classes (N, V); the others share the remaining mass equally.

    Raises MessageError for contents that `top_k` does not make.
    """
    check(parts, classes)
    known = log_probabilities(parts)
    rows, kept = parts[INDICES].shape
    if REST in parts:
        known, rest = known[:, :-1], known[:, -1:] - math.log(classes - kept)
    else:
        rest = known.new_zeros(rows, 1)  # of no class
    return rest.expand(rows, classes).scatter(1, parts[INDICES].long(), known)


def mean(parts: Sequence[tuple[float, Tensors]]) -> dict[str, Tensor]:
    """The k largest of the weighted mean of distributions, as logarithms of probabilities.

    All must have the same rows and the same k. A class that a distribution has left out counts as
    one of its others, so that what is not known of it stays in the mean's `rest`.
    """
    total = sum(weight for weight, _ in parts)
    kept = parts[0][1][INDICES].shape[1]
    known = [log_probabilities(part).double()[:, :kept].exp() * (w / total) for w, part in parts]
    indices, order = torch.cat([part[INDICES] for _, part in parts], dim=1).sort(dim=1)
    probabilities = torch.cat(known, dim=1).gather(1, order)
    # Equal classes of a row stand side by side; the first of them gets the sum.
    new = torch.nn.functional.pad(indices.diff(dim=1) != 0, (1, 0), value=True)
    place = new.cumsum(dim=1) - 1
    used = torch.zeros_like(probabilities).scatter(1, place, 1)
    sums = torch.zeros_like(probabilities).scatter_add(1, place, probabilities)
    classes = torch.zeros_like(indices).scatter(1, place, indices)
    at = sums.masked_fill(used == 0, -1).topk(kept, dim=1).indices
    largest = sums.gather(1, at)
    result = {VALUES: largest, INDICES: classes.gather(1, at)}
    if REST in parts[0][1]:
        result[REST] = 1 - largest.sum(dim=1)
    tiny, dtype = torch.finfo(torch.float32).tiny, parts[0][1][VALUES].dtype
    logarithms = {
        name: part if name == INDICES else part.clamp(min=tiny).log()
        for name, part in result.items()
    }
    return {
        name: part if name == INDICES else part.to(dtype)
        for name, part in moderate(logarithms).items()
    }


def layout(
    most_rows: int, k: int, classes: int, dtype: torch.dtype = torch.float32
) -> dict[str, Bounded]:
    """The layout of `top_k` of at most so many rows."""
    largest = top_k(torch.empty(most_rows, classes, dtype=dtype, device="meta"), k)
    return {name: Bounded(form) for name, form in largest.items()}


def check(parts: Tensors, classes: int) -> None:
    """Raise MessageError unless these are parts of logits over so many classes.

    The values of a row may be in any order; its classes must be different ones.
    """
    values, indices = parts.get(VALUES), parts.get(INDICES)
    if values is None or indices is None or values.dim() != 2 or values.shape != indices.shape:
        raise MessageError("logits are values and the indices of their classes, in equal shapes")
    rows, kept = values.shape
    names = {VALUES, INDICES, *([REST] if kept < classes else [])}
    if not 1 <= kept <= classes or parts.keys() != names:
        raise MessageError(f"{kept} logits of {classes} classes with {', '.join(sorted(parts))}")
    rest = parts.get(REST, values[:, 0])
    if rest.shape != (rows,) or indices.dtype != torch.int32:
        raise MessageError("logits have one rest for each row, and indices of 32 bits")
    if not all(t.is_floating_point() and bool(torch.isfinite(t).all()) for t in (values, rest)):
        raise MessageError("logits have values that are not finite")
    if any(bool((t.abs() > LARGEST).any()) for t in (values, rest)):
        raise MessageError(f"logits have values beyond {LARGEST:,.0f}")
    ordered = indices.sort(dim=1).values
    if rows and not (int(ordered.min()) >= 0 and int(ordered.max()) < classes):
        raise MessageError(f"logits are of classes other than 0 to {classes - 1}")
    if bool((ordered.diff(dim=1) == 0).any()):
        raise MessageError("logits are of one class twice in a row")
