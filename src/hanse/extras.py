"""Packages that only some runs need: what is said where one of them is not installed."""

from collections.abc import Sequence
from importlib.util import find_spec

from hanse.errors import UserError


def refuse_missing(what: str, extra: str, modules: Sequence[str], otherwise: str) -> None:
    """Raise UserError if a module cannot be imported that an extra of hanse installs.

    what: that needs it. extra: as in pyproject.toml. otherwise: what else can be done.
    """
    for module in modules:
        if find_spec(module) is None:
            raise UserError(
                f"{what} needs the package {module}, which is not installed; run pip install "
                f'"hanse[{extra}]", or {otherwise}.'
            )
