"""hanse profile."""

from math import inf
from pathlib import Path
from typing import Annotated, Literal

import typer

from hanse.cli.options import console
from hanse.cli.output_files import refuse_unwritable
from hanse.errors import UserError
from hanse.lazy_imports import lazy_imports

with lazy_imports():
    from hanse import atomic_files
    from hanse.journal import record_files
    from hanse.planning.edge_study import plot as plotting
    from hanse.planning.edge_study import study as edge_study
    from hanse.planning.edge_study import study_text

LARGEST = 4096  # rows of a batch
Batches = Annotated[str, typer.Option(help="Rows of a batch, one size after another: 1,2,4,8.")]
Links = Annotated[
    list[str] | None,
    typer.Option(
        metavar="UP/DOWN", help="A link's rates in 10⁶ bits a second; may be given several times."
    ),
]
Length = Annotated[int, typer.Option(help="Tokens of a row.", min=4, max=131_072)]
Rank = Annotated[int, typer.Option("--rank", "-r", help="Rank of LoRA.", min=1, max=1024)]
Steps = Annotated[int, typer.Option(help="Optimizer steps of a round.", min=1)]
Deadline = Annotated[
    float | None, typer.Option(help="Seconds after which a round is too late.", min=0)
]
Kind = Annotated[
    Literal["float32", "bfloat16"],
    typer.Option(help="The precision of the model: which one is faster must be measured."),
]
Output = Annotated[Path, typer.Option(help="The file of the results, as JSON.")]
Picture = Annotated[Path | None, typer.Option(help="Draw the rounds into a file, as SVG.")]


def profile(
    model: Annotated[
        str, typer.Argument(help="A shape such as llama-135m or t5-small, a folder, a hub's id.")
    ],
    batch: Batches = "1,2,4,8",
    max_length: Length = 128,
    link: Links = None,
    rank: Rank = 8,
    steps: Steps = 20,
    deadline: Deadline = None,
    precision: Kind = "float32",
    output: Output = Path("edge-study.json"),
    plot: Picture = None,
) -> None:
    """Measure a model's training step here, and compare devices and links: the edge study."""
    batches, links = _batches(batch), tuple(_link(text) for text in link or ("10/50", "100/100"))
    if deadline is not None and not deadline < inf:
        raise UserError(f"--deadline came as {deadline:g}; write seconds, or leave it out.")
    _refuse_files(output, plot)
    wanted = edge_study.Wanted(
        batches=batches,
        length=max_length,
        rank=rank,
        links=links,
        steps=steps,
        deadline=deadline,
        bf16=precision == "bfloat16",
    )
    found = edge_study.study(model, wanted)
    for line in study_text.lines(found):
        console.print(line, soft_wrap=True, markup=False, highlight=False)
    record_files.write(output, found)
    console.print(f"results  {output}", soft_wrap=True)
    if plot is not None:
        atomic_files.write(plot, plotting.svg(found))
        console.print(f"plot     {plot}", soft_wrap=True)


def _refuse_files(output: Path, plot: Path | None) -> None:
    """Raise UserError for files that exist, cannot be written, or are one and the same."""
    for option, file in {"--output": output, "--plot": plot}.items():
        if file is None:
            continue
        if file.is_file():
            raise UserError(f"{file} exists already; name another file with {option}.")
        refuse_unwritable(file)
    if plot is not None and plot.resolve() == output.resolve():
        raise UserError(f"--output and --plot both name {plot}; name another file with --plot.")


def _batches(text: str) -> tuple[int, ...]:
    """The sizes of batches in a text such as 1,2,4; raises UserError for anything else."""
    words = text.split(",")
    if not all(word.strip().isdecimal() and 1 <= int(word) <= LARGEST for word in words):
        raise UserError(
            f"--batch is {text!r:.80}; write rows of a batch from 1 to {LARGEST:,} with commas, "
            "such as 1,2,4."
        )
    return tuple(dict.fromkeys(map(int, words)))


def _link(text: str) -> tuple[float, float]:
    """(rate up, rate down) of a text such as 10/50; raises UserError for anything else."""
    up, slash, down = text.partition("/")
    try:
        rates = float(up), float(down)
    except ValueError:
        rates = 0.0, 0.0
    if not slash or not all(0 < rate <= 1e9 for rate in rates):
        raise UserError(
            f"--link is {text!r:.80}; write its rates up and down in 10⁶ bits a second, such as "
            "10/50."
        )
    return rates
