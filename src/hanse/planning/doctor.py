"""Checks of this machine: its hardware, and the packages that are missing: `hanse doctor`."""

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
from hanse.learners.kernels import frozen
from hanse.learners.models import model_files, precision
from hanse.learners.models.sample_layer import Shape
from hanse.observability import processor
from hanse.observability.memory import available_memory, total_memory
from hanse.reports import formatting

PATIENCE = 5.0  # seconds that the hub has to answer
NEEDED_DISK = 2e9  # bytes for the default model and a few runs


@dataclass(frozen=True)
class Finding:
    """The result of one check.

    state: "ok"; "missing", if hanse works without it; "broken", if it does not.
    advice: the user's next step; empty if there is nothing to do.
    """

    what: str
    result: str
    state: str = "ok"
    advice: str = ""


def findings(hub: bool = False) -> Iterator[Finding]:
    """The results of all checks, one by one; they take a few seconds.

    hub: true to contact the hub; otherwise nothing is sent to other machines.
    """
    before = processor.core_use()
    yield Finding("python", f"{platform.python_version()} on {platform.platform()}")
    yield from _versions()
    yield _memory()
    yield _cache()
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    yield _gpu(device)
    yield from _speed(device)
    yield _cores(processor.other_work(before))
    yield from _models()
    yield from _data()
    yield from _extras()
    yield _hub() if hub else Finding("hub", "not contacted; `hanse doctor --hub` does that")


def recommendation(findings: list[Finding]) -> str:
    """The user's first step, in one sentence."""
    broken = [finding for finding in findings if finding.state == "broken"]
    if broken:
        return f"mend {broken[0].what} first: {broken[0].advice or broken[0].result}"
    slow = next((f for f in findings if f.what == "cores" and f.advice), None)
    if slow:
        return f"ready, but {slow.advice}"
    default = next(f for f in findings if f.what == f"model {model_files.DEFAULT}")
    if default.state != "ok":
        return f"install the model that hanse uses by default: {default.advice}"
    return "ready; leave model.device and model.bf16 at auto, which chooses what is fastest here"


def _versions() -> Iterator[Finding]:
    """The required packages and their versions, compared with the tested ones."""
    tested, untested = _tested(), []
    for name in metadata.requires("hanse") or []:
        requirement = Requirement(name)
        if requirement.marker is not None:
            continue  # of an extra
        package, version = requirement.name, _installed(requirement)
        if version is None:
            advice = f'pip install "{package}{requirement.specifier}"'
            result = f"is not {requirement.specifier or 'installed'}"
            yield Finding(package, result, "broken", advice)
        elif version.partition("+")[0] != tested.get(package, version).partition("+")[0]:
            untested.append(f"{package} {version} (tested {tested[package]})")
    core = ", ".join(
        f"{name} {metadata.version(name)}" for name in ("torch", "transformers", "peft")
    )
    remark = ", all as tested" if tested else ""
    if untested:
        remark = f"; other versions than tested: {', '.join(untested)}"
    yield Finding("versions", core + remark)


def _installed(requirement: Requirement) -> str | None:
    """The installed version, if it meets the requirement."""
    try:
        version = metadata.version(requirement.name)
    except metadata.PackageNotFoundError:
        return None
    return version if requirement.specifier.contains(version, prereleases=True) else None


def _tested() -> dict[str, str]:
    """The versions that hanse was tested with, from constraints.txt in the package or checkout."""
    home = Path(str(hanse.__file__)).parent
    for file in (home / "constraints.txt", home.parent.parent / "constraints.txt"):
        if file.is_file():
            return dict(re.findall(r"^([\w.-]+)==(\S+)", file.read_text(), re.MULTILINE))
    return {}


def _cores(others: float | None) -> Finding:
    """The cores of this machine, the threads that torch uses, and whether they get in the way.

    others: the cores that other programs keep busy; None if not known.
    """
    cores, threads = processor.allowed_cores(), torch.get_num_threads()
    setting = os.environ.get("OMP_NUM_THREADS")
    result = f"{cores}; torch uses {threads}"
    result += f" (OMP_NUM_THREADS is {setting})" if setting else ""
    result += f"; {others:.1f} busy with other programs" if others is not None else ""
    advice, fitting = processor.crowding(threads, others), processor.fitting_threads(others)
    if setting is not None and threads < fitting:
        advice = f"set OMP_NUM_THREADS={fitting}, or unset it, to use every core"
    return Finding("cores", f"{result}; {torch.backends.cpu.get_cpu_capability()}", advice=advice)


def _memory() -> Finding:
    """Memory that hanse may use, and how much of it is free."""
    total, free = map(formatting.bytes_, (total_memory(), available_memory()))
    return Finding("memory", f"{total}; {free} are free")


def _cache() -> Finding:
    """The cache folder: it must be writable, and have some space."""
    home, probe = model_files.cache_folder(), model_files.cache_folder() / ".probe"
    try:
        atomic_files.write(probe, b"")
        probe.unlink()
    except (UserError, OSError):
        advice = "make it writable, or set HANSE_CACHE to a folder that is"
        return Finding("cache", f"{home} cannot be written", "broken", advice)
    free = float(shutil.disk_usage(home).free)
    result = f"{home} can be written; {formatting.bytes_(free)} are free"
    if free < NEEDED_DISK:
        return Finding(
            "cache", result, "missing", f"free {formatting.bytes_(NEEDED_DISK)}, or set HANSE_CACHE"
        )
    return Finding("cache", result)


def _gpu(device: torch.device) -> Finding:
    if device.type == "cpu":
        return Finding("gpu", "torch finds none; everything runs on the processor")
    gpu = torch.cuda.get_device_properties(device)
    return Finding("gpu", f"{gpu.name}, {formatting.bytes_(gpu.total_memory)}")


def _speed(device: torch.device) -> Iterator[Finding]:
    """The speed of matrix products in both precisions, and the choice of auto."""
    for dtype, name in ((torch.float32, "float32"), (torch.bfloat16, "bfloat16")):
        speed = formatting.count(flops.peak(device, dtype), "FLOP/s")
        result = f"{speed} in matrix products, measured"
        if dtype == torch.bfloat16:
            result += f"; {'' if precision.has_bf16(device) else 'not '}in hardware"
        yield Finding(name, result)
    kernels, threads = frozen.kernels(device), torch.get_num_threads()
    fastest = precision.measured(Shape(), device, threads, kernels)
    yield Finding("auto", f"{model_files.DEFAULT} computes here in {fastest.auto}")
    for comparison in fastest.measurement.comparisons:
        yield Finding("compared", str(comparison))


def _models() -> Iterator[Finding]:
    for name, (module, _, advice) in model_files.PACKAGED.items():
        installed = importlib.util.find_spec(module) is not None
        yield _installable(f"model {name}", "" if installed else advice)


def _data() -> Iterator[Finding]:
    for name, records in sorted(CORPORA.items()):
        try:
            next(iter(records()))
            advice = ""
        except UserError as error:
            advice = str(error).rpartition("run ")[2]
        yield _installable(f"data {name}", advice)


def _extras() -> Iterator[Finding]:
    """The extras of hanse, and how to install those that are missing."""
    lacking: dict[str, list[str]] = {}
    for line in metadata.requires("hanse") or []:
        requirement = Requirement(line)
        extra_name = re.search(r"extra == ['\"]([\w-]+)['\"]", str(requirement.marker or ""))
        if extra_name and extra_name[1] != "dev":
            missing = lacking.setdefault(extra_name[1], [])
            if _installed(requirement) is None:
                missing.append(f'"{requirement.name}{requirement.specifier}"')
    for extra, missing in lacking.items():
        yield _installable(f"extra {extra}", f"pip install {' '.join(missing)}" if missing else "")


def _installable(what: str, advice: str) -> Finding:
    """The finding for something that can be installed; advice: how, if it is missing."""
    return (
        Finding(what, "not installed", "missing", advice) if advice else Finding(what, "installed")
    )


def _hub() -> Finding:
    """The hub's answer, asked in a thread: a silent name server must not hold up the command."""
    if constants.HF_HUB_OFFLINE:
        return Finding("hub", "not contacted, since HF_HUB_OFFLINE is set")
    answers: list[bool] = []
    thread = threading.Thread(target=_ask, args=(answers.append,), daemon=True)
    thread.start()
    thread.join(PATIENCE)
    if answers:
        return Finding("hub", f"{constants.ENDPOINT} answers")
    advice = "name local models and data, or installed ones by their short names"
    return Finding("hub", f"{constants.ENDPOINT} cannot be reached", "missing", advice)


def _ask(tell: Callable[[bool], None]) -> None:
    request = urllib.request.Request(constants.ENDPOINT, method="HEAD")  # noqa: S310 (http or https)
    try:
        with urllib.request.urlopen(request, timeout=PATIENCE):  # noqa: S310
            tell(True)
    except urllib.error.HTTPError:  # any answer shows that it can be reached
        tell(True)
    except (OSError, ValueError):
        return
