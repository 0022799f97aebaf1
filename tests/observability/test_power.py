"""Energy by the counters of a made-up machine."""

from pathlib import Path

import pytest

from hanse.observability import kernel_files, power


def zone(root: Path, number: int, name: str, used: int | None, most: int = 1000_000_000) -> None:
    folder = root / "sys" / "class" / "powercap" / f"intel-rapl:{number}"
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "name").write_text(f"{name}\n")
    (folder / "max_energy_range_uj").write_text(f"{most}\n")
    if used is not None:
        (folder / "energy_uj").write_text(f"{used}\n")


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(kernel_files, "ROOT", tmp_path)
    return tmp_path


def test_joules_of_all_packages_and_of_no_part_of_one(root: Path) -> None:
    zone(root, 0, "package-0", 5_000_000)
    zone(root, 1, "package-1", 999_000_000)
    zone(root, 2, "psys", 1)
    before = power.counters()
    zone(root, 0, "package-0", 7_500_000)
    zone(root, 1, "package-1", 1_000_000)  # it began again
    zone(root, 2, "psys", 900_000)
    assert len(before) == 2
    assert power.joules(before, power.counters()) == 2.5 + 2.0


def test_a_machine_without_counters_or_rights_has_no_joules(root: Path) -> None:
    assert power.joules(power.counters(), power.counters()) is None
    zone(root, 0, "package-0", None)  # only root may read it
    assert power.counters() == ()
    zone(root, 0, "package-0", 5)
    assert power.joules((), power.counters()) is None
