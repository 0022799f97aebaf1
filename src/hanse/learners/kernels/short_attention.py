"""Attention of short rows as plain matrix products.

Torch's fused kernel saves memory, which short rows do not need. On CPUs its backward pass in
bfloat16 is several times slower than the same products.
"""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn import Module
from transformers import AttentionInterface, AttentionMaskInterface
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import sdpa_mask

from hanse.learners.kernels.unpadded import ARGUMENT, Rows

SHORT, BY_ROWS = "plain_if_short", "torch_by_rows"  # among transformers' implementations
LONGEST = 256  # tokens; attention weights of longer rows would take more memory than all else
UNUSUAL = ("softcap", "position_bias", "cache")  # arguments that some models pass


def use(model: Any, plain: bool) -> None:
    """Use this attention in a model whose attention is torch's own and can be replaced.

    plain: attention of short rows by plain products; else it is torch's kernel for all rows.
    """
    if model.config._attn_implementation == "sdpa" and model._supports_attention_backend:
        model.set_attn_implementation(SHORT if plain else BY_ROWS)


def causal(query: Tensor, key: Tensor, value: Tensor, scaling: float) -> Tensor:
    """(rows, heads, tokens, width): each token's mean of the values up to its own.

    query: (rows, heads, tokens, width); key and value may have fewer heads, each for a group.
    """
    rows, heads, tokens, _ = query.shape
    group = heads // key.shape[1]
    together = query.reshape(rows * key.shape[1], group * tokens, -1)
    later = torch.full((tokens, tokens), -torch.inf, dtype=query.dtype, device=query.device)
    later = later.triu(1).repeat(group, 1)
    scores = torch.baddbmm(later, together, key.flatten(0, 1).transpose(1, 2), alpha=scaling)
    mixed = torch.bmm(scores.softmax(dim=-1), value.flatten(0, 1))
    return mixed.view(rows, heads, tokens, -1)


def masked(
    query: Tensor, key: Tensor, value: Tensor, scaling: float, seen: Tensor | None
) -> Tensor:
    """(rows, heads, tokens, width): each token's mean of the values of the tokens that it sees.

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
    return mixed.view(rows, heads, tokens, -1)


@dataclass(frozen=True)
class _Attention:
    """Attention as transformers calls it; (rows, tokens, heads, width), without weights.

    plain: short rows are computed by plain products. Others, and calls with unusual arguments, go
        to transformers' own function. Rows behind each other are put below each other before.
    """

    plain: bool

    def __call__(
        self,
        module: Module,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        attention_mask: Tensor | None,
        **named: Any,
    ) -> tuple[Tensor, None]:
        rows: Rows | None = named.pop(ARGUMENT, None)
        if rows is None:
            mixed = self._mixed(module, (query, key, value), attention_mask, named)
            return mixed.transpose(1, 2).contiguous(), None
        if attention_mask is not None:
            raise ValueError("a batch without padding has no attention mask")
        padded = rows.padded(query), rows.padded(key), rows.padded(value)
        return rows.unpadded(self._mixed(module, padded, None, named)), None

    def _mixed(
        self,
        module: Module,
        inputs: tuple[Tensor, Tensor, Tensor],
        mask: Tensor | None,
        named: dict[str, Any],
    ) -> Tensor:
        """(rows, heads, tokens, width): the means of the values."""
        query, key, _ = inputs
        is_causal, scaling = named.get("is_causal"), named.get("scaling")
        is_causal = getattr(module, "is_causal", True) if is_causal is None else is_causal
        longest = LONGEST if self.plain else 0
        short = query.shape[2] == key.shape[2] and 1 < query.shape[2] <= longest
        usual = not named.get("dropout") and all(named.get(name) is None for name in UNUSUAL)
        if short and usual:
            factor = query.shape[-1] ** -0.5 if scaling is None else scaling
            if is_causal and mask is None:
                return causal(*inputs, factor)
            if not is_causal and (mask is None or mask.dtype == torch.bool):
                return masked(*inputs, factor, mask)
        return sdpa_attention_forward(module, *inputs, mask, **named)[0].transpose(1, 2)


for name, plain in ((SHORT, True), (BY_ROWS, False)):
    AttentionInterface.register(name, _Attention(plain))
    AttentionMaskInterface.register(name, sdpa_mask)
