"""FLTrust (Cao et al. 2021, 2012.13995)."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, ClassVar

from torch import Tensor

from hanse.errors import UserError
from hanse.federation.interfaces.aggregator import Exchange, TooFewClientsError
from hanse.federation.interfaces.results import Aggregate
from hanse.federation.robust.distances import inner_products
from hanse.federation.robust.received import Received
from hanse.federation.robust.rule import RobustRule
from hanse.registry import ServerText, suggestion

CLIENT = ServerText(
    lambda value: isinstance(value, str) and len(value) <= 200,
    "a client's name of at most 200 characters",
)


@dataclass(frozen=True)
class FLTrust(RobustRule):
    """The mean of updates by their cosine with a trusted one, each with the norm of that one.

    Cao et al. 2021 (2012.13995), eq. 2 to 4: with the trusted update g₀ an update gₖ gets the trust
    max(0, cos(gₖ, g₀)), and the result is the mean of ‖g₀‖/‖gₖ‖·gₖ by trust. It bears any number
    of attackers, and knows no honest client whose data have nothing in common with the trusted.

    In the paper the server trains g₀ on clean data of its own. Here the client `root` does, which
    whoever runs the server must trust. As in the paper g₀ itself is not in the mean, unless no
    other update has any trust: then it is the result. Clients with the trust 0 are left out, and
    the log names them. Numbers of examples are ignored. Cosines and norms are those of updates as
    they travel.
    """

    payloads: ClassVar[tuple[str, ...]] = ("change",)
    least: ClassVar[int] = 2
    sets_norms: ClassVar[bool] = True

    root: Annotated[str, CLIENT]  # the name of the trusted client

    def require_names(self, names: Sequence[str], always: bool) -> None:
        if self.root not in names:
            raise UserError(
                f"aggregator.fltrust.root is {self.root!r:.200}, which takes no part"
                f"{suggestion(self.root, names)}; name one of {', '.join(names):.500}."
            )
        if not always:
            raise UserError(
                f"fltrust needs an answer of {self.root} in every round, and fraction_train asks "
                "only some clients, drawn by seed; set fraction_train=1, or choose the aggregator "
                "coordinate_median."
            )

    def aggregate(self, exchange: Exchange) -> Aggregate:
        if self.root not in exchange.profiles:
            raise UserError(
                f"aggregator.fltrust.root is {self.root!r:.200}, which is not among the clients of "
                f"round {exchange.round}: {', '.join(exchange.profiles):.500}; name one that takes "
                "part in every round, and leave fraction_train at 1."
            )
        return super().aggregate(exchange)

    def bound(self, clients: int) -> str:
        return f"any number of hostile clients is borne, as long as {self.root} is honest"

    def combined(self, received: Received, attackers: int) -> Aggregate:
        if self.root not in received.names:
            raise TooFewClientsError(len(received), len(received) + 1)
        root = received.names.index(self.root)
        products = inner_products(received)
        trust = trust_in(products, root)
        kept = [place for place, value in enumerate(trust) if value > 0 or place == root]
        received.tell_excluded(kept, f"their updates do not point the way that {self.root}'s does")
        norms = products.diagonal().sqrt().tolist()
        if not any(trust):
            trust[root] = 1.0
        total = math.fsum(trust)
        share = [
            0.0 if not value else value / total * (norms[root] / norm if norm else 1.0)
            for value, norm in zip(trust, norms, strict=True)
        ]
        return received.aggregate(received.combination(share), kept)


def trust_in(products: Tensor, root: int) -> list[float]:
    """The trust in each client: its cosine with the root's update, or 0 if that is negative.

    products: (n, n) inner products of the updates. The root itself has the trust 0, and so has an
        update so long that they overflow.
    """
    norms = products.diagonal().sqrt()
    lengths = norms * norms[root]
    cosines = (products[root] / lengths.where(lengths > 0, math.inf)).nan_to_num(0.0).clamp(0, 1)
    cosines[root] = 0.0
    values: list[float] = cosines.tolist()
    return values
