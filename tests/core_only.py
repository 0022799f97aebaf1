"""A process in which no package can be imported but those that hanse always requires.

The command line is then as after an installation without extras, wherever the tests run. On the
standard input are lists of words, as JSON; the output is a list of exit codes and texts.
"""

import contextlib
import io
import json
import sys
import traceback
from collections.abc import Sequence
from importlib import metadata
from importlib.machinery import ModuleSpec, PathFinder
from types import ModuleType

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name


def required() -> set[str]:
    """The distributions that hanse requires without extras, and those that they require."""
    found: set[tuple[str, str]] = set()
    left = [("hanse", "")]
    while left:
        name, extra = left.pop()
        if (name, extra) in found:
            continue
        found.add((name, extra))
        try:
            lines = metadata.requires(name) or []
        except metadata.PackageNotFoundError:
            continue  # required elsewhere, on another system
        for wanted in map(Requirement, lines):
            if wanted.marker is None or wanted.marker.evaluate({"extra": extra}):
                left += [(canonicalize_name(wanted.name), own) for own in ("", *wanted.extras)]
    return {name for name, _ in found}


def optional() -> set[str]:
    """The top-level modules of all other distributions that are installed here."""
    core = required()
    return {
        module
        for module, owners in metadata.packages_distributions().items()
        if not core & {canonicalize_name(owner) for owner in owners}
    }


class CoreOnly(PathFinder):
    """Finds modules as Python does, but for those that are optional."""

    hidden = optional()

    @classmethod
    def find_spec(
        cls, name: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        """None for what is hidden: an import then fails, and whoever only asks is answered."""
        return None if name.partition(".")[0] in cls.hidden else super().find_spec(name, path)


def hide() -> None:
    """Hide what is optional from now on."""
    sys.meta_path[sys.meta_path.index(PathFinder)] = CoreOnly


def called(words: Sequence[str]) -> tuple[int, str]:
    """The exit code of a command, and all that it printed."""
    from hanse.cli import main as cli

    sys.argv = ["hanse", *words]
    said = io.StringIO()
    with contextlib.redirect_stdout(said), contextlib.redirect_stderr(said):
        try:
            cli.main()
        except SystemExit as stop:
            return int(stop.code or 0), said.getvalue()
        except Exception:
            return 1, traceback.format_exc()
    return 0, said.getvalue()


if __name__ == "__main__":
    hide()
    found = [called(words) for words in json.load(sys.stdin)]
    print(json.dumps(found))
