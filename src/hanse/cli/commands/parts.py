"""hanse parts."""

from hanse import registry
from hanse.cli.options import console
from hanse.experiment.part_kinds import PART_KINDS
from hanse.lazy_imports import lazy_imports

with lazy_imports():
    from hanse.learners.models.emulators import compressor


def parts() -> None:
    """List every part that an experiment or `hanse emulator` can name, with its settings."""
    for folder in dict.fromkeys([*(kind.folder for kind in PART_KINDS), compressor.FOLDER]):
        console.print(registry.label(folder), style="bold")
        names = registry.names(folder)
        if not names:
            console.print("  none yet; path/to/file.py:Class names one of your own")
        for name in names:
            part = registry.find(folder, name)
            first = (part.__doc__ or "").strip().splitlines()[0]
            console.print(f"  {name:<16}{first}")
            for setting in registry.settings(part):
                default = f" = {setting.default}" if setting.default else ""
                console.print(f"  {'':<16}  {setting.name}: {setting.type}{default}", style="dim")
