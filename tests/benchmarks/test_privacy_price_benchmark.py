"""The benchmark of the price of privacy: rows are runs, compared with those without noise."""

from pathlib import Path

import privacy_price
from privacy_price import EXPERIMENT, FAMILIES, WAYS, Runs, beside

from hanse.experiment.assembly.method import build_method
from hanse.experiment.loading import load


def test_each_row_is_a_run_of_its_own(tmp_path: Path) -> None:
    runs = Runs(tmp_path)
    folders = {runs.compared(name, seed, 0.01).folder for name in WAYS for seed in (1, 2)}
    assert len(WAYS) == 12 and len(folders) == 24
    for way in WAYS.values():
        experiment = load(EXPERIMENT, way.settings(0.01))
        found = build_method(experiment).pipelines.upload.mechanisms
        assert experiment.num_clients == way.silos
        budgets = [way.training] if isinstance(way.training, float) else []
        assert [part.epsilon for part in found] == budgets  # type: ignore[attr-defined]
        assert experiment.data.pooled == (way.training == privacy_price.POOLED)
    assert {name for part in privacy_price.PARTS.values() for name in part} == {*WAYS}
    assert {way.family for way in WAYS.values()} == FAMILIES.keys()
    for name, family in FAMILIES.items():
        assert [WAYS[judge].family for judge in family.judges] == [name]


def test_a_row_is_compared_with_the_same_silos_without_noise() -> None:
    def row(items: str) -> dict[str, object]:
        return {"runs": [{"items": items}] * 2}

    plain, noisy = "1" * 15 + "0" * 5, "1" * 10 + "0" * 10
    names = [
        f"{silos:,} silos, {budget}" for silos in (100, 1000) for budget in ("no noise", "ε 8")
    ]
    rows = dict(zip(names, map(row, (plain, noisy, noisy, noisy)), strict=True))
    beside(rows)
    assert rows[names[1]]["ahead"][0] == -0.25 and rows[names[3]]["ahead"][0] == 0
    assert "ahead" not in rows[names[0]]
