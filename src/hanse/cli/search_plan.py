"""`hanse plan --search`: its options, and what it prints."""

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from hanse.cli.options import console
from hanse.errors import UserError
from hanse.lazy_imports import lazy_imports

with lazy_imports():
    from hanse import atomic_files
    from hanse.planning.search import search as searching
    from hanse.planning.search import search_text, settings, winner, winner_page

if TYPE_CHECKING:
    from hanse.experiment.schema import Experiment
    from hanse.planning.search.settings import Wishes

PAGE = "search.txt"  # in the folder of the trials

Search = Annotated[
    bool, typer.Option("--search", help="Try adapters, algorithms and learning rates instead.")
]
Adapters = Annotated[
    str | None,
    typer.Option(help="The adapters that --search tries, as in lora,ia3 or {lora: {r: 16}}."),
]
Algorithms = Annotated[
    str | None,
    typer.Option(help="The algorithms that --search tries, as in fedavg,{fedprox: {mu: 0.1}}."),
]
Rates = Annotated[
    str | None,
    typer.Option(help="The learning rates that --search tries; default: three of each adapter."),
]
Trials = Annotated[
    int | None, typer.Option(help="The most combinations that --search tries; default: 24.", min=2)
]
Rounds = Annotated[
    int | None,
    typer.Option(help="The rounds of the longest trials of --search; default: the file's.", min=1),
]


def wishes(
    adapters: str | None,
    algorithms: str | None,
    rates: str | None,
    trials: int | None,
    rounds: int | None,
) -> "Wishes":
    """The wishes that the options name."""
    found = settings.rates(rates) if rates is not None else ()
    return settings.Wishes(adapters, algorithms, found, trials or settings.TRIALS, rounds)


def refuse_options(given: Mapping[str, object], search: bool) -> None:
    """Raise UserError for options of the other kind of plan.

    given: their values, by name. search: whether the plan is a search.
    """
    for name, value in given.items():
        if value in (None, []):
            continue
        if search:
            raise UserError(f"{name} says nothing to --search; leave one of them out.")
        raise UserError(f"{name} is an option of --search alone; add that, or leave {name} out.")


def show_search(
    file: Path, experiment: "Experiment", wish: "Wishes", out: Path, anew: bool
) -> None:
    """Search, write the choice to `out`, and print the trials with the evidence.

    anew: write all settings anew into `out`; as in `winner_page.write`.
    """
    found = searching.search(experiment, wish)
    best = winner.winner(found)
    page = found.folder / PAGE
    atomic_files.write(page, search_text.text(found, best).encode())
    winner_page.write(out, file, found, best, anew)
    for row in search_text.lines(found, best):
        console.print(row, soft_wrap=True)
    for sentence in search_text.sentences(found, best):
        console.tell(f"note: {sentence}", indent=6)
    console.print(f"trials  {page}", soft_wrap=True)
    console.print(f"plan    {out}; train it by `hanse run {out}`", soft_wrap=True)
