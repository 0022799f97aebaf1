"""Fed-SB (Singhal et al. 2025, 2502.15436): the mean of R gives the exact mean of B·R·A."""

from dataclasses import dataclass

from hanse.errors import UserError
from hanse.federation.algorithms.fedavg import FedAvg
from hanse.federation.interfaces.algorithm import Server
from hanse.federation.interfaces.results import State


@dataclass(frozen=True)
class FedSB(FedAvg):
    """R ← R + Σ pₖ(Rₖ − R) with the same B and A at all clients: r² numbers for each matrix.

    It is exact, and updates are linear in the product, so secure sums keep their meaning. The
    server makes B and A of W's singular vectors (adapter lora_xs), and sends them to each client
    once. The paper starts from the singular vectors of the averaged first full gradient (LoRA-SB).
    That start needs gradients as large as the model, and may be computed from public data only.
    """

    def init(self, server: Server) -> State:
        model = server.learner.tensors()
        if not any(name.endswith(".core_r") for name in model):
            raise UserError(
                f"FedSB averages the matrix between LoRA's factors, but the adapter has "
                f"{next(iter(model))}; set adapter: lora_xs."
            )
        return super().init(server)
