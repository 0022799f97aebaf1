"""Clipping of updates, after which rounding makes none longer than the clip norm."""

import torch

from hanse.tensors.named import Tensors, norm, scale

SHORTER = 1e-7  # relative, for rounding; four times as much until the norm fits


def clipped(tensors: Tensors, clip: float) -> Tensors:
    """Δ·min(1, C/‖Δ‖), whose L2 norm over all tensors is at most C, which is at least 0."""
    length, shorter = norm(tensors), SHORTER
    if length <= clip:
        return tensors
    result = scale(tensors, clip / length * (1 - shorter))
    while norm(result) > clip:
        shorter = min(1.0, 4 * shorter)  # at last nothing is left
        result = scale(tensors, clip / length * (1 - shorter))
    return result


def roundoff(tensors: Tensors) -> float:
    """The largest relative error of rounding a number to the dtype of one of these tensors."""
    return max((torch.finfo(t.dtype).eps / 2 for t in tensors.values()), default=0.0)
