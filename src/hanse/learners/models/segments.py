"""Tells an encoder which of two texts each token belongs to (BERT's segments, Devlin et al. 2018).

A batch holds token ids alone. The second text begins behind the first separator, so the segments
follow from the ids. With one text, only padding comes behind the separator, and no token sees it.
"""

from functools import partial
from typing import Any

from torch import Tensor
from torch.nn import Module

ARGUMENT = "token_type_ids"  # by which transformers' models get the segments


def use(model: Any, tokenizer: Any) -> None:
    """Let a model that has two segments, by its configuration and its tokenizer, get them."""
    known = getattr(model.config, "type_vocab_size", 0) > 1
    separator = tokenizer.sep_token_id
    if known and separator is not None and 1 in tokenizer("a", "b").get(ARGUMENT, ()):
        encoder: Module = model.base_model
        encoder.register_forward_pre_hook(partial(_add, separator), with_kwargs=True)


def _add(
    separator: int, _: Module, inputs: tuple[Any, ...], named: dict[str, Any]
) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """The arguments of a forward pass, with the segments if they are not among them."""
    ids = inputs[0] if inputs else named.get("input_ids")
    if ids is None or named.get(ARGUMENT) is not None:
        return inputs, named
    return inputs, {**named, ARGUMENT: _segments(ids, separator)}


def _segments(ids: Tensor, separator: int) -> Tensor:
    """(R, T): 0 up to the first separator of each row, 1 behind it."""
    ends = (ids == separator).long()
    return (ends.cumsum(dim=1) - ends).clamp_(max=1)
