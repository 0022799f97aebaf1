"""The report of one run."""

from dataclasses import dataclass
from pathlib import Path

from hanse import atomic_files
from hanse.errors import UserError
from hanse.journal.records import ClientRecord
from hanse.reports import plotting
from hanse.reports.html import render
from hanse.reports.loading_snippet import usage
from hanse.reports.plotting import Plot
from hanse.reports.privacy import assumptions, privacy
from hanse.reports.run.confusion import confusion
from hanse.reports.run.cost_plots import time, traffic
from hanse.reports.run.costs import computed, costs, over_links, precision, sent_once, spent
from hanse.reports.run.headline import headline
from hanse.reports.run.partition_plot import partition
from hanse.reports.run.quality_plots import loss, metric, own, quality
from hanse.reports.run.run_data import RunData, read
from hanse.reports.run.training_costs import training_costs
from hanse.reports.secure_sums import secure_sums

OPEN = 12  # clients; a longer table is folded
FEW = 4  # samples that are shown at once


@dataclass(frozen=True)
class Compared:
    """One example of the test split before and after training."""

    prompt: str
    answer: str
    before: str
    after: str


@dataclass(frozen=True)
class ClientSummary:
    """One client's part in a run: requests to train, answers, bytes, mean loss, rows, errors.

    simulated: mean seconds of a request to train and its answer over simulated links.
    """

    name: str
    asked: int
    answered: int
    down: float
    up: float
    simulated: float | None
    loss: float | None
    rows: float | None
    errors: tuple[str, ...]


def write_report(folder: Path) -> Path:
    """Write report.html and plots/ into a run folder, which may be in progress; the page's file.

    Raises UserError if the folder holds no experiment.
    """
    run = read(folder)
    plots = [draw(run) for draw in (quality, loss, own, partition, traffic, time)]
    pictures = {plot.name: plotting.draw(plot) for plot in plots if plot}
    if pictures:
        plotting.keep(pictures.values(), folder / "plots")
    totals = costs(run)
    page = render(
        "run/run",
        run=run,
        headline=headline(run),
        metric=metric(run),
        pictures=pictures,
        costs=totals,
        spent=spent(totals),
        sent_once=sent_once(run),
        over_links=over_links(run, totals),
        computed=computed(run, totals),
        privacy=privacy(run.privacy),
        assumptions=assumptions(run.privacy),
        secure_sums=secure_sums(run.rounds, run.remote),
        precision=precision(run),
        samples=samples(run),
        confusion=confusion(run),
        usage=usage(folder / "adapter", repr(f"{folder}/adapter"), run.settings.labels),
        clients=clients(run),
        training_costs=training_costs(run),
        open=OPEN,
        few=FEW,
    )
    atomic_files.write(folder / "report.html", page)
    return folder / "report.html"


def figure(folder: Path, target: Path) -> None:
    """Draw a run's quality and training loss by round into a .png or .svg file."""
    if target.suffix not in (".png", ".svg"):
        raise UserError(f"a figure ends in .png or .svg, but {target} was asked for.")
    run = read(folder)
    both = [plot for plot in (quality(run), loss(run)) if plot]
    if not both:
        raise UserError(f"{folder} has no finished round to draw.")

    def paint(*axes: object) -> None:
        for plot, one in zip(both, axes, strict=True):
            plot.paint(one)

    joint = Plot("quality", "", "", paint, [height for plot in both for height in plot.heights])
    picture = plotting.draw(joint)
    atomic_files.write(target, picture.png if target.suffix == ".png" else picture.svg)


def samples(run: RunData) -> list[Compared]:
    """Generated samples before and after training, of the first task that has any."""
    for scored in run.tests.values():
        first, last = scored[min(scored)], scored[max(scored)]
        pairs = zip(first.samples, last.samples, strict=False)
        compared = [
            Compared(new.prompt, new.answer, old.said if len(scored) > 1 else "", new.said)
            for old, new in pairs
            if old.prompt == new.prompt
        ]
        if compared:
            return compared
    return []


def clients(run: RunData) -> list[ClientSummary]:
    """Every client that was sent anything, by name."""
    by_name: dict[str, list[ClientRecord]] = {}
    for message in run.ledger:
        by_name.setdefault(message.client, []).append(message)
    return [_served(name, by_name[name]) for name in sorted(by_name)]


def _served(name: str, messages: list[ClientRecord]) -> ClientSummary:
    asked = [m for m in messages if m.kind == "train" and m.late is None]
    answered = [m for m in asked if m.up and not m.error]
    losses = [m.loss for m in answered if m.loss is not None]
    journeys = [m.simulated.seconds for m in asked if m.simulated]
    held = [m.weight for m in messages if m.kind == "evaluate" and m.weight is not None]
    return ClientSummary(
        name,
        len({m.round for m in asked}),  # a round that was paused is asked for again
        len({m.round for m in answered}),
        down=sum(m.down for m in messages),
        up=sum(m.up for m in messages),
        simulated=sum(journeys) / len(journeys) if journeys else None,
        loss=sum(losses) / len(losses) if losses else None,
        rows=held[-1] if held else None,
        errors=tuple(f"Round {m.round}: {m.error}" for m in messages if m.error),
    )
