"""Clients' seconds of training beside those that a plan expects, and the steps that follow.

A prediction is corrected after three rounds in a row that were off by more than 30 % to the same
side, or after one that took more than twice as long before any round has confirmed it. The
corrected prediction is then the one that rounds are compared with, so that noise around it changes
nothing. Reconstruction: FedPipe (2404.06448) plans once.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from statistics import median

OFF = 1.3  # a ratio of measured and predicted seconds, either way, beyond which a round is off
FAR = 2.0  # the same for a prediction that no round has confirmed
IN_A_ROW = 3  # rounds that are off, until the prediction is corrected
LEAST = 0.01  # the smallest share of steps
MOST = 1e4  # of `slower`, and 1 ÷ the least of it and of shares, whatever a client reports


@dataclass(frozen=True)
class Pace:
    """The pace of one client.

    slower: its seconds of a step ÷ the expected ones, as far as is known. share: of the steps of a
        round that it is asked for. steps: of a whole round; 0 if not known.
    confirmed: whether a round was close to the prediction. off: measured ÷ predicted seconds of the
        last rounds, which were off.
    """

    slower: float = 1.0
    share: float = 1.0
    steps: float = 0.0
    confirmed: bool = False
    off: tuple[float, ...] = ()

    def numbers(self) -> list[float]:
        """The pace as numbers, which `of` reads again."""
        return [self.slower, self.share, self.steps, float(self.confirmed), *self.off]

    @staticmethod
    def of(numbers: Sequence[float]) -> "Pace":
        """The pace that `numbers` has written."""
        slower, share, steps, confirmed, *off = numbers
        return Pace(slower, share, steps, bool(confirmed), tuple(off))

    def after(self, measured: float, expected: float, bound: float, steps: float) -> "Pace":
        """The pace after a round.

        measured: its seconds of training. expected: those that the plan has for all steps. bound:
        the most seconds that a round should take. steps: those that it made; 0 if not known.
        """
        whole = self.steps or (steps if self.share == 1 else 0.0)
        done = max(steps / whole, 1 / MOST) if whole and steps else self.share
        ratio = measured / (expected * self.slower * done)
        if 1 / OFF <= ratio <= OFF:
            return replace(self, steps=whole, confirmed=True, off=())
        off = (*self.off, ratio) if self.off and (self.off[0] > 1) == (ratio > 1) else (ratio,)
        if len(off) < IN_A_ROW and (self.confirmed or ratio <= FAR):
            return replace(self, steps=whole, off=off)
        slower = self.slower * (median(off) if len(off) >= IN_A_ROW else ratio)
        slower = min(MOST, max(1 / MOST, slower))
        share = min(1.0, max(LEAST, bound / (expected * slower)))
        return Pace(slower, share, whole)

    def change(self, before: "Pace", name: str, expected: float, round: int) -> str:
        """One sentence on a corrected prediction, and on what follows.

        before: the pace before. expected: seconds of the plan. round: the one that is over.
        """
        due, now = expected * before.slower, expected * self.slower
        text = f"after round {round}, all steps of {name} take {now:.3g} s, not {due:.3g} s"
        if self.share != before.share:
            text += (
                f"; it is asked for {100 * self.share:.3g} % of its steps from now on, not "
                f"{100 * before.share:.3g} %"
            )
        return (
            f"{text}. Ranks and batches stay as they are in a run; `hanse plan` with --slower "
            f"{name}={self.slower:.3g} chooses them anew."
        )
