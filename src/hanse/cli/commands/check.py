"""hanse check."""

from rich.text import Text

from hanse.cli.options import File, Overrides, Trust, console
from hanse.data.formats.row import Reading
from hanse.errors import cleaned
from hanse.experiment import loading
from hanse.experiment.schema import Experiment
from hanse.lazy_imports import lazy_imports

with lazy_imports():
    from hanse.cli import row_table
    from hanse.experiment.assembly import federated_dataset
    from hanse.planning import estimate


def check(file: File, overrides: Overrides = None, trust: Trust = False) -> None:
    """Show what a run would do: the data, an example, the clients, bytes, time and memory."""
    chosen = loading.load(file, overrides or (), trust)
    found = estimate.preview(chosen)
    _show_data(found)
    console.print("\nThe training rows of each client:", style="bold")
    console.print(row_table.picture(found.table, console.width))
    _show_remarks(found, chosen)
    share = 100 * found.trained / found.total
    console.print(f"\ntrained    {found.trained:,} of {found.total:,} parameters ({share:.3f} %)")
    down, up = (_between(list(sizes.values())) for sizes in (found.down, found.up))
    console.print(f"a client   {down} bytes down and {up} bytes up in each round")
    if found.once:
        console.print(f"           {found.once:,} bytes more down the first time: what is frozen")
    size = (sum(found.down.values()) + sum(found.up.values())) / len(found.down)
    of = f"{found.clients_a_round} of {len(found.down)} clients"
    console.print(f"a round    {found.clients_a_round * size:,.0f} bytes with {of}")
    memory = f"{found.memory / 1e9:.1f} GB of memory ({found.available / 1e9:.1f} GB available)"
    console.print(f"the run    about {found.seconds:,.0f} s, {memory}")


def _show_data(found: "estimate.Preview") -> None:
    """How the data were read, and what an example looks like."""
    alike: dict[str, list[str]] = {}
    for path, reading in found.readings:
        alike.setdefault(_taken(reading), []).append(path)
    for taken, (first, *others) in alike.items():
        more = f" and {len(others)} more are" if others else " is"
        console.print(cleaned(f"{first}{more} read as {taken}"), soft_wrap=True)
    console.print("\nOne training example; what is learned is underlined:", style="bold")
    text = Text()
    for piece, learned in found.example:
        text.append(piece, style="underline green" if learned else "")
    console.print(text, soft_wrap=True)
    lengths = found.lengths
    console.print(
        f"\n{lengths.mean:,.0f} tokens in the mean, 95 % have at most {lengths.most:,.0f}; "
        f"max_length {lengths.limit:,} cuts {100 * lengths.cut:.1f} % of the examples"
    )


def _show_remarks(found: "estimate.Preview", chosen: Experiment) -> None:
    """Which rows are left out or cut, and what cannot be known here."""
    remarks = (*found.table.remarks, *federated_dataset.unseen(chosen))
    for remark in remarks:
        console.print(f"note: {remark}", soft_wrap=True)


def _taken(reading: Reading) -> str:
    """A format, and which column was taken for which of its parts."""
    parts = [
        part if part == theirs else f"{part} from {theirs!r}"
        for part, theirs in reading.columns.items()
    ]
    return f"{reading.format}: {', '.join(parts)}"


def _between(sizes: list[int]) -> str:
    """One number, or the range of several."""
    low, high = min(sizes), max(sizes)
    return f"{low:,}" if low == high else f"{low:,} to {high:,}"
