"""hanse plan."""

from collections.abc import Mapping
from dataclasses import replace
from math import inf
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from hanse.cli import search_plan
from hanse.cli.options import File, Overrides, Trust, console
from hanse.cli.output_files import refuse_unwritable
from hanse.errors import UserError
from hanse.experiment import loading
from hanse.lazy_imports import lazy_imports

with lazy_imports():
    from hanse.journal import record_files
    from hanse.planning.devices import profile as device_profile
    from hanse.planning.fedpipe import plan as planning
    from hanse.planning.fedpipe import plan_from, plan_page, planned
    from hanse.reports import formatting

if TYPE_CHECKING:
    from hanse.planning.devices.profile import DeviceProfile

Out = Annotated[
    Path | None, typer.Option(help="The new file; by default FILE with .plan before its suffix.")
]
Seconds = Annotated[
    float | None,
    typer.Option(help="The most that a round may take; default: as the slowest silo now.", min=0),
]
Memory = Annotated[
    list[str] | None,
    typer.Option(metavar="[SILO=]GB", help="The memory of a silo, or of all; repeatable."),
]
Profiles = Annotated[
    list[str] | None,
    typer.Option(metavar="SILO=FILE", help="A silo's `hanse doctor --profile` file; repeatable."),
]
Slower = Annotated[
    list[str] | None,
    typer.Option(metavar="SILO=TIMES", help="A silo's steps take so many times as predicted."),
]
Probe = Annotated[
    Path | None,
    typer.Option("--from", metavar="FOLDER", help="A deployed run of the probe; no rows are read."),
]


def plan(
    file: File,
    overrides: Overrides = None,
    out: Out = None,
    round_seconds: Seconds = None,
    memory: Memory = None,
    profiles: Profiles = None,
    slower: Slower = None,
    probe: Probe = None,
    search: search_plan.Search = False,
    adapters: search_plan.Adapters = None,
    algorithms: search_plan.Algorithms = None,
    rates: search_plan.Rates = None,
    trials: search_plan.Trials = None,
    rounds: search_plan.Rounds = None,
    trust: Trust = False,
) -> None:
    """Choose each silo's matrices, ranks, batches and bits; or, by --search, the method at all."""
    bounds = {"--round-seconds": round_seconds, "--memory": memory, "--profiles": profiles}
    space = {"--adapters": adapters, "--algorithms": algorithms, "--rates": rates}
    budget = {"--trials": trials, "--rounds": rounds}
    search_plan.refuse_options(
        {**bounds, "--slower": slower, "--from": probe} if search else {**space, **budget}, search
    )
    out = _copy(file, out)
    anew = bool(overrides) or out.resolve().parent != file.resolve().parent
    experiment = loading.load(file, overrides or (), trust)
    if search:
        wish = search_plan.wishes(adapters, algorithms, rates, trials, rounds)
        search_plan.show_search(file, experiment, wish, out, anew)
        return
    limits = _bounds(round_seconds, memory, profiles, slower, probe)
    if loading.says(file, overrides or (), ("model", "quantization")):
        limits = replace(limits, precision=False)
    made = plan_from.plan(experiment, limits, probe) if probe else planning.plan(experiment, limits)
    plan_page.write(out, file, made, anew)
    _show(made, out)


def _copy(file: Path, out: Path | None) -> Path:
    """The file that is written; raises UserError if it exists, or cannot be written."""
    if file.is_dir():
        raise UserError(f"{file} is a folder, and a plan is made of an experiment; name its file.")
    out = out or file.with_name(f"{file.stem}.plan{file.suffix}")
    if out.exists():
        raise UserError(f"{out} exists already; name another file in --out.")
    refuse_unwritable(out)
    return out


def _bounds(
    seconds: float | None,
    memory: list[str] | None,
    profiles: list[str] | None,
    slower: list[str] | None,
    probe: Path | None,
) -> "planned.Bounds":
    """The user's bounds of a plan."""
    if probe and profiles:
        raise UserError(
            f"--profiles are of silos without figures of their own, and those in {probe} have "
            "some; leave one of --from and --profiles out."
        )
    if seconds is not None and not 0 < seconds < inf:
        raise UserError(
            f"--round-seconds came as {seconds:g}, and a round takes some seconds; write "
            "them, such as 60, or leave the option out."
        )
    return planned.Bounds(seconds, _memory(memory), _profiles(profiles), slower=_slower(slower))


def _show(made: "planned.Plan", out: Path) -> None:
    """Print each silo's plan, and how it was made."""
    console.print("silo         seconds (now)    memory     sent    matrices  what", style="bold")
    for silo in made.silos:
        sizes = [formatting.bytes_(size) for size in (silo.memory, silo.bytes)]
        usual = f"({made.usual[silo.silo.name]:.3g})"
        console.tell(
            f"{silo.silo.name:<12} {silo.seconds:>7.3g} {usual:<8} {sizes[0]:>8} "
            f"{sizes[1]:>9} {len(silo.ranks):>7}   {silo.form.name}",
            indent=13,
        )
    for reason in plan_page.reasons(made):
        console.tell(f"note: {reason}", indent=6)
    console.print(f"plan  {out}", soft_wrap=True)


def _memory(words: list[str] | None) -> dict[str, float]:
    """Bytes by silo, or by "" for all."""
    found: dict[str, float] = {}
    for word in words or []:
        name, equals, size = word.rpartition("=")
        gigabytes = _number(size) if name or not equals else 0.0
        if not 0 < gigabytes < 1e9:
            raise UserError(f"--memory came as {word!r:.80}; write GB, such as 8 or silo-1=4.5.")
        _refuse_second("--memory", name, found)
        found[name] = gigabytes * 1e9
    return found


def _slower(words: list[str] | None) -> dict[str, float]:
    """Seconds of steps ÷ the predicted ones, by silo."""
    found: dict[str, float] = {}
    for word in words or []:
        name, _, times = word.partition("=")
        factor = _number(times) if name else 0.0
        if not 0 < factor <= 1e4:
            raise UserError(f"--slower came as {word!r:.80}; write SILO=TIMES, such as silo-1=2.5.")
        _refuse_second("--slower", name, found)
        found[name] = factor
    return found


def _number(text: str) -> float:
    """A number in a user's words; 0, which none of the options takes, if they are none."""
    try:
        return float(text)
    except ValueError:
        return 0.0


def _refuse_second(option: str, name: str, found: Mapping[str, object]) -> None:
    """Raise UserError for a silo's second value, which would silently replace the first one."""
    if name in found:
        who = f"{name:.80}" if name else "all silos"
        raise UserError(f"{option} came twice for {who}; leave one of them out.")


def _profiles(words: list[str] | None) -> "dict[str, DeviceProfile]":
    """The profiles that the user names, by silo."""
    found: dict[str, DeviceProfile] = {}
    for word in words or []:
        name, equals, path = word.partition("=")
        if not (name and equals and path):
            raise UserError(
                f"--profiles came as {word!r:.80}; write SILO=FILE, with a file of `hanse doctor "
                "--profile FILE`."
            )
        _refuse_second("--profiles", name, found)
        read = record_files.read(Path(path), device_profile.DeviceProfile)
        if read is None:
            raise UserError(f"--profiles names {path}, and there is no such file; mend the path.")
        _refuse_impossible(path, read)
        found[name] = read
    return found


def _refuse_impossible(path: str, profile: "DeviceProfile") -> None:
    """Raise UserError for a profile whose figures no machine has."""
    if not (0 < profile.float32 < inf and 0 < profile.bfloat16 < inf):
        what = f"computes nothing ({profile.float32:g} FLOP/s)"
    elif profile.memory_free <= 0:
        what = f"has no free memory ({profile.memory_free} bytes)"
    else:
        return
    raise UserError(
        f"{path} says that a machine {what}; measure it again by `hanse doctor --profile FILE`."
    )
