"""hanse check."""

from rich.table import Table
from rich.text import Text

from hanse import loading, preview
from hanse.commands.words import File, Overrides, console


def check(file: File, overrides: Overrides = None) -> None:
    """Show what a run would do: an example, the clients, bytes, time and memory."""
    chosen = loading.load(file, overrides or ())
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
