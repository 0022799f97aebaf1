"""Attention of short rows as plain matrix products.

Torch's fused kernel spares memory, which short rows do not need, and on processors its backward
pass in bfloat16 is several times slower than the products that it stands for.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor
from torch.nn import Module
from transformers import AttentionInterface, AttentionMaskInterface
from transformers import masking_utils as masks
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import sdpa_mask

NAME = "plain_if_short"  # among transformers' attention implementations
LONGEST = 256  # tokens; the weights of longer rows would take more memory than all else
PACKED = "find_packed_sequence_indices"  # how transformers looks for texts packed into one row
UNUSUAL = ("softcap", "position_bias", "cache")  # what some models ask of the fused kernel


def use(model: Any) -> None:
    """Let a model attend so, if it lets its attention be chosen and would take torch's own."""
    if model.config._attn_implementation == "sdpa" and model._supports_attention_backend:
        model.set_attn_implementation(NAME)


@contextmanager
def unpacked() -> Iterator[None]:
    """Within, a model takes each row for one text, without looking.

    Transformers looks in each forward pass whether a row holds several, by the positions that the
    model has just counted up itself. The answer is always no, and it waits for a GPU to get it.
    """
    looked = getattr(masks, PACKED, None)
    if looked is None:  # a version that does not look
        yield
        return
    setattr(masks, PACKED, lambda position_ids: None)
    try:
        yield
    finally:
        setattr(masks, PACKED, looked)


def causal(query: Tensor, key: Tensor, value: Tensor, scaling: float) -> Tensor:
    """(rows, tokens, heads, width): each token's mean of the values up to its own.

    query: (rows, heads, tokens, width); key and value may have fewer heads, each for a group.
    """
    rows, heads, tokens, _ = query.shape
    group = heads // key.shape[1]
    together = query.reshape(rows * key.shape[1], group * tokens, -1)
    later = torch.full((tokens, tokens), -torch.inf, dtype=query.dtype, device=query.device)
    later = later.triu(1).repeat(group, 1)
    scores = torch.baddbmm(later, together, key.flatten(0, 1).transpose(1, 2), alpha=scaling)
    mixed = torch.bmm(scores.softmax(dim=-1), value.flatten(0, 1))
    return mixed.view(rows, heads, tokens, -1).transpose(1, 2).contiguous()


def masked(
    query: Tensor, key: Tensor, value: Tensor, scaling: float, seen: Tensor | None
) -> Tensor:
    """(rows, tokens, heads, width): each token's mean of the values of those that it sees.

    query: (rows, heads, tokens, width); key and value may have fewer heads, each for a group.
    seen: whether a token sees another, (rows or 1, heads or 1, tokens, tokens); none: it sees all.
    """
    rows, heads, tokens, _ = query.shape
    together = query.reshape(rows * key.shape[1], heads // key.shape[1] * tokens, -1)
    scores = torch.bmm(together * scaling, key.flatten(0, 1).transpose(1, 2))
    if seen is not None:
        by_head = scores.view(rows, heads, tokens, tokens)
        scores = by_head.masked_fill(~seen, -torch.inf).view_as(scores)
    mixed = torch.bmm(scores.softmax(dim=-1), value.flatten(0, 1))
    return mixed.view(rows, heads, tokens, -1).transpose(1, 2).contiguous()


def _attention(
    module: Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    dropout: float = 0.0,
    scaling: float | None = None,
    **kwargs: Any,
) -> tuple[Tensor, None]:
    """As transformers calls it; whatever is not plain and short goes the way it always went."""
    is_causal = kwargs.get("is_causal")
    is_causal = getattr(module, "is_causal", True) if is_causal is None else is_causal
    within = query.shape[2] == key.shape[2] and 1 < query.shape[2] <= LONGEST
    plain = not dropout and all(kwargs.get(name) is None for name in UNUSUAL)
    if within and plain:
        factor = query.shape[-1] ** -0.5 if scaling is None else scaling
        if is_causal and attention_mask is None:
            return causal(query, key, value, factor), None
        if not is_causal and (attention_mask is None or attention_mask.dtype == torch.bool):
            return masked(query, key, value, factor, attention_mask), None
    mixed, _ = sdpa_attention_forward(
        module, query, key, value, attention_mask, dropout=dropout, scaling=scaling, **kwargs
    )
    return mixed, None


AttentionInterface.register(NAME, _attention)
AttentionMaskInterface.register(NAME, sdpa_mask)
