"""Top-k logits of one model as top-k logits over another model's classes and labels.

The transfer of FedMKT (2406.02224): a class keeps its logit under the name of its counterpart, and
of several with one counterpart the largest counts. Its paper leaves open what becomes of labels
that match no row; in its code they are one-hot with the logit 1. Here they are one-hot as well:
the label's logit is 0, and all others are lower by `top_k.GAP`.
"""

import math

import torch
from torch import Tensor

from hanse.tensors.named import Tensors
from hanse.tensors.top_k import INDICES, REST, VALUES, moderate

NONE = -1  # no row, or no counterpart


def transfer(
    parts: Tensors, rows: Tensor, mapping: Tensor, labels: Tensor, classes: int, k: int = 1
) -> dict[str, Tensor]:
    """Parts as of `top_k` over other classes, with min(k, classes) logits for each label.

    parts: of the source's logits (N, V), as `top_k` makes them; not changed.
    rows: (M,) the source's row for each label, or NONE: the label then has all the probability.
    mapping: (V,) the class for each of the source's, or NONE; one that is not listed has none.
    labels: (M,) the true classes. classes: their number.
    k: of the result; that of the parts if it is larger.

    The mass of a class without counterpart goes to the `rest`; that of a class whose counterpart
    has a larger logit from another one is left out. A row with fewer than k classes left is
    filled up with others, in order of their numbers, which get their equal shares of the rest, as
    in `dense`. With each class its own counterpart, all is as it was.
    """
    values, indices, rest = _gathered(parts, rows, mapping)
    more = (0, max(0, k - values.shape[1]))
    values = torch.nn.functional.pad(values, more, value=-math.inf)
    indices = torch.nn.functional.pad(indices, more, value=NONE)
    unknown = rows == NONE
    kept = _largest(values, indices) & (indices != NONE)
    lost = values.masked_fill(indices != NONE, -math.inf).logsumexp(dim=1)
    rest = torch.where(lost == -math.inf, rest, torch.logaddexp(rest, lost))
    # A label without a row: one class and no others.
    kept[unknown] = False
    kept[unknown, 0] = True
    values[unknown, 0], indices[unknown, 0] = 0.0, labels[unknown].long()
    rest[unknown] = -math.inf
    result = moderate(_filled(values, indices, rest, kept, classes))
    dtype = parts[VALUES].dtype
    return {name: part if name == INDICES else part.to(dtype) for name, part in result.items()}


def _gathered(parts: Tensors, rows: Tensor, mapping: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Values, classes of the target or NONE, and rest for each label; any for one without row."""
    values, indices = parts[VALUES], parts[INDICES].long()
    values = values if values.dtype == torch.float64 else values.float()
    rest = parts.get(REST, values.new_full(values.shape[:1], -math.inf)).to(values.dtype)
    if not len(values):
        values, indices, rest = (
            torch.nn.functional.pad(part, (0,) * (2 * part.dim() - 1) + (1,))
            for part in (values, indices, rest)
        )
    at = rows.long().clamp(min=0)
    listed = indices[at] < len(mapping)
    padded = torch.nn.functional.pad(mapping.long(), (0, 1), value=NONE)
    found = padded[torch.where(listed, indices[at], len(mapping))]
    return values[at], found, rest[at]


def _largest(values: Tensor, indices: Tensor) -> Tensor:
    """True where a value is the first of the largest ones of its class in its row."""
    order = values.sort(dim=1, descending=True, stable=True).indices
    order = order.gather(1, indices.gather(1, order).sort(dim=1, stable=True).indices)
    new = torch.nn.functional.pad(indices.gather(1, order).diff(dim=1) != 0, (1, 0), value=True)
    return torch.zeros_like(new).scatter(1, order, new)


def _filled(
    values: Tensor, indices: Tensor, rest: Tensor, kept: Tensor, classes: int
) -> dict[str, Tensor]:
    """The kept classes of each row in their order, then others with their shares of the rest."""
    width = min(values.shape[1], classes)
    count = kept.sum(dim=1, keepdim=True)
    order = (~kept).int().sort(dim=1, stable=True).indices[:, :width]
    values, indices = values.gather(1, order), indices.gather(1, order)
    free = torch.arange(width, device=values.device) >= count
    low = indices.masked_fill(free | (indices >= width), width)
    used = torch.zeros(len(values), width + 1, dtype=torch.int8, device=values.device)
    unused = used.scatter(1, low, 1)[:, :width].sort(dim=1, stable=True).indices
    place = (torch.arange(width, device=values.device) - count).clamp(min=0)
    share = rest[:, None] - (classes - count).clamp(min=1).log()
    result = {
        VALUES: torch.where(free, share, values),
        INDICES: torch.where(free, unused.gather(1, place), indices).int(),
    }
    if width < classes:
        left = share[:, 0] + math.log(classes - width)
        result[REST] = torch.where(free.any(dim=1), left, rest)
    return result
