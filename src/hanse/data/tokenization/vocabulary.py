"""Refuses tokens that the tokenizer has and the model has not, before training begins."""

from collections.abc import Sequence
from typing import Any

from hanse.errors import UserError


def refuse_beyond(ids: Sequence[int], tokenizer: Any, vocabulary: int | None, place: str) -> None:
    """Raise UserError for a token that the model has no embedding of.

    vocabulary: the number of its embeddings, often more than the tokenizer's tokens; None if it
        has none. place: of the tokens, for the message. Tokens that no text has do no harm.
    """
    last = max(ids, default=0)
    if vocabulary is not None and last >= vocabulary:
        raise UserError(
            f"the tokenizer makes token {last} {tokenizer.convert_ids_to_tokens(last)!r} of "
            f"{place}, but the model has {vocabulary} embeddings; resize them "
            "(resize_token_embeddings) and save the model, or use its own tokenizer."
        )
