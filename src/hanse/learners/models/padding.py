"""The mask that tells tokens from padding."""

import torch
from torch import Tensor


def padding_mask(lengths: Tensor, width: int) -> Tensor:
    """(R, width): 1 at the first tokens of each row, as many as its length, and 0 at its padding.

    lengths: (R,) tokens of each row, on the device that the mask is for.
    """
    places = torch.arange(width, device=lengths.device)
    return (places < lengths[:, None]).long()
