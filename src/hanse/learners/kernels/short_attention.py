"""Attention of short rows as plain matrix products.

Torch's fused kernel saves memory, which short rows do not need. On CPUs its backward pass in
bfloat16 is several times slower than the same products.
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
LONGEST = 256  # tokens; attention weights of longer rows would take more memory than all else
PACKED = "find_packed_sequence_indices"  # transformers' search for several texts in one row
UNUSUAL = ("softcap", "position_bias", "cache")  # arguments that some models pass


def use(model: Any) -> None:
    """Use this attention in a model whose attention is torch's own and can be replaced."""
    if model.config._attn_implementation == "sdpa" and model._supports_attention_backend:
        model.set_attn_implementation(NAME)


@contextmanager
def unpacked() -> Iterator[None]:
    """Within this context, a model takes each row for one text, without a check.

    In each forward pass, transformers checks if a row holds several texts, by positions that the
    model itself has counted. The answer is always no, and the check waits for a GPU.
    """
    check = getattr(masks, PACKED, None)
    if check is None:  # a version without this check
        yield
        return
    setattr(masks, PACKED, lambda position_ids: None)
    try:
        yield
    finally:
        setattr(masks, PACKED, check)


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
    """(rows, tokens, heads, width): each token's mean of the values of the tokens that it sees.

    query: (rows, heads, tokens, width); key and value may have fewer heads, each for a group.
    seen: (rows or 1, heads or 1, tokens, tokens), True if a token sees another; None: it sees all.
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
    """Attention as transformers calls it; long or unusual rows go to transformers' own."""
    is_causal = kwargs.get("is_causal")
    is_causal = getattr(module, "is_causal", True) if is_causal is None else is_causal
    short = query.shape[2] == key.shape[2] and 1 < query.shape[2] <= LONGEST
    plain = not dropout and all(kwargs.get(name) is None for name in UNUSUAL)
    if short and plain:
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
