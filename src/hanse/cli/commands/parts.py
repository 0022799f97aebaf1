"""hanse parts."""

from hanse import registry
from hanse.cli.options import console
from hanse.experiment.part_kinds import PART_KINDS


def parts() -> None:
    """List every part that an experiment can name, with its settings."""
    for kind in {kind.folder: kind for kind in PART_KINDS}.values():
        console.print(registry.label(kind.folder), style="bold")
        names = kind.names()
        if not names:
            console.print("  none yet; path/to/file.py:Class names one of your own")
        for name in names:
            part = kind.find(name)
            first = (part.__doc__ or "").strip().splitlines()[0]
            console.print(f"  {name:<16}{first}")
            for setting in registry.settings(part):
                default = f" = {setting.default}" if setting.default else ""
                console.print(f"  {'':<16}  {setting.name}: {setting.type}{default}", style="dim")
