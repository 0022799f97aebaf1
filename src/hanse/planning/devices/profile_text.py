"""A machine's profile as lines of text."""

from collections.abc import Iterator

from hanse.planning.devices.profile import DeviceProfile
from hanse.reports import formatting


def lines(profile: DeviceProfile) -> Iterator[str]:
    """The machine's means, its speed, and what was not measured."""
    yield (
        f"processor  {profile.processor}, {profile.cores} cores, torch uses {profile.threads} "
        f"threads, {profile.instructions}"
    )
    total, free = map(formatting.bytes_, (profile.memory, profile.memory_free))
    yield f"memory     {total}; {free} are free"
    if profile.gpu is None:
        yield "gpu        none; the figures are of the processor"
    else:
        size = formatting.bytes_(profile.gpu_memory or 0)
        yield f"gpu        {profile.gpu}, {size}; the figures are of the GPU"
    for name in ("float32", "bfloat16"):
        speed = formatting.count(getattr(profile, name), "FLOP/s")
        yield f"{name:<10} {speed} in matrix products, measured"
    yield f"bandwidth  {formatting.bytes_(profile.bandwidth)}/s read and written, measured"
    yield f"energy     {_energy(profile.power)}"
    if profile.busy is not None:
        yield f"busy       {profile.busy:.1f} cores with other programs, while this was measured"


def _energy(source: str | None) -> str:
    if source is None:
        return "not measured: the machine has no counter that this user may read"
    return f"can be measured ({source})"
