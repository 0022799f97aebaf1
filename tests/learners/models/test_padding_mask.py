"""Which places of a row hold tokens, and which only fill it up."""

import torch

from hanse.learners.models.head import attention_mask
from hanse.learners.models.padding import padding_mask

LENGTHS = torch.tensor([3, 0, 1])


def test_ones_are_where_tokens_are() -> None:
    found = padding_mask(LENGTHS, 4)
    assert found.tolist() == [[1, 1, 1, 0], [0, 0, 0, 0], [1, 0, 0, 0]]
    assert found.dtype == torch.long


def test_attention_is_never_to_nothing() -> None:
    assert attention_mask(LENGTHS, 3).tolist() == [[1, 1, 1], [1, 0, 0], [1, 0, 0]]
