"""The frozen layers below the lowest adapter: what they make of a row is computed once.

The base is frozen and in eval mode, and no token sees padding: a causal model never looks to the
right, where it is, and others have a mask. So what leaves those layers depends on a row's tokens
alone, and is the same in every epoch. Where nothing but a classifier's head is trained, all layers
are such, and of most rows only the first token's state is kept, since heads look at no other.

It does not even depend in its last bits on the rows that it was computed with, as long as the
machine's matrix products give a row the same wherever it stands (CPUs do): so a resumed run, which
computes rows again beside others, ends in the same adapter.

What is kept is on the host. A GPU is waited for when a row comes up for the first time, not again.
"""

import logging
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, suppress
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import Module

from hanse.learners.caching.activations import Activations
from hanse.learners.models.layers import decoder_layers, replaced
from hanse.learners.models.padding import padding_mask
from hanse.learners.models.short_attention import unpacked
from hanse.learners.training.batches import copy_pinned, pinned_zeros

log = logging.getLogger(__name__)

FEWEST = 16  # positions in a pass: products of fewer are summed in another order
ALIKE = 0.05  # the relative distance at which two results are one, in bfloat16 too


class _Left(Exception):  # noqa: N818 (no error)
    """The layers are passed, and nothing more is asked."""


@dataclass
class FrozenLayers:
    """The first layers of a transformer, none of them trained.

    decoder: runs `layers` on token ids, one after another.
    depth: how many of them are left out.
    in_tuples: whether a layer returns its hidden states within a tuple.
    autocast: the precision in which the model works.
    longest: most tokens that it can read, if there is a limit.
    kept: what leaves the layers, by their number and a row's tokens.
    masked: whether tokens look to the right, so that padding has to be hidden from them.
    first: whether nothing above looks at another token than each row's first.
    """

    decoder: Module
    layers: Sequence[Module]
    depth: int
    in_tuples: bool
    autocast: Callable[[], AbstractContextManager[Any]]
    longest: int | None
    kept: Activations
    masked: bool = False
    first: bool = False

    @contextmanager
    def skipped(self, ids: Tensor, lengths: Sequence[int]) -> Iterator[None]:
        """Within, the model can be called with these rows, and leaves the layers out.

        ids: (R, T) tokens on the host, padded on the right; lengths: of each row, 0 for one that
            has none.
        """
        hidden = self._entering(ids, lengths)
        left_out = self.layers[: self.depth] if hidden is not None else ()
        with replaced(left_out, lambda *_, **__: self._returned(hidden)):
            yield

    def _entering(self, ids: Tensor, lengths: Sequence[int]) -> Tensor | None:
        """(R, T, H): what enters what is above, zeros at padding; None without tokens.

        (R, 1, H) if nothing looks at more.
        """
        held = ids.numpy().astype(np.int32)
        keys = [row[:length].tobytes() for row, length in zip(held, lengths, strict=True)]
        found = {key: self.kept.get((self.depth, key)) for key in keys if key}
        found |= self._computed([key for key, states in found.items() if states is None])
        hidden = None
        for row, key in enumerate(keys):
            if (states := found.get(key)) is not None:
                if hidden is None:
                    width = 1 if self.first else ids.shape[1]
                    shape = (len(ids), width, states.shape[1])
                    hidden = pinned_zeros(shape, states.dtype, self._device)
                hidden[row, : len(states)] = states[: hidden.shape[1]]
        return None if hidden is None else copy_pinned(hidden, self._device)

    def _computed(self, keys: Sequence[bytes]) -> dict[bytes, Tensor]:
        """(tokens, H) of each row that is not kept yet; it is from now on."""
        rows = {
            key: torch.from_numpy(np.frombuffer(key, np.int32).astype(np.int64)) for key in keys
        }
        # A row always passes in the same width and behind the same mask, whichever rows are here.
        alike = defaultdict(list)
        for key, row in rows.items():
            alike[_width(len(row), self.longest), len(row) * self.masked].append(key)
        found = {}
        for (width, length), group in alike.items():
            ids = torch.zeros(max(len(group), -(-FEWEST // width)), width, dtype=torch.long)
            for index, key in enumerate(group):
                ids[index, : len(rows[key])] = rows[key]
            for key, states in zip(group, self._through(ids, length).cpu(), strict=False):
                found[key] = states[: 1 if self.first else len(rows[key])]
                self.kept.put((self.depth, key), found[key])
        return found

    def _through(self, ids: Tensor, length: int) -> Tensor:
        """(R, T, H): what leaves the layers; nothing above is passed.

        length: of all rows, if a mask has to hide the rest of them.
        """
        left: list[Tensor] = []

        def stop(_: Module, __: tuple[Any, ...], output: Any) -> None:
            left.append(output[0] if self.in_tuples else output)
            raise _Left

        handle = self.layers[self.depth - 1].register_forward_hook(stop)
        try:
            with suppress(_Left), unpacked(), torch.no_grad():
                self.states(ids, [length] * len(ids))
        finally:
            handle.remove()
        return left[0]

    def states(self, ids: Tensor, lengths: Sequence[int]) -> Tensor:
        """(R, T, H): what the decoder makes of rows of these lengths; ids are on the host."""
        there = ids.to(self._device)
        with self.autocast():
            if self.masked:
                mask = padding_mask(torch.tensor(lengths, device=self._device), ids.shape[1])
                found = self.decoder(input_ids=there, attention_mask=mask)
            else:
                found = self.decoder(input_ids=there, use_cache=False)
        hidden: Tensor = found[0]
        return hidden

    @property
    def _device(self) -> torch.device:
        return next(self.decoder.parameters()).device

    def _returned(self, hidden: Tensor | None) -> Any:
        """Hidden states as a layer returns them."""
        return (hidden,) if self.in_tuples else hidden


def detect(
    model: Any,
    depth: int,
    autocast: Callable[[], AbstractContextManager[Any]],
    longest: int | None,
    kept: Activations,
    masked: bool = False,
) -> FrozenLayers | None:
    """The first layers of a model, if it does the same without them: tried on a few tokens.

    No dropout may be at work.
    """
    inner, layers = decoder_layers(model)
    decoder = model.get_base_model().base_model if masked else inner
    build = partial(FrozenLayers, decoder, layers, depth, masked=masked)
    build = partial(build, autocast=autocast, longest=longest, kept=kept)
    ids, lengths = torch.arange(16).view(2, 8), (8, 5)
    given: list[Any] = []
    handle = layers[0].register_forward_hook(lambda _, __, output: given.append(output))
    try:
        with torch.no_grad(), autocast():
            plain = build(in_tuples=False).states(ids, lengths)
            prefix: FrozenLayers = build(in_tuples=isinstance(given[0], tuple))
            with prefix.skipped(ids, lengths):
                found = prefix.states(ids, lengths)
            pairs = [(found[row, :n], plain[row, :n]) for row, n in enumerate(lengths)]
            if all((one - other).norm() < ALIKE * other.norm() for one, other in pairs):
                first = masked and depth == len(layers) and _first_suffices(model, layers[-1], ids)
                return replace(prefix, first=first)
    except Exception as error:  # whatever a strange architecture raises when it is called so
        log.debug("%s cannot leave out layers: %s", type(decoder).__name__, error)
    finally:
        handle.remove()
    return None


def _first_suffices(model: Any, last: Module, ids: Tensor) -> bool:
    """Whether a classifier says the same, bit for bit, without the states of all later tokens."""
    base, there = model.get_base_model(), ids.to(model.device)

    def emptied(_: Module, __: tuple[Any, ...], output: Any) -> None:
        (output[0] if isinstance(output, tuple) else output)[:, 1:] = 0

    plain = base(input_ids=there).logits
    handle = last.register_forward_hook(emptied)
    try:
        return torch.equal(base(input_ids=there).logits, plain)
    finally:
        handle.remove()


def _width(length: int, longest: int | None) -> int:
    """How many tokens a row is filled up to, so that like rows pass together: hardly 1/8 more.

    An even number, since attention over an odd one depends on which thread does it.
    """
    step = 2 ** max(1, length.bit_length() - 4)
    wide: int = -(-length // step) * step
    return wide if longest is None else max(length, min(wide, longest))
