"""hanse parts."""

from hanse import registry as found
from hanse.cli.options import console


def parts() -> None:
    """List every part that an experiment can name, with its settings."""
    for folder in found.FOLDERS:
        console.print(found.label(folder), style="bold")
        for name in found.names(folder):
            part = found.find(folder, name)
            first = (part.__doc__ or "").strip().splitlines()[0]
            console.print(f"  {name:<16}{first}")
            for setting in found.settings(part):
                default = f" = {setting.default}" if setting.default else ""
                console.print(f"  {'':<16}  {setting.name}: {setting.type}{default}", style="dim")
