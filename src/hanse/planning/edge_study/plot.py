"""A picture of an edge study: the parts of a round of each device, over one link."""

from collections.abc import Sequence
from typing import Any

from hanse.planning.edge_study.records import EdgeStudy, RoundFigures
from hanse.reports.plotting import Plot, draw


def svg(study: EdgeStudy) -> bytes:
    """Rounds with the largest batch over the first link, as SVG on white."""
    first = study.rounds[0].link
    largest = max(own.rows for own in study.batches)
    rounds = [own for own in study.rounds if own.link == first and own.rows == largest]
    height = 0.8 + 0.25 * len(rounds)

    def paint(axes: Any) -> None:
        _paint(axes, rounds)

    title = f"A round of {study.model}, {study.steps} steps of {largest} rows, {first} Mb/s"
    return draw(Plot("edge-study", title, "", paint, (height,))).svg


def _paint(axes: Any, rounds: Sequence[RoundFigures]) -> None:
    """One bar for each device: seconds of training, then of the network."""
    names = [own.device for own in rounds]
    training = [own.training for own in rounds]
    axes.barh(names, training, label="training")
    axes.barh(names, [own.network for own in rounds], left=training, label="network")
    axes.invert_yaxis()
    axes.set_xscale("symlog", linthresh=min(own.network for own in rounds))
    axes.set_xlabel("seconds")
    axes.legend(loc="lower right")
