"""The Kullback-Leibler divergence of distributions that are given as logits."""

import torch
from torch import Tensor

EXCLUDED = -1e30  # what is below this comes from an infinite logit
LEAST = -100.0  # as PyTorch's binary cross-entropy bounds a logarithm


def divergence(
    target: Tensor, logits: Tensor, temperature: float = 1.0, reverse: bool = False
) -> Tensor:
    """(N,) T²·KL(p ‖ q) with p = softmax(target / T) and q = softmax(logits / T), of (N, V) logits.

    T² keeps the size of the gradient at any temperature (Hinton et al. 2015, 1503.02531, section
    2). With T = 1, log-probabilities may take the place of logits. Computed in float32 or better.

    reverse: KL(q ‖ p). Gradients flow into both arguments: detach the one that is not trained.

    A logit of -inf, by which models exclude a class, counts as the log-probability LEAST without a
    gradient, and one of +inf as the largest number.
    """
    p, q = (_log_probabilities(each, temperature) for each in (target, logits))
    if reverse:
        p, q = q, p
    result: Tensor = temperature**2 * (p.exp() * (p - q)).sum(dim=1)
    return result


def _log_probabilities(logits: Tensor, temperature: float) -> Tensor:
    """The finite log softmax(logits / T)."""
    wide = logits if logits.element_size() > 4 else logits.float()
    scaled = wide.div(temperature).clamp(max=torch.finfo(wide.dtype).max)
    result = scaled.log_softmax(dim=1)
    return result.masked_fill(result < EXCLUDED, LEAST)
