"""hanse fit-codec."""

from pathlib import Path
from typing import Annotated

import typer
from rich.table import Table

from hanse import atomic_files
from hanse.cli.options import console
from hanse.errors import UserError
from hanse.journal.run_settings import refuse_no_run
from hanse.lazy_imports import lazy_imports

with lazy_imports():
    from safetensors import torch as tensor_files

    from hanse.federation.compression import cg_fedllm
    from hanse.planning.learned_codec import collected_changes, comparison
    from hanse.planning.learned_codec import fit as fitting

COLUMNS = ("", "cosine", "SNR in dB", "bytes", "blocks as int4")


def fit_codec(
    folder: Annotated[Path, typer.Argument(help="A run with compression.collect: true.")],
    out: Annotated[Path, typer.Option(help="A new file for the codec.")] = Path(
        "codec.safetensors"
    ),
    epochs: Annotated[int, typer.Option(help="Passes over the changes.", min=0)] = 20,
    block: Annotated[int, typer.Option(help="Numbers of a block.", min=1)] = 4096,
    ratio: Annotated[
        int, typer.Option(help="Numbers of a block for each of its code.", min=1)
    ] = 64,
    held_out: Annotated[
        float, typer.Option(help="Share of the clients to compare on.", min=0, max=1)
    ] = 0.25,
    gate: Annotated[
        float, typer.Option(help="The least cosine of a coded block.", min=0, max=1)
    ] = 0.5,
    seed: Annotated[int, typer.Option(help="Draws held-out clients and batches.", min=0)] = 0,
) -> None:
    """Train the codec cg_fedllm on a run's updates, and compare it on clients held out."""
    if out.exists():
        raise UserError(f"{out} exists already; name a file that does not.")
    refuse_no_run(folder)  # before torch is imported
    if block % cg_fedllm.UNIT or block % ratio:
        raise UserError(
            f"--block {block} must be a multiple of {cg_fedllm.UNIT} and of --ratio, which is "
            f"{ratio}."
        )
    fitted, held = collected_changes.read(folder, block, held_out, seed)
    network = fitting.fit(fitted.blocks, block // ratio, epochs, seed)
    atomic_files.write(out, tensor_files.save(dict(network.tensors)))
    grid = Table()
    for name in COLUMNS:
        grid.add_column(name, justify="right" if name else "left", overflow="fold")
    for row in comparison.table(comparison.compare(network, fitted, held, gate, seed)):
        grid.add_row(*row)
    console.print(f"{len(held.unit)} changes of clients held out of the fit:", soft_wrap=True)
    console.print(grid)
    console.print(f"wrote {out}", soft_wrap=True)
