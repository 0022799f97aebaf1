"""hanse check."""

from itertools import zip_longest
from pathlib import Path
from typing import Annotated

import typer
from rich.text import Text

from hanse.cli.options import File, Overrides, Trust, console
from hanse.data.formats.row import Reading
from hanse.errors import cleaned
from hanse.experiment import loading
from hanse.experiment.part_kinds import spec_name
from hanse.experiment.schema import Experiment
from hanse.experiment.sections import Spec
from hanse.journal.run_settings import RunSettings
from hanse.lazy_imports import lazy_imports

with lazy_imports():
    from hanse.cli import row_table
    from hanse.deployment import acceptance
    from hanse.deployment.silo import settings
    from hanse.experiment.assembly.dataset import federated_dataset
    from hanse.planning.preview import device_text, estimate


SiloFile = Annotated[
    Path | None, typer.Option(help="A silo's settings: say only whether that silo would refuse.")
]


def check(
    file: File, overrides: Overrides = None, trust: Trust = False, silo: SiloFile = None
) -> None:
    """Show what a run would do: the data, an example, the clients, bytes, time and memory."""
    experiment = loading.load(file, overrides or (), trust)
    if silo is not None:
        _show_acceptance(experiment, settings.load(silo))
    else:
        _show_preview(experiment)


def _show_acceptance(experiment: Experiment, silo: "settings.SiloSettings") -> None:
    """Print that a silo would accept the experiment; raises UserError if it would not."""
    remark = acceptance.refuse_unaccepted(experiment, silo)
    console.tell(
        f"{silo.name} would accept these settings; it checks its base model and its rows when a "
        "server sends them"
    )
    if remark:
        console.tell(f"note: {remark}", indent=6)


def _show_preview(experiment: Experiment) -> None:
    """Print what a run would do."""
    preview = estimate.preview(experiment)
    _show_data(preview)
    console.print("\nThe training rows of each client:", style="bold")
    console.print(row_table.picture(preview.table, console.width))
    _show_remarks(preview, experiment)
    share = 100 * preview.trained / preview.total
    console.print()
    console.tell(f"trained    {preview.trained:,} of {preview.total:,} parameters ({share:.3f} %)")
    for label, line in zip_longest(("precision",), (preview.precision, *preview.measured)):
        console.tell(f"{label or '':10} {line}", indent=11)
    _show_kinds(preview)
    _show_models(preview)
    if preview.kinds or preview.models:
        console.tell(f"objective  {_part(experiment.objective)}", indent=11)
    _show_transforms(experiment, preview)
    for place, phrase in enumerate(preview.terms):
        console.tell(f"{'' if place else 'aggregator':10} {phrase}", indent=11)
    _show_traffic(preview)
    _show_links(preview)
    _show_devices(preview)
    memory = f"{preview.memory / 1e9:.1f} GB of memory ({preview.available / 1e9:.1f} GB available)"
    public = " without training on public rows" if experiment.data.public else ""
    console.tell(f"the run    about {preview.seconds:,.0f} s{public}, {memory}", indent=11)


def _show_kinds(preview: "estimate.Preview") -> None:
    """Print what each client trains, if they train different things; `trained` is the server's."""
    for kind, (first, *others) in preview.kinds.items():
        clients = f"{first} and {len(others)} more train" if others else f"{first} trains"
        what = f"{kind.adapter}, {kind.tensors:,} tensors with {kind.parameters:,} parameters"
        console.tell(f"           {clients} {what}, in {kind.model}", indent=11)


def _part(spec: Spec) -> str:
    """A part with its settings as they were written: distill (weight: 0.3)."""
    name = spec_name(spec)
    settings = spec.get(name) if isinstance(spec, dict) else None
    words = ", ".join(f"{key}: {value}" for key, value in (settings or {}).items())
    return f"{name} ({words})" if words else name


def _show_models(preview: "estimate.Preview") -> None:
    """Print the models beside the trained one, and who uses them."""
    for model, (first, *others) in preview.models.items():
        users = f"{first} and {len(others)} more" if others else first
        share = "frozen" if not model.trained else f"{model.trained:,} trained"
        console.tell(
            f"{model.name:10} {model.path} at {users}: {model.total:,} parameters, {share}, in "
            f"{model.precision}",
            indent=11,
        )


def _show_traffic(preview: "estimate.Preview") -> None:
    """Print the bytes of a client in each phase of a round, and those of the whole round."""
    for kind, clients in preview.traffic.items():
        sizes = list(clients.values())
        down = _amount([(size.down, size.most_down) for size in sizes])
        up = _amount([(size.up, size.most_up) for size in sizes])
        phase = f"{kind}: " if len(preview.traffic) > 1 else ""
        amounts = f"{phase}{down} bytes down and {up} bytes up in each round"
        console.tell(f"a client   {amounts}", indent=11)
    if preview.once:
        amount = f"{preview.once:,} bytes more down the first time"
        console.tell(f"           {amount}: what does not change in training", indent=11)
    if preview.delivered is not None:
        amount = f"once: {preview.delivered:,} bytes of the model down to each silo that lacks it"
        console.tell(f"           {amount} (deployment.deliver_model)", indent=11)
    share = preview.clients_a_round / len(preview.traffic["train"])
    sizes = [size for clients in preview.traffic.values() for size in clients.values()]
    usual = round(share * sum(size.down + size.up for size in sizes))
    most = round(share * sum(size.most_down + size.most_up for size in sizes))
    of = f"{preview.clients_a_round} of {preview.clients} clients"
    console.tell(f"a round    {_amount([(usual, most)])} bytes with {of}", indent=11)


def _show_links(preview: "estimate.Preview") -> None:
    """Print the simulated seconds of a round, and the clients that would be late."""
    links = preview.links
    if links is None:
        return
    takes = f"a round takes about {links.seconds:,.3g} simulated seconds before its scoring"
    console.tell(f"links      {takes}; {links.slowest} is the slowest client", indent=11)
    if links.late:
        first, *others = links.late
        late = f"{first} and {len(others)} more miss" if others else f"{first} misses"
        few = links.usable < links.required
        left = f", and {links.usable} of {links.required} updates are too few" if few else ""
        console.tell(f"           {late} the deadline of {links.deadline:g} s{left}", indent=11)


def _show_devices(preview: "estimate.Preview") -> None:
    """Print the simulated devices, with their seconds of a round and their memory."""
    for use in preview.devices:
        for place, line in enumerate(device_text.lines(use)):
            console.tell(f"{'' if place else 'device':10} {line}", indent=11)
    if preview.devices and (idle := preview.clients - sum(len(u.clients) for u in preview.devices)):
        rest = "1 client has" if idle == 1 else f"{idle} clients have"
        steps = "no device, and steps of links.seconds_per_step"
        console.tell(f"           {rest} {steps}", indent=11)


def _show_transforms(experiment: Experiment, preview: "estimate.Preview") -> None:
    """Print codecs and the mechanism of privacy of what travels, and what the server keeps."""
    values = RunSettings(experiment.resolved(), "")
    if values.compression:
        console.tell(f"encoded    {values.compression}", indent=11)
    if values.mechanism:
        console.tell(f"privacy    {values.mechanism}", indent=11)
    if preview.account is not None:
        console.tell(f"promise    {preview.account.sentence()}", indent=11)
        noise, clip = preview.account.noise_multiplier, preview.account.clip
        console.tell(f"           noise multiplier {noise:.4g}, clip norm {clip:.4g}", indent=11)
        for assumption in preview.account.assumptions:
            console.tell(f"           {assumption}", indent=11)
    if experiment.compression.collect:
        size = 4 * preview.trained * preview.clients_a_round * experiment.rounds
        console.tell(
            f"collected  the update of each client in each round is written to the run folder: "
            f"about {size:,} bytes",
            indent=11,
        )


def _show_data(preview: "estimate.Preview") -> None:
    """Print the format of each file, one training example, and the lengths of all."""
    paths: dict[str, list[str]] = {}
    for path, reading in preview.readings:
        paths.setdefault(_format(reading), []).append(path)
    for format_, (first, *others) in paths.items():
        more = f" and {len(others)} more are" if others else " is"
        console.tell(cleaned(f"{first}{more} read as {format_}"))
    _show_example(preview.example)
    console.print()
    for lengths, (first, *others) in preview.lengths.items():
        whose = f"{first} and {len(others)} more: " if others else f"{first}: "
        console.tell(
            f"{whose if len(preview.lengths) > 1 else ''}"
            f"{lengths.mean:,.0f} tokens on average, 95 % have at most {lengths.most:,.0f}; "
            f"max_length {lengths.limit:,} cuts {100 * lengths.cut:.1f} % of the examples"
        )


def _show_example(pieces: list[tuple[str, bool]]) -> None:
    """Print one training example; what is learned is underlined, or marked by brackets.

    A terminal underlines without colors, too; a file, a pipe or a plain terminal cannot.
    """
    plain = console.color_system is None
    opening, closing = ("[[", "]]") if console.options.ascii_only else ("⟦", "⟧")
    form = f"stands between {opening} and {closing}" if plain else "is underlined"
    console.print(f"\nOne training example; what is learned {form}:", style="bold")
    text = Text()
    for piece, learned in pieces:
        if learned and plain:
            text.append(f"{opening}{piece}{closing}")
        else:
            text.append(piece, style="underline green" if learned else "")
    console.print(text, soft_wrap=not console.wraps)


def _show_remarks(preview: "estimate.Preview", experiment: Experiment) -> None:
    """Print the remarks on rows that are left out or cut, and on checks that are not possible."""
    remarks = (*preview.table.remarks, *federated_dataset.unseen(experiment))
    for remark in remarks:
        console.tell(f"note: {remark}", indent=6)


def _format(reading: Reading) -> str:
    """A format, and the column of each of its parts."""
    parts = [
        part if part == theirs else f"{part} from {theirs!r}"
        for part, theirs in reading.columns.items()
    ]
    return f"{reading.format}: {', '.join(parts)}"


def _amount(sizes: list[tuple[int, int]]) -> str:
    """One number of bytes, or the range of several; with the most if they vary in length.

    sizes: pairs of what was measured, and the most that it may be.
    """
    measured, most = _between([size for size, _ in sizes]), max(most for _, most in sizes)
    varies = any(size < most for size, most in sizes)
    return f"about {measured} (at most {most:,})" if varies else measured


def _between(sizes: list[int]) -> str:
    """One number, or the range of several numbers."""
    low, high = min(sizes), max(sizes)
    return f"{low:,}" if low == high else f"{low:,} to {high:,}"
