"""FedIT (Zhang et al. 2023, 2305.05644): FedAvg of LoRA's two factors, each by itself."""

from dataclasses import dataclass

from hanse.federation.algorithms.fedavg import FedAvg


@dataclass(frozen=True)
class FedIT(FedAvg):
    """A ← Σ pₖAₖ and B ← Σ pₖBₖ, the plain way, and inexact: B·A is not then Σ pₖBₖAₖ.

    What is lost is the covariance of the clients' factors, Σ pₖ(Bₖ − B)(Aₖ − A).
    """
