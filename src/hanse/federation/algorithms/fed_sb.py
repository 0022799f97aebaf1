"""Fed-SB (Singhal et al. 2025, 2502.15436): the mean of R is the mean of B·R·A, exactly."""

from dataclasses import dataclass

from hanse.errors import UserError
from hanse.federation.algorithms.fedavg import FedAvg
from hanse.federation.interfaces.algorithm import Server
from hanse.federation.interfaces.results import State


@dataclass(frozen=True)
class FedSB(FedAvg):
    """R ← R + Σ pₖ(Rₖ − R), B and A being one and the same at all clients: r² numbers a matrix.

    Exact, and linear in what is sent: sums without single updates keep their meaning. The server
    computes B and A from W's singular vectors, as the adapter lora_xs has them, and sends them to
    each client once. The paper's start (LoRA-SB: the singular vectors of the averaged first full
    gradient) is another one: it would need gradients as large as the model, and may be made from
    public data only.
    """

    def init(self, server: Server) -> State:
        model = server.learner.tensors()
        if not any(name.endswith(".core_r") for name in model):
            raise UserError(
                f"FedSB averages what stands between LoRA's factors, but the adapter has "
                f"{next(iter(model))}; set adapter: lora_xs."
            )
        return super().init(server)
