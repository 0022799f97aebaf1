"""Simulated devices by name: those of the experiment, and published ones."""

from collections.abc import Mapping
from typing import Any

from hanse.experiment.devices import published
from hanse.experiment.devices.settings import MEASURED, DeviceSettings
from hanse.experiment.links import Links
from hanse.registry import suggestions


def completed(devices: Any) -> Any:
    """The section `devices` with the published figures that a device of a known name leaves out.

    Anything else is returned as it is, for the schema to refuse.
    """
    if not isinstance(devices, Mapping):
        return devices
    return {name: _completed(name, own) for name, own in devices.items()}


def find(name: str, devices: Mapping[str, DeviceSettings]) -> DeviceSettings:
    """The device of this name; raises ValueError for an unknown one.

    devices: those of the experiment, which precede the published ones.
    """
    if name in devices:
        return devices[name]
    if name in published.PUBLISHED:
        return DeviceSettings(**_published(name))
    known = [*devices, *published.PUBLISHED]
    raise ValueError(
        f"device names {name!r:.80}, which is no simulated device{suggestions(name, known)}; known "
        f"are {', '.join(known)}, and any other one with its figures under devices. (The device "
        "that really computes is model.device.)"
    )


def refuse_two_seconds(name: str, links: Links | None) -> None:
    """Raise ValueError if both a device and `links` say how long a step takes."""
    steps = links.seconds_per_step if links else 0.0
    if steps if isinstance(steps, float) else any(steps):
        raise ValueError(
            f"links.seconds_per_step and the device {name} both say how long a client trains; "
            "leave one of them out."
        )


def _completed(name: Any, own: Any) -> Any:
    if isinstance(own, DeviceSettings) or not isinstance(own, Mapping | None):
        return own
    if name not in published.PUBLISHED:
        return own
    written = {key: value for key, value in (own or {}).items() if value is not None}
    figures = [key for key in written if key not in (*MEASURED, "source")]
    settings: dict[str, Any] = {**_published(name), **written}
    if figures and "source" not in written:
        settings["source"] += f"; {', '.join(map(str, figures))}: written in the experiment"
    return settings


def _published(name: str) -> dict[str, Any]:
    """The settings of a published device, with their sources."""
    return {**published.figures(name), "source": published.sources(name)}
