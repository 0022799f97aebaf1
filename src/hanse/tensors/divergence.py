"""The Kullback-Leibler divergence of distributions that are given as logits."""

from torch import Tensor


def divergence(
    target: Tensor, logits: Tensor, temperature: float = 1.0, reverse: bool = False
) -> Tensor:
    """(N,) T²·KL(p ‖ q) with p = softmax(target / T) and q = softmax(logits / T), of (N, V) logits.

    T² keeps the size of the gradient at any temperature (Hinton et al. 2015, 1503.02531, section
    2). With T = 1, log-probabilities may take the place of logits. Computed in float32 or better.

    reverse: KL(q ‖ p). Gradients flow into both arguments: detach the one that is not trained.
    """
    p, q = (
        (each if each.element_size() > 4 else each.float()).div(temperature).log_softmax(dim=1)
        for each in (target, logits)
    )
    if reverse:
        p, q = q, p
    result: Tensor = temperature**2 * (p.exp() * (p - q)).sum(dim=1)
    return result
