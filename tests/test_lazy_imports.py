"""A lazy import is an import that happens when the module is first used, and only there."""

import gc
import sys
import threading
from pathlib import Path
from types import ModuleType

import pytest

from hanse.lazy_imports import imported

PACKAGE = {
    "slow/__init__.py": "",
    "slow/inner.py": "WIDTH = 3\n",
    "eager.py": "import slow.inner\n",
}
USER = """
from hanse.lazy_imports import lazy_imports

with lazy_imports():
    import eager

    from slow import inner as renamed


def width() -> int:
    return renamed.WIDTH
"""


@pytest.fixture
def user(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """A module with two lazy imports, freshly imported."""
    for name, text in {**PACKAGE, "user.py": USER}.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(text)
    for name in ("slow", "slow.inner", "eager", "user"):
        monkeypatch.delitem(sys.modules, name, raising=False)
    monkeypatch.syspath_prepend(str(tmp_path))
    import user

    return user


def test_nothing_is_imported_before_it_is_used(user: ModuleType) -> None:
    assert "slow" not in sys.modules and "eager" not in sys.modules
    assert user.width() == 3
    assert "slow.inner" in sys.modules and "eager" not in sys.modules
    assert user.eager.slow.inner.WIDTH == 3 and "eager" in sys.modules


def test_a_value_that_is_set_is_set_in_the_module(
    user: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(user.renamed, "WIDTH", 4)
    import slow.inner

    assert user.width() == slow.inner.WIDTH == 4


def test_what_is_missing_is_said_where_it_is_used(user: ModuleType) -> None:
    with pytest.raises(AttributeError, match=r"slow\.inner.*HEIGHT"):
        user.renamed.HEIGHT  # noqa: B018


def test_imports_of_others_and_those_behind_the_block_are_as_ever(user: ModuleType) -> None:
    from hanse.lazy_imports import lazy_imports

    seen: list[bool] = []

    def elsewhere() -> None:
        import colorsys

        seen.append(isinstance(colorsys, ModuleType))

    with lazy_imports():
        thread = threading.Thread(target=elsewhere)
        thread.start()
        thread.join()
        import eager
    assert seen == [True] and not isinstance(eager, ModuleType)
    import eager as now

    assert isinstance(now, ModuleType)


def test_a_module_deep_inside_is_imported_from_its_package(user: ModuleType) -> None:
    from hanse.lazy_imports import lazy_imports

    with (
        pytest.raises(ImportError, match=r"from package import module.*slow\.inner"),
        lazy_imports(),
    ):
        import slow.inner
    import slow

    assert isinstance(slow, ModuleType)


@pytest.mark.parametrize("enabled", [True, False])
def test_garbage_collection_pauses_during_an_import(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, enabled: bool
) -> None:
    (tmp_path / "cycles.py").write_text("import gc\n\nENABLED = gc.isenabled()\n")
    (tmp_path / "broken.py").write_text("raise ImportError\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.delitem(sys.modules, "cycles", raising=False)
    if not enabled:
        gc.disable()
    try:
        assert not imported("cycles").ENABLED
        assert gc.isenabled() == enabled
        with pytest.raises(ImportError):
            imported("broken")
        assert gc.isenabled() == enabled
    finally:
        gc.enable()
