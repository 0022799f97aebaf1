"""Float tensors in a format of two bytes, and back in float32."""

import torch
from torch import Tensor

from hanse.tensors.named import Bounded, Layout


def narrowed(tensor: Tensor, dtype: torch.dtype) -> Tensor:
    """The numbers in `dtype`, rounded to nearest even; integers and short floats as they are."""
    return tensor.to(dtype) if tensor.is_floating_point() and tensor.itemsize > 2 else tensor


def widened(tensor: Tensor, dtype: torch.dtype) -> Tensor:
    """The numbers in float32 if they are of `dtype`."""
    return tensor.float() if tensor.dtype == dtype else tensor


def narrowed_layout(expected: Layout, dtype: torch.dtype) -> Layout:
    """The layout of narrowed tensors: the same names and shapes."""
    return {
        name: Bounded(narrowed(form.largest, dtype))
        if isinstance(form, Bounded)
        else narrowed(form, dtype)
        for name, form in expected.items()
    }
