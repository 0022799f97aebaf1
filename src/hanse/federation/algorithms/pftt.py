"""PFTT (Jiang et al. 2024, 2404.13238): global bottlenecks are averaged, LoRA stays local."""

from dataclasses import dataclass

from hanse.errors import UserError
from hanse.federation.algorithms.fedper import FedPer, Patterns
from hanse.federation.interfaces.algorithm import Server
from hanse.federation.interfaces.results import State


@dataclass(frozen=True)
class PFTT(FedPer):
    """Clients train bottlenecks, LoRA and a head together, and send the bottlenecks only.

    The adapter has both: `adapter: {houlsby: {…}, lora: {…}}`. A run saves the bottlenecks; each
    client's LoRA and head stay in its memory.
    """

    share: Patterns = (r"\.bottleneck_",)

    def init(self, server: Server) -> State:
        names = list(server.learner.tensors())
        if not any(".lora_" in name for name in names):
            raise UserError(
                f"PFTT keeps LoRA at each client, but the adapter has none, only {names[0]} and so "
                "on; set adapter: {houlsby: {}, lora: {}}."
            )
        return super().init(server)
