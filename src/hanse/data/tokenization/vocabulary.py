"""Tokens that a tokenizer knows, and the model does not: said before anything is trained."""

from collections.abc import Sequence
from typing import Any

from hanse.errors import UserError


def refuse_beyond(ids: Sequence[int], tokenizer: Any, vocabulary: int | None, place: str) -> None:
    """Raise UserError for a token that the model has no embedding of.

    vocabulary: how many embeddings it has; None if it has none. More than the tokenizer has tokens
        is usual. place: where the tokens stand. Tokens that stand nowhere do no harm.
    """
    last = max(ids, default=0)
    if vocabulary is not None and last >= vocabulary:
        raise UserError(
            f"the tokenizer knows token {last} {tokenizer.convert_ids_to_tokens(last)!r}, which is "
            f"in {place}, but the model has {vocabulary} rows; resize its embeddings "
            "(resize_token_embeddings) and save it, or use its own tokenizer."
        )
