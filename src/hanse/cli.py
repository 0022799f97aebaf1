"""The command line: run, resume, check, evaluate, parts."""

import logging
import shlex
import sys
from pathlib import Path
from typing import Annotated

import click
import typer
from rich.console import Console
from rich.table import Table
from rich.text import Text

from hanse import experiment, journal, parts, preview, rescore, simulation
from hanse.errors import UserError
from hanse.evaluation.intervals import Interval, paired

app = typer.Typer(
    help="Federated fine-tuning of large language models.",
    add_completion=False,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
)
console = Console(highlight=False, markup=False)  # names of labels and folders are no markup

File = Annotated[Path, typer.Argument(help="An experiment, such as experiments/quickstart.yaml.")]
Folder = Annotated[Path, typer.Argument(help="A run folder, such as runs/quickstart.")]
Overrides = Annotated[
    list[str] | None, typer.Argument(help="Settings to change, such as rounds=5 train.optim=sgd.")
]


@app.command()
def run(file: File, overrides: Overrides = None) -> None:
    """Run an experiment, all clients on this machine; leave an adapter and a report."""
    _tell(simulation.run(experiment.load(file, overrides or ())))


@app.command()
def resume(folder: Folder) -> None:
    """Go on with a run that was stopped; it ends as if it never had been."""
    _tell(simulation.resume(folder))


@app.command()
def check(file: File, overrides: Overrides = None) -> None:
    """Show what a run would do: an example, the clients, bytes, time and memory."""
    chosen = experiment.load(file, overrides or ())
    found = preview.preview(chosen)
    console.print("One training example; what is learned is underlined:", style="bold")
    text = Text()
    for piece, learned in found.example:
        text.append(piece, style="underline green" if learned else "")
    console.print(text, soft_wrap=True)
    table = Table(title="training rows")
    for name in ("client", *(found.labels or ["rows"]), "bytes down", "bytes up"):
        table.add_column(name, justify="left" if name == "client" else "right")
    for client, counts in found.table.items():
        sizes = (found.down[client], found.up[client])
        table.add_row(client, *(f"{value:,}" for value in (*counts, *sizes)))
    console.print(table)
    share = 100 * found.trained / found.total
    console.print(f"trained    {found.trained:,} of {found.total:,} parameters ({share:.3f} %)")
    size = (sum(found.down.values()) + sum(found.up.values())) / len(found.down)
    of = f"{found.clients_a_round} of {len(found.down)} clients"
    console.print(f"a round    {found.clients_a_round * size:,.0f} bytes with {of}")
    console.print(f"the run    about {found.seconds:,.0f} s, {found.memory / 1e9:.1f} GB of memory")


@app.command()
def evaluate(
    folder: Folder,
    overrides: Overrides = None,
    data: Annotated[str | None, typer.Option(help="Score all rows of this file instead.")] = None,
    split: Annotated[str, typer.Option(help="test or validation.")] = "test",
) -> None:
    """Score a finished run's adapter beside its base model, on the same rows."""
    if split not in ("test", "validation"):
        raise UserError(f"--split is {split!r}; it can be test or validation.")
    for name, found in rescore.compare(folder, data, split, overrides or ()).items():
        table = Table(title=f"{name}, {len(found.base.items):,} rows")
        for column in ("metric", "base", "adapter"):
            table.add_column(column, justify="left" if column == "metric" else "right")
        for metric, value in found.base.metrics.items():
            table.add_row(metric, f"{value:.4f}", f"{found.adapted.metrics[metric]:.4f}")
        console.print(table)
        said = _shown(found.difference)
        console.print(f"difference of the items' scores: {said}", soft_wrap=True)


@app.command(name="parts")
def list_parts() -> None:
    """List every part that an experiment can name, with its settings."""
    for folder in parts.FOLDERS:
        console.print(folder, style="bold")
        for name in parts.names(folder):
            part = parts.find(folder, name)
            first = (part.__doc__ or "").strip().splitlines()[0]
            console.print(f"  {name:<16}{first}")
            for setting in parts.settings(part):
                default = f" = {setting.default}" if setting.default else ""
                console.print(f"  {'':<16}  {setting.name}: {setting.type}{default}", style="dim")


def _tell(folder: Path) -> None:
    """Say how a finished run ended, where its results are, and what to do next."""
    checkpoint = journal.latest(folder)
    last = checkpoint.round if checkpoint else 0
    files = sorted((folder / "scores").glob(f"test-*-{last:05d}.json"))
    for file in files:
        task = file.name[len("test-") : -len(f"-{last:05d}.json")]
        try:
            before = journal.read_scores(folder, f"test-{task}", 0)
            after = journal.read_scores(folder, f"test-{task}", last)
        except (OSError, ValueError):
            console.print(f"the scores in {file.parent} cannot be read", soft_wrap=True)
            continue
        name = "accuracy" if "accuracy" in after["metrics"] else next(iter(after["metrics"]))
        old, new = (sum(found["items"]) / len(found["items"]) for found in (before, after))
        console.print(
            f"mean {name} of {len(after['items']):,} held-out rows: {old:.4f} → {new:.4f}, "
            f"change {_shown(paired(after['items'], before['items']))}",
            style="bold",
            soft_wrap=True,
        )
    console.print(f"adapter  {folder / 'adapter'}", soft_wrap=True)
    console.print(f"report   {folder / 'report.html'}", soft_wrap=True)
    again = f"hanse evaluate {shlex.quote(str(folder))}"
    console.print(f"next     {again if files else f'{again} --data FILE'}", soft_wrap=True)


def _shown(interval: Interval | None) -> str:
    if interval is None:
        return "of one row, which is too few for an interval"
    low, high = f"{interval.low:+.4f}", f"{interval.high:+.4f}"
    return f"{interval.value:+.4f} (paired 95 % interval {low} to {high})"


def main() -> None:
    """Run the command line: exit code 2 and one sentence for a mistake of the user's."""
    logging.basicConfig(format="%(asctime)s  %(message)s", datefmt="%H:%M:%S")
    logging.getLogger("hanse").setLevel(logging.INFO)
    try:
        app(standalone_mode=False)
    except click.ClickException as error:  # a word that is no command or option
        error.show()
        sys.exit(error.exit_code)
    except UserError as error:
        print(f"hanse: {error}", file=sys.stderr)
        sys.exit(2)
    except (KeyboardInterrupt, click.Abort):
        print("hanse: stopped before anything was begun.", file=sys.stderr)
        sys.exit(2)


if __name__ == "__main__":
    main()
