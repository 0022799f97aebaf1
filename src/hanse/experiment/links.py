"""The schema's section on the links between a simulation's clients and its server."""

from typing import Annotated, Any, TypeVar

from pydantic import Discriminator, Field, Tag

from hanse.experiment.sections import SettingsModel

Rate = Annotated[float, Field(gt=0, le=1e9)]
Delay = Annotated[float, Field(ge=0, le=1e9)]
Loss = Annotated[float, Field(ge=0, le=0.5)]
Number = TypeVar("Number")


def _form(value: Any) -> str:
    return "list" if isinstance(value, list) else "float"


InTurn = Annotated[
    Annotated[Number, Tag("float")] | Annotated[list[Number], Field(min_length=1), Tag("list")],
    Discriminator(_form),  # so that a mistake in a list is named by its place
]


class Links(SettingsModel):
    """The clients' links to the server in a simulation; a deployment has real ones.

    Each setting is one number for all clients, or a list from which the clients take a number each
    in client order, and again from its beginning if the list is shorter.

    up_mbps, down_mbps: rates from a client and to it, in 10⁶ bits a second; none: no limit.
    latency_ms: milliseconds that a message takes one way, beside its transfer; half of a ping.
    loss: the share of packets that are lost and sent again, drawn by seed.
    seconds_per_step: simulated seconds of one optimizer step at the client; measured seconds decide
        nothing, since they differ between machines and from run to run.
    """

    up_mbps: InTurn[Rate] | None = None
    down_mbps: InTurn[Rate] | None = None
    latency_ms: InTurn[Delay] = 0.0
    loss: InTurn[Loss] = 0.0
    seconds_per_step: InTurn[Delay] = 0.0

    def at(self, place: int) -> dict[str, float | None]:
        """The settings of the client at this place in the order of the clients."""
        return {
            name: value[place % len(value)] if isinstance(value, list) else value
            for name, value in self
        }
