"""The use of a simulated device as lines of text."""

from collections.abc import Iterator

from hanse.planning.preview.device_use import DeviceUse
from hanse.reports import formatting

MEANING = {  # what cannot be said without a figure
    "bandwidth_gb_s": "its seconds are those of operations alone",
    "memory_gb": "nobody can say whether its memory holds this",
    "watts": "its energy is not simulated",
    "up_mbps": "its uploads have no limit but that of links",
    "down_mbps": "its downloads have no limit but that of links",
}


def lines(use: DeviceUse) -> Iterator[str]:
    """The clients of the device, their seconds, whether its memory holds it, what is unknown."""
    first, *others = use.clients
    who = f"{first} and {len(others)} more train" if others else f"{first} trains"
    seconds = f"{use.least:,.3g}"
    if f"{use.most:,.3g}" != seconds:
        seconds += f" to {use.most:,.3g}"
    optimizer = 1 - use.forward - use.backward
    yield (
        f"{who} on {use.device}, {seconds} simulated seconds in a round: forward "
        f"{100 * use.forward:.0f} %, backward {100 * use.backward:.0f} %, optimizer "
        f"{100 * optimizer:.0f} %, in {use.precision} at {100 * use.mfu:.0f} % of its peak"
    )
    yield _memory(use)
    if use.joules is not None:
        yield f"about {use.joules:,.3g} J of {use.device} in a round, at its published watts"
    said = [f"{name} ({MEANING[name]})" for name in use.unknown if name in MEANING]
    if said:
        yield f"not known of {use.device}: {'; '.join(said)}; write them under devices"


def _memory(use: DeviceUse) -> str:
    needs = f"about {formatting.bytes_(use.memory)} of memory"
    if use.has is None:
        return needs
    has = formatting.bytes_(use.has)
    if use.memory <= use.has:
        return f"{needs}, of {has}"
    return (
        f"{needs}, more than its {has}: such a device could not train this; lower "
        "train.per_device_train_batch_size or model.max_length, or choose a smaller model"
    )
