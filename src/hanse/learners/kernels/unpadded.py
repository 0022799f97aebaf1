"""Forward passes of a batch without its padding: its rows lie one behind the other in one row.

All layers of a causal transformer but attention treat each token by itself. Attention puts the
tokens into rows of one width and takes its results out of them again.
"""

import logging
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import cached_property
from typing import Any

import torch
from torch import Tensor
from torch.autograd import Function
from torch.autograd.function import once_differentiable
from torch.nn import Module
from transformers import masking_utils

from hanse.learners.models.layers import decoder_layers

WORTH = 0.9  # share of a padded batch's positions; a batch that would keep more stays padded
MULTIPLE = 16  # of tokens; oneDNN prepares a product for each number of rows that it meets
TOLERANCE = 0.05  # the relative distance of results that count as equal, in bfloat16 too
SAMPLE = (8, 5)  # tokens of the rows on which a model is tried
FULL = "full_attention"  # a kind of layers, by transformers' name
SEARCH = "find_packed_sequence_indices"  # transformers' function
ARGUMENT = "unpadded_rows"  # by which attention gets the rows from transformers' models

log = logging.getLogger(__name__)


class Rows:
    """The places of a batch's tokens in its rows and behind each other.

    lengths: tokens of each of the R rows. width: T, of the padded rows.
    """

    def __init__(self, lengths: Sequence[int], width: int) -> None:
        self.count, self.width = len(lengths), width
        inside = torch.arange(width) < torch.tensor(lengths)[:, None]
        self.tokens = inside.flatten().nonzero()[:, 0]  # (N,) their flattened (R·T) positions
        self._places = (inside.flatten().cumsum(0) - 1).clamp_(min=0)  # (R·T,) the inverse
        self._by_heads: dict[int, tuple[Tensor, Tensor]] = {}

    @cached_property
    def columns(self) -> Tensor:
        """(1, N): the position of each token in its row."""
        return self.tokens.remainder(self.width)[None]

    def places(self, at: Tensor) -> Tensor:
        """The places among the N tokens of flattened (R·T) positions."""
        return self._places[at]

    def padded(self, x: Tensor) -> Tensor:
        """(R, heads, T, width) of (1, heads, N, width); any values at padding."""
        heads = x.shape[1]
        rows: Tensor = _Padded.apply(x.transpose(1, 2).reshape(-1, x.shape[3]), *self._maps(heads))
        return rows.view(self.count, heads, self.width, -1)

    def unpadded(self, x: Tensor) -> Tensor:
        """(1, N, heads, width) of (R, heads, T, width)."""
        heads = x.shape[1]
        tokens: Tensor = _Unpadded.apply(x.reshape(-1, x.shape[3]), self._maps(heads)[1])
        return tokens.view(1, -1, heads, x.shape[3])

    def _maps(self, heads: int) -> tuple[Tensor, Tensor]:
        """(R·heads·T,) the vector of each place in the rows among (N, heads), and the inverse."""
        if heads not in self._by_heads:
            head = torch.arange(heads)
            places = self._places.view(self.count, 1, self.width)
            row = self.tokens.div(self.width, rounding_mode="floor")
            to_tokens = (row[:, None] * heads + head) * self.width + self.columns.T
            self._by_heads[heads] = (places * heads + head[:, None]).flatten(), to_tokens.flatten()
        return self._by_heads[heads]


class _Padded(Function):
    """x[index], whose values at padding are not used; `inverse` is the place of each x in it."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, index: Tensor, inverse: Tensor) -> Tensor:
        ctx.inverse = inverse
        return x.index_select(0, index)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None, None]:
        return gradient.index_select(0, ctx.inverse), None, None


class _Unpadded(Function):
    """x[index], where each is taken once, and those at padding never."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, index: Tensor) -> Tensor:
        ctx.index, ctx.count = index, len(x)
        return x.index_select(0, index)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        zeros = gradient.new_zeros(ctx.count, *gradient.shape[1:])
        return zeros.index_copy_(0, ctx.index, gradient), None


def layout(lengths: Sequence[int], width: int, clients: int = 1) -> Rows | None:
    """The rows of a batch without its padding; None if it has little of it.

    lengths, width: of the padded rows. clients: to whom the rows belong in equal shares, in order.
    Each client's last rows keep as much padding as all need for equal numbers of tokens.
    """
    rows = len(lengths) // clients
    parts = [list(lengths[first : first + rows]) for first in range(0, len(lengths), rows)]
    size = -(-max(map(sum, parts)) // MULTIPLE) * MULTIPLE
    if size > WORTH * rows * width:
        return None
    for part in parts:
        missing = size - sum(part)
        for row in reversed(range(rows)):
            added = min(missing, width - part[row])
            part[row] += added
            missing -= added
    return Rows([length for part in parts for length in part], width)


@contextmanager
def without_text_search() -> Iterator[None]:
    """Within this context, transformers does not search rows for several texts.

    In each forward pass it would, by the positions, to keep the texts apart by a mask. Positions
    that a model counts itself never show several texts, and the search waits for a GPU; the texts
    of a batch without padding are kept apart by `Rows`.
    """
    search = getattr(masking_utils, SEARCH, None)
    if search is None:  # a version without it
        yield
        return
    setattr(masking_utils, SEARCH, lambda position_ids: None)
    try:
        yield
    finally:
        setattr(masking_utils, SEARCH, search)


@contextmanager
def applied(model: Any, rows: Rows) -> Iterator[None]:
    """Within this context, a model's forward pass takes the tokens (1, N) of these rows."""

    def add(_: Module, inputs: tuple[Any, ...], named: dict[str, Any]) -> Any:
        return inputs, {**named, "position_ids": rows.columns, ARGUMENT: rows}

    handle = decoder_layers(model)[0].register_forward_pre_hook(add, with_kwargs=True)
    try:
        yield
    finally:
        handle.remove()


@torch.no_grad()
def is_possible(model: Any) -> bool:
    """True if a causal model has the same states without padding, which is tried on two rows."""
    decoder, layers = decoder_layers(model)
    if not layers or model.device.type != "cpu" or not _sees_all(model.config.get_text_config()):
        return False
    ids = torch.arange(2 * max(SAMPLE)).view(2, -1)
    rows = Rows(SAMPLE, ids.shape[1])
    try:
        padded = decoder(input_ids=ids, use_cache=False)[0]
        with without_text_search(), applied(model, rows):
            states = decoder(input_ids=ids.flatten()[rows.tokens][None], use_cache=False)[0]
    except Exception as error:  # an unusual architecture may raise anything when it is called so
        log.debug("%s needs padded rows: %s", type(decoder).__name__, error)
        return False
    expected = padded.flatten(0, 1)[rows.tokens]
    apart = (states[0] - expected).norm(dim=-1)  # of each token: one that sees another row shows
    return bool((apart < TOLERANCE * expected.norm(dim=-1)).all())


def _sees_all(config: Any) -> bool:
    """True if each token sees all before it, by the model's configuration."""
    windows = (getattr(config, name, None) for name in ("sliding_window", "attention_chunk_size"))
    return not any(windows) and set(getattr(config, "layer_types", None) or [FULL]) == {FULL}
