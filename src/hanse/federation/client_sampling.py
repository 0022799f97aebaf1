"""Sampling of the clients of a round."""

from collections.abc import Mapping

import torch

from hanse.federation.messages import ClientProfile
from hanse.randomness import RoundContext


def taking_part(clients: int, fraction: float) -> int:
    """The number of clients that take part in a round, at least one."""
    return max(1, round(fraction * clients))


def fewest_replies(quorum: int, clients: int, fraction: float) -> int:
    """The fewest updates that a round combines, if so many clients are there to be drawn from."""
    return min(quorum, taking_part(clients, fraction))


def fraction_asked(fraction: float, over_selection: float) -> float:
    """The share of the clients that are asked in a round, so that `fraction` of all may reply."""
    return min(1.0, fraction * over_selection)


def sample(
    profiles: Mapping[str, ClientProfile], fraction: float, context: RoundContext
) -> dict[str, ClientProfile]:
    """The clients of a round in client order, drawn by seed without replacement."""
    number = taking_part(len(profiles), fraction)
    drawn = torch.randperm(len(profiles), generator=context.generator("clients"))[:number]
    places = set(drawn.tolist())
    return {name: p for place, (name, p) in enumerate(profiles.items()) if place in places}
