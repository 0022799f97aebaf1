"""FedSA-LoRA (Guo et al. 2024, 2410.01463): A is shared, and each client keeps its own B."""

from dataclasses import dataclass
from typing import ClassVar

from hanse.federation.algorithms.fedper import FedPer, Patterns
from hanse.federation.interfaces.algorithm import Server
from hanse.federation.interfaces.results import State
from hanse.tensors.low_rank import A, refuse_other_than_lora


@dataclass(frozen=True)
class FedSALoRA(FedPer):
    """A ← A + Σ pₖ(Aₖ − A); Bₖ never leaves client k. The paper saw similar A at all clients."""

    needs_factors: ClassVar[bool] = True
    share: Patterns = (A,)

    def init(self, server: Server) -> State:
        refuse_other_than_lora(server.learner.tensors(), type(self).__name__, products=False)
        return super().init(server)
