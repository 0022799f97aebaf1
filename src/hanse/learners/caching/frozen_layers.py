"""The frozen layers below the lowest adapter: their output for a row is computed once.

The base is frozen and in eval mode, and no token sees padding: it is to the right, where a causal
model never looks, and other models have a mask. The output of these layers therefore depends on a
row's tokens alone, and is the same in every epoch. If nothing but a classifier's head is trained,
all layers are frozen; if that head reads only the first token, only its state is kept.

The output is the same to the last bit whichever rows are computed together, as long as the
machine's matrix products do not depend on a row's position (on CPUs they do not). A resumed run,
which computes rows again in other company, therefore ends in the same adapter.

States are kept on the host. The host waits for a GPU only when a row is read for the first time.
"""

import logging
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, suppress
from contextvars import ContextVar
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import Module

from hanse.learners.caching.activations import Activations
from hanse.learners.kernels.unpadded import without_text_search
from hanse.learners.models.layers import decoder_layers, replaced
from hanse.learners.models.padding import padding_mask
from hanse.learners.training.batches import copy_pinned, pinned_zeros

log = logging.getLogger(__name__)

FEWEST = 16  # positions in a forward pass: smaller products are summed in another order
TOLERANCE = 0.05  # the relative distance of results that count as equal, in bfloat16 too

_unused: ContextVar[bool] = ContextVar("unused", default=False)


@contextmanager
def unused() -> Iterator[None]:
    """Within this context, all layers compute, and nothing of them is kept."""
    token = _unused.set(True)
    try:
        yield
    finally:
        _unused.reset(token)


class _Stop(Exception):  # noqa: N818 (no error)
    """Ends a forward pass behind the frozen layers."""


@dataclass
class FrozenLayers:
    """The first layers of a transformer, none of which is trained.

    decoder: the module that runs `layers` on token ids, one after another.
    depth: the number of layers that are skipped.
    in_tuples: a layer returns its hidden states in a tuple.
    autocast: a context with the precision of the model.
    longest: the most tokens that the model can read; None if there is no limit.
    activations: the cached outputs, by depth and a row's tokens.
    masked: tokens look to the right, so padding must be masked.
    first_only: the layers above read only the first token of each row.
    """

    decoder: Module
    layers: Sequence[Module]
    depth: int
    in_tuples: bool
    autocast: Callable[[], AbstractContextManager[Any]]
    longest: int | None
    activations: Activations
    masked: bool = False
    first_only: bool = False

    @contextmanager
    def skipped(self, ids: Tensor, lengths: Sequence[int]) -> Iterator[None]:
        """Within this context, a forward pass of exactly these rows skips the layers.

        ids: (R, T) tokens on the host, padded on the right; lengths: tokens of each row, which may
            be 0.
        """
        if _unused.get():
            yield
            return
        hidden = self._outputs(ids, lengths)
        layers = self.layers[: self.depth] if hidden is not None else ()
        with replaced(layers, lambda *_, **__: self._returned(hidden)):
            yield

    def _outputs(self, ids: Tensor, lengths: Sequence[int]) -> Tensor | None:
        """(R, T, H): outputs of the layers, zeros at padding; (R, 1, H) if `first_only`.

        None if no row has tokens.
        """
        tokens = ids.numpy().astype(np.int32)
        keys = [row[:length].tobytes() for row, length in zip(tokens, lengths, strict=True)]
        known = {key: self.activations.get((self.depth, key)) for key in keys if key}
        known |= self._computed([key for key, states in known.items() if states is None])
        hidden = None
        for row, key in enumerate(keys):
            if (states := known.get(key)) is not None:
                if hidden is None:
                    width = 1 if self.first_only else ids.shape[1]
                    shape = (len(ids), width, states.shape[1])
                    hidden = pinned_zeros(shape, states.dtype, self._device)
                hidden[row, : len(states)] = states[: hidden.shape[1]]
        return None if hidden is None else copy_pinned(hidden, self._device)

    def _computed(self, keys: Sequence[bytes]) -> dict[bytes, Tensor]:
        """Compute and cache the outputs of rows: (tokens, H) by key."""
        rows = {
            key: torch.from_numpy(np.frombuffer(key, np.int32).astype(np.int64)) for key in keys
        }
        # A row always has the same width and mask, whichever rows are computed with it.
        groups = defaultdict(list)
        for key, row in rows.items():
            groups[_width(len(row), self.longest), len(row) * self.masked].append(key)
        outputs = {}
        for (width, length), group in groups.items():
            ids = torch.zeros(max(len(group), -(-FEWEST // width)), width, dtype=torch.long)
            for index, key in enumerate(group):
                ids[index, : len(rows[key])] = rows[key]
            for key, states in zip(group, self._run_layers(ids, length).cpu(), strict=False):
                outputs[key] = states[: 1 if self.first_only else len(rows[key])]
                self.activations.put((self.depth, key), outputs[key])
        return outputs

    def _run_layers(self, ids: Tensor, length: int) -> Tensor:
        """(R, T, H): outputs of the layers; the layers above are not run.

        length: tokens of each row, if padding must be masked.
        """
        outputs: list[Tensor] = []

        def stop(_: Module, __: tuple[Any, ...], output: Any) -> None:
            outputs.append(output[0] if self.in_tuples else output)
            raise _Stop

        handle = self.layers[self.depth - 1].register_forward_hook(stop)
        try:
            with suppress(_Stop), without_text_search(), torch.no_grad():
                self.states(ids, [length] * len(ids))
        finally:
            handle.remove()
        return outputs[0]

    def states(self, ids: Tensor, lengths: Sequence[int]) -> Tensor:
        """(R, T, H): the decoder's output for rows of these lengths; ids are on the host."""
        ids = ids.to(self._device)
        with self.autocast():
            if self.masked:
                mask = padding_mask(torch.tensor(lengths, device=self._device), ids.shape[1])
                output = self.decoder(input_ids=ids, attention_mask=mask)
            else:
                output = self.decoder(input_ids=ids, use_cache=False)
        hidden: Tensor = output[0]
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
    activations: Activations,
    masked: bool = False,
) -> FrozenLayers | None:
    """The first layers of a model, if it can skip them without another result; else None.

    This is tried on a few tokens. No dropout may be on.
    """
    inner, layers = decoder_layers(model)
    decoder = model.get_base_model().base_model if masked else inner
    build = partial(FrozenLayers, decoder, layers, depth, masked=masked)
    build = partial(build, autocast=autocast, longest=longest, activations=activations)
    ids, lengths = torch.arange(16).view(2, 8), (8, 5)
    outputs: list[Any] = []
    handle = layers[0].register_forward_hook(lambda _, __, output: outputs.append(output))
    try:
        with torch.no_grad(), autocast():
            plain = build(in_tuples=False).states(ids, lengths)
            frozen: FrozenLayers = build(in_tuples=isinstance(outputs[0], tuple))
            with frozen.skipped(ids, lengths):
                skipped = frozen.states(ids, lengths)
            pairs = [(skipped[row, :n], plain[row, :n]) for row, n in enumerate(lengths)]
            if all((one - other).norm() < TOLERANCE * other.norm() for one, other in pairs):
                whole = masked and depth == len(layers)
                return replace(frozen, first_only=whole and _reads_first(model, layers[-1], ids))
    except Exception as error:  # an unusual architecture may raise anything when it is called so
        log.debug("%s cannot skip layers: %s", type(decoder).__name__, error)
    finally:
        handle.remove()
    return None


def _reads_first(model: Any, last: Module, ids: Tensor) -> bool:
    """True if a classifier's logits depend on the first token's state alone: others set to zero."""
    base, ids = model.get_base_model(), ids.to(model.device)

    def zero_later(_: Module, __: tuple[Any, ...], output: Any) -> None:
        (output[0] if isinstance(output, tuple) else output)[:, 1:] = 0

    plain = base(input_ids=ids).logits
    handle = last.register_forward_hook(zero_later)
    try:
        return torch.equal(base(input_ids=ids).logits, plain)
    finally:
        handle.remove()


def _width(length: int, longest: int | None) -> int:
    """The width that a row is padded to, at most about 1/8 more than its length.

    Rows of similar length get one width and are computed together. The width is even, since
    attention over an odd number of tokens depends on the thread that computes it.
    """
    step = 2 ** max(1, length.bit_length() - 4)
    width: int = -(-length // step) * step
    return width if longest is None else max(length, min(width, longest))
