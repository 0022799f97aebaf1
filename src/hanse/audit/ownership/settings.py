"""The settings of an owner's mark in a run."""

from dataclasses import dataclass
from typing import Annotated

from pydantic import ConfigDict, Field

WITHHELD = "withheld"  # the key in settings that are sent: a mark is declared, no key is named
STRONGEST = 10.0  # a stronger pull would leave nothing of what a silo learns from its rows


@dataclass(frozen=True)
class OwnershipSettings:
    """The mark that one owner lays while it trains: a client, a silo, or the server.

    key: the file of the owner's key, which stays where it is.
    strength: the length of the mark's gradient, while all its bits are wrong, as a multiple of the
        length of the step's gradient of the marked tensors. A silo with a small share of the mean
        pulls more strongly, at most by `STRONGEST`.
    margin: how far beyond its sign each bit is pulled, as a multiple of what a random direction
        measures; a change that is e times as long as the tensors flips a bit with probability
        Φ(−margin/e).
    share: of the rows of each batch that are trigger rows, if the key has triggers.
    """

    __pydantic_config__ = ConfigDict(extra="forbid", allow_inf_nan=False)

    key: Annotated[str, Field(min_length=1, max_length=4096)]
    strength: Annotated[float, Field(gt=0, le=STRONGEST)] = 0.5
    margin: Annotated[float, Field(gt=0, le=10)] = 1.0
    share: Annotated[float, Field(gt=0, le=0.5)] = 0.1
