"""What this machine can do, and what is missing: `hanse doctor`."""

import importlib.util
import os
import platform
import re
import shutil
import threading
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path

import torch
from huggingface_hub import constants
from packaging.requirements import Requirement

import hanse
from hanse import atomic_files
from hanse.data.sources.corpora import CORPORA
from hanse.errors import UserError
from hanse.learners import flops
from hanse.learners.models import model_files, precision
from hanse.observability.memory import available_memory, total_memory
from hanse.reports import formatting

PATIENCE = 5.0  # seconds for the hub to say anything
ROOM = 2e9  # bytes of disk that the default model and a few runs take


@dataclass(frozen=True)
class Finding:
    """One thing that was looked at.

    state: "ok"; "missing", if hanse does without; "broken", if it does not. advice: what to do.
    """

    what: str
    said: str
    state: str = "ok"
    advice: str = ""


def findings(hub: bool = False) -> Iterator[Finding]:
    """What there is, one after the other as it is found out; takes a few seconds.

    hub: whether the hub is asked for an answer; without it, nobody outside is.
    """
    yield Finding("python", f"{platform.python_version()} on {platform.platform()}")
    yield from _versions()
    yield _cores()
    yield _memory()
    yield _cache()
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    yield _gpu(device)
    yield from _speed(device)
    yield from _models()
    yield from _data()
    yield from _extras()
    yield _hub() if hub else Finding("hub", "not asked; `hanse doctor --hub` asks")


def recommendation(found: list[Finding]) -> str:
    """What to do first, in one sentence."""
    broken = [finding for finding in found if finding.state == "broken"]
    if broken:
        return f"mend {broken[0].what} first: {broken[0].advice or broken[0].said}"
    slow = next((f for f in found if f.what == "cores" and f.advice), None)
    if slow:
        return f"ready, but {slow.advice}"
    default = next(f for f in found if f.what == f"model {model_files.DEFAULT}")
    if default.state != "ok":
        return f"install the model that hanse uses by default: {default.advice}"
    return "ready; leave model.device and model.bf16 at auto, which chooses what is fastest here"


def _versions() -> Iterator[Finding]:
    """What hanse requires, beside what it was tested with."""
    tested, other = _tested(), []
    for name in metadata.requires("hanse") or []:
        wanted = Requirement(name)
        if wanted.marker is not None:
            continue  # of an extra
        there = _installed(wanted)
        if there is None:
            advice = f'pip install "{wanted.name}{wanted.specifier}"'
            yield Finding(wanted.name, f"is not {wanted.specifier or 'there'}", "broken", advice)
        elif there.partition("+")[0] != tested.get(wanted.name, there).partition("+")[0]:
            other.append(f"{wanted.name} {there} (tested {tested[wanted.name]})")
    core = ", ".join(
        f"{name} {metadata.version(name)}" for name in ("torch", "transformers", "peft")
    )
    said = f"; not as tested: {', '.join(other)}" if other else ", all as tested" if tested else ""
    yield Finding("versions", core + said)


def _installed(wanted: Requirement) -> str | None:
    """The version that is installed, if it will do."""
    try:
        there = metadata.version(wanted.name)
    except metadata.PackageNotFoundError:
        return None
    return there if wanted.specifier.contains(there, prereleases=True) else None


def _tested() -> dict[str, str]:
    """The versions that hanse was tested with: in the package, or beside it in a checkout."""
    home = Path(str(hanse.__file__)).parent
    for file in (home / "constraints.txt", home.parent.parent / "constraints.txt"):
        if file.is_file():
            return dict(re.findall(r"^([\w.-]+)==(\S+)", file.read_text(), re.MULTILINE))
    return {}


def _cores() -> Finding:
    """How many cores there are, and how many threads torch takes."""
    has_affinity = hasattr(os, "sched_getaffinity")  # not on every system
    cores = len(os.sched_getaffinity(0)) if has_affinity else os.cpu_count() or 1
    threads, asked = torch.get_num_threads(), os.environ.get("OMP_NUM_THREADS")
    said = f"{cores}, of which torch uses {threads}"
    said += f" (OMP_NUM_THREADS is {asked})" if asked else ""
    idle = asked is not None and threads < cores
    advice = f"set OMP_NUM_THREADS={cores}, or unset it, to use every core" if idle else ""
    return Finding("cores", f"{said}; {torch.backends.cpu.get_cpu_capability()}", advice=advice)


def _memory() -> Finding:
    """Memory that hanse may use, and how much of it is free."""
    total, free = map(formatting.bytes_, (total_memory(), available_memory()))
    return Finding("memory", f"{total}, of which {free} are free")


def _cache() -> Finding:
    """Whether converted models can be kept."""
    home, probe = model_files.cache_folder(), model_files.cache_folder() / ".probe"
    try:
        atomic_files.write(probe, b"")
        probe.unlink()
    except (UserError, OSError):
        advice = "make it writable, or set HANSE_CACHE to a folder that is"
        return Finding("cache", f"{home} cannot be written", "broken", advice)
    free = float(shutil.disk_usage(home).free)
    said = f"{home} can be written, {formatting.bytes_(free)} are free"
    if free < ROOM:
        return Finding(
            "cache", said, "missing", f"free {formatting.bytes_(ROOM)}, or set HANSE_CACHE"
        )
    return Finding("cache", said)


def _gpu(device: torch.device) -> Finding:
    if device.type == "cpu":
        return Finding("gpu", "none that torch sees; everything runs on the processor")
    found = torch.cuda.get_device_properties(device)
    return Finding("gpu", f"{found.name}, {formatting.bytes_(found.total_memory)}")


def _speed(device: torch.device) -> Iterator[Finding]:
    """Matrix products in both precisions, and which of them a model trains faster in."""
    for dtype, name in ((torch.float32, "float32"), (torch.bfloat16, "bfloat16")):
        said = (
            f"{formatting.count(flops.peak(device, dtype), 'FLOP/s')} in matrix products, measured"
        )
        if dtype == torch.bfloat16:
            said += f"; {'' if precision.has_bf16(device) else 'not '}in hardware"
        yield Finding(name, said)
    chosen = precision.measured(False, precision.Shape(), device)
    said = f"auto takes {'bfloat16' if chosen.bf16 else 'float32'} here for {model_files.DEFAULT}"
    said += ", and plain products for the attention of short rows" if chosen.plain_attention else ""
    yield Finding("bf16", f"{said}, measured")


def _models() -> Iterator[Finding]:
    for name, (module, _, advice) in model_files.PACKAGED.items():
        there = importlib.util.find_spec(module) is not None
        yield _named(f"model {name}", advice if not there else "")


def _data() -> Iterator[Finding]:
    for name, records in sorted(CORPORA.items()):
        try:
            next(iter(records()))
            advice = ""
        except UserError as error:
            advice = str(error).rpartition("run ")[2]
        yield _named(f"data {name}", advice)


def _extras() -> Iterator[Finding]:
    """What can be added, and how."""
    lacking: dict[str, list[str]] = {}
    for line in metadata.requires("hanse") or []:
        wanted = Requirement(line)
        found = re.search(r"extra == ['\"]([\w-]+)['\"]", str(wanted.marker or ""))
        if found and found[1] != "dev":
            missing = lacking.setdefault(found[1], [])
            missing += [f'"{wanted.name}{wanted.specifier}"'] if _installed(wanted) is None else []
    for extra, missing in lacking.items():
        yield _named(f"extra {extra}", f"pip install {' '.join(missing)}" if missing else "")


def _named(what: str, advice: str) -> Finding:
    """Something that can be installed; advice: how, if it is not."""
    return (
        Finding(what, "not installed", "missing", advice) if advice else Finding(what, "installed")
    )


def _hub() -> Finding:
    """Whether the hub answers; a name server that is silent must not keep anybody waiting."""
    if constants.HF_HUB_OFFLINE:
        return Finding("hub", "not asked, for HF_HUB_OFFLINE is set")
    answers: list[bool] = []
    asking = threading.Thread(target=_ask, args=(answers.append,), daemon=True)
    asking.start()
    asking.join(PATIENCE)
    if answers:
        return Finding("hub", f"{constants.ENDPOINT} answers")
    advice = "name local models and data, or installed ones by their short names"
    return Finding("hub", f"{constants.ENDPOINT} cannot be reached", "missing", advice)


def _ask(tell: Callable[[bool], None]) -> None:
    request = urllib.request.Request(constants.ENDPOINT, method="HEAD")  # noqa: S310 (http or https)
    try:
        with urllib.request.urlopen(request, timeout=PATIENCE):  # noqa: S310
            tell(True)
    except urllib.error.HTTPError:  # whatever it says, it is there
        tell(True)
    except (OSError, ValueError):
        return
