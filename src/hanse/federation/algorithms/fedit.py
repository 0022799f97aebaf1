"""FedIT (Zhang et al. 2023, 2305.05644): FedAvg of LoRA's two factors separately."""

from dataclasses import dataclass

from hanse.federation.algorithms.fedavg import FedAvg


@dataclass(frozen=True)
class FedIT(FedAvg):
    """A ← Σ pₖAₖ and B ← Σ pₖBₖ. This is inexact: B·A is not Σ pₖBₖAₖ.

    The error is the covariance of the clients' factors, Σ pₖ(Bₖ − B)(Aₖ − A).
    """
