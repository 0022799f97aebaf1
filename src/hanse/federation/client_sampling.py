"""Which clients take part in a round."""

from collections.abc import Mapping

import torch

from hanse.federation.messages import ClientProfile
from hanse.randomness import RoundContext


def taking_part(clients: int, fraction: float) -> int:
    """How many of so many clients take part in a round."""
    return max(1, round(fraction * clients))


def sample(
    profiles: Mapping[str, ClientProfile], fraction: float, context: RoundContext
) -> dict[str, ClientProfile]:
    """The clients of a round: a seeded draw without replacement, in client order."""
    wanted = taking_part(len(profiles), fraction)
    drawn = torch.randperm(len(profiles), generator=context.generator("clients"))[:wanted]
    chosen = set(drawn.tolist())
    return {name: p for index, (name, p) in enumerate(profiles.items()) if index in chosen}
