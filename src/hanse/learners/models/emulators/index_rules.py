"""Rules that choose the layers of a middle that a shorter one keeps, at equal distances.

Both take position i·(n-1)/(k-1) for the i-th of k kept layers among n, and differ in rounding.
round: to the nearest, as the code of offsite tuning (Xiao et al. 2023, 2302.04870).
int: downwards, as that of FedOT (Kuang et al. 2023, 2309.00363).
Positions are exact here; in that code an error of a division may round one down once more.
"""

from fractions import Fraction
from typing import Literal

Rule = Literal["round", "int"]


def kept_positions(layers: int, kept: int, rule: Rule) -> list[int]:
    """The positions of `kept` layers among `layers`, ascending; both ends are among them.

    One layer alone is the first. Raises ValueError unless 1 ≤ kept ≤ layers.
    """
    if not 1 <= kept <= layers:
        raise ValueError(f"{kept} of {layers} layers cannot be kept")
    if kept == 1:
        return [0]
    positions = [Fraction(index * (layers - 1), kept - 1) for index in range(kept)]
    return [round(position) if rule == "round" else int(position) for position in positions]
