"""Imports that wait until a module is used.

    with lazy_imports():
        import peft
        from hanse.learners.injection import inject

Settings are declared beside the code that needs torch and PEFT, and importing these takes seconds.
With lazy imports a mistake in a setting is reported without them. Only modules can wait; a class or
a function is taken from its module where it is used. (Python 3.15 has `lazy import` for this, PEP
810.)
"""

import builtins
import gc
import logging
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import import_module
from types import ModuleType, SimpleNamespace
from typing import Any

log = logging.getLogger(__name__)

PATIENCE = 3.0  # seconds of one import after which it is logged
_ONE = threading.RLock()  # the import statement of one module at a time is replaced


class LazyModule:
    """Stands for a module, which is imported when something of it is first asked for."""

    __slots__ = ("_name",)

    def __init__(self, name: str) -> None:
        object.__setattr__(self, "_name", name)

    def __getattr__(self, attribute: str) -> Any:
        return getattr(_imported(self._name), attribute)

    def __setattr__(self, attribute: str, value: Any) -> None:
        setattr(_imported(self._name), attribute, value)

    @property
    def __dict__(self) -> dict[str, Any]:  # type: ignore[override]
        return vars(_imported(self._name))


def _imported(name: str) -> ModuleType:
    """The module of a name; a long import, as the first one after an installation, is logged."""
    if module := sys.modules.get(name):
        return module
    notice = threading.Timer(PATIENCE, log.info, ["starting: importing %s", name])
    notice.daemon = True
    notice.start()
    try:
        return imported(name)
    finally:
        notice.cancel()


def imported(name: str) -> ModuleType:
    """Import a module while garbage collection is paused.

    A module's objects stay, and there is nothing to collect. The collector would visit all of them
    again and again, which takes more than a second of the import of torch and PEFT.
    """
    enabled = gc.isenabled()
    gc.disable()
    try:
        return import_module(name)
    finally:
        if enabled:
            gc.enable()


@contextmanager
def lazy_imports() -> Iterator[None]:
    """Within, modules that the calling module imports are imported when they are first used.

    What that module imports meanwhile in other threads, and what others import, is as ever.
    """
    importing = sys._getframe(2).f_globals  # the caller's: 0 is here, 1 is contextlib
    usual = builtins.__import__
    thread = threading.get_ident()

    def lazy(
        name: str,
        globals: Any = None,
        locals: Any = None,
        fromlist: Any = (),
        level: int = 0,
    ) -> Any:
        if globals is not importing or threading.get_ident() != thread:
            return usual(name, globals, locals, fromlist, level)
        if level or ("." in name and not fromlist):
            raise ImportError(f"write `from package import module`, so that {name} can wait")
        if not fromlist:
            return LazyModule(name)
        return SimpleNamespace(**{module: LazyModule(f"{name}.{module}") for module in fromlist})

    with _ONE:
        builtins.__import__ = lazy
        try:
            yield
        finally:
            builtins.__import__ = usual
