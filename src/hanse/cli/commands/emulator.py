"""hanse emulator."""

from pathlib import Path
from typing import Annotated, Any

import typer

from hanse.cli.options import console
from hanse.errors import UserError
from hanse.lazy_imports import lazy_imports

with lazy_imports():
    from hanse.experiment import overrides
    from hanse.learners.models.emulators import disclosure
    from hanse.learners.models.emulators import make as making
    from hanse.planning import emulator as planning

# Options of a distillation, which mean nothing without --texts.
Steps = Annotated[int | None, typer.Option(help="Steps of the distillation; 500.", min=1)]
Rate = Annotated[float | None, typer.Option(help="Its learning rate; 1e-4.", min=0)]
Weight = Annotated[float | None, typer.Option(help="Weight of the emulator's own loss; 1.", min=0)]
KdWeight = Annotated[
    float | None, typer.Option(help="Weight of the distance from the model; 30.", min=0)
]
Batch = Annotated[int | None, typer.Option(help="Texts of a step; 8.", min=1)]
Length = Annotated[int | None, typer.Option(help="The most tokens of a text; 512.", min=8)]
Seed = Annotated[int | None, typer.Option(help="Draws the order of the texts; 0.", min=0)]


def emulator(
    model: Annotated[str, typer.Argument(help="The whole model: a folder, a file, a hub's id.")],
    output: Annotated[Path, typer.Option(help="A new folder for the emulator.")],
    bottom: Annotated[int, typer.Option(help="First layers, which are trained.", min=1)] = 2,
    top: Annotated[int, typer.Option(help="Last layers, which are trained.", min=1)] = 2,
    compressor: Annotated[
        str,
        typer.Option(help="layer_drop, quantized or low_rank, or {layer_drop: {drop: 0.2}}."),
    ] = "layer_drop",
    texts: Annotated[
        str | None, typer.Option(help="Distill the middle on these texts: a file, a folder.")
    ] = None,
    steps: Steps = None,
    learning_rate: Rate = None,
    lm_weight: Weight = None,
    kd_weight: KdWeight = None,
    batch_size: Batch = None,
    max_length: Length = None,
    seed: Seed = None,
) -> None:
    """Make a smaller model that silos can tune in place of one that they may not see."""
    if output.exists():
        raise UserError(f"{output} exists already; name a folder that does not.")
    chosen = {
        name: value
        for name, value in {
            **{"steps": steps, "learning_rate": learning_rate, "lm_weight": lm_weight},
            **{"kd_weight": kd_weight, "batch_size": batch_size, "seed": seed},
        }.items()
        if value is not None
    }
    _refuse_unused(texts, chosen, max_length)
    spec: Any = overrides.parse_change(f"compressor={compressor}").value
    rows = None if texts is None else planning.Texts(texts, max_length, chosen)
    made = planning.make(model, output, bottom, top, spec, rows)
    _tell_made(model, made, output)


def _refuse_unused(texts: str | None, chosen: dict[str, Any], max_length: int | None) -> None:
    """Raise UserError for options of a distillation that is not asked for, or learns nothing."""
    names = [*chosen, *(["max_length"] if max_length is not None else [])]
    if texts is None and names:
        listed = ", ".join(f"--{name.replace('_', '-')}" for name in names)
        raise UserError(
            f"{listed} {'belongs' if len(names) == 1 else 'belong'} to the distillation of the "
            "middle; name the texts for it in --texts, or leave this out."
        )
    if chosen.get("learning_rate") == 0 or chosen.get("kd_weight") == chosen.get("lm_weight") == 0:
        raise UserError(
            "a distillation with --learning-rate 0, or with both weights 0, learns nothing; raise "
            "them, or leave --texts out."
        )


def _tell_made(model: str, made: "making.Made", output: Path) -> None:
    """Print the sizes, what the emulator shares with the model, and the settings to use it."""
    record = made.record
    source, numbers = record.source, record.adapter_layers
    _tell("whole", f"{model}: {source.parameters:,} parameters in {source.layers} layers")
    _tell("adapter", f"layers {_listed(numbers)} of the emulator, {made.adapter:,} parameters")
    middle = len(record.layers) - len(numbers)
    share = made.size / made.whole_size
    _tell(
        "middle",
        f"{next(iter(record.compressor))}, {middle} of {source.layers - len(numbers)} layers",
    )
    _tell("emulator", f"{made.emulator:,} parameters, {share:.0%} of the model's bytes")
    if record.distillation is not None:
        first, last = record.distillation.first, record.distillation.last
        changes = [f"{name} {first[name]:.4g} → {last[name]:.4g}" for name in first]
        _tell("distilled", f"{record.distillation.rows:,} examples: {', '.join(changes)}")
    _tell("", disclosure.sentence(record))
    _tell("written", str(output))
    _tell("next", f"model.model_name_or_path={output} models.whole.model_name_or_path={model}")
    _tell("", f"algorithm=fedot adapter.lora.layers_to_transform=[{_listed(numbers)}]")


def _tell(what: str, words: str) -> None:
    """Print one line."""
    console.tell(f"{what:<10} {words}", indent=11)


def _listed(numbers: list[int]) -> str:
    return ", ".join(map(str, numbers))
