"""Tables show what results hold: the base, both intervals, and what is no result."""

from pathlib import Path
from typing import Any

import pytest
import quality_tables
import tables

from samples import ROOT


@pytest.mark.parametrize("page", [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))])
def test_pages_have_the_tables_of_the_results(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    assert tables.written(text) == text, "run `python benchmarks/tables.py`"


def _row(accuracy: float, **more: Any) -> dict[str, Any]:
    spans = {"ahead": [0.01, 0.0, 0.02], "ahead_by_seed": [0.01, -0.2, 0.22], "own_ahead": None}
    own = {"own_accuracy": 0.7, "own_items": 9, "up_bytes": 1e6, "down_bytes": 2e6}
    return {"accuracy": accuracy, "test_items": 4, "seeds": [{}], **spans, **own, **more}


def _comparison() -> list[str]:
    ways = {
        "base": _row(0.5, up_bytes=None, own_ahead=[0.1, 0.0, 0.2]),
        "fedavg": _row(0.6),
        "flora": {"no_result": "diverged on one of the deals"},
        "ditto": _row(0.625, family="personal"),
    }
    family = {"rate": 0.001, "tried": {"0.0003": 0.5, "0.001": 0.7, "0.003": 0.6}}
    protocol = {"seeds": [1, 2, 3], "deals": [101, 102, 103]}
    deals = {"alike": ways, "unlike": ways}
    return quality_tables.comparison(
        {"deals": deals, "families": {"AdamW": family}, "protocol": protocol}
    )


def test_base_both_intervals_and_no_result_are_shown() -> None:
    base, fedavg, flora, ditto = _comparison()[2:6]
    assert base.startswith("| `base` | 50.0 % | +1.0 (+0.0 to +2.0) | +1.0 (-20.0 to +22.0) |")
    assert "1.00, 2.00 MB" in fedavg
    assert "no result: diverged" in flora
    assert "62.5" not in ditto, "the server has no personal model, and so no score of one"
    assert "70.0 %" in ditto
    assert "AdamW 0.001 (tried 0.0003 to 0.003)" in _comparison()[-1]


def test_every_line_has_as_many_cells_as_the_head() -> None:
    lines = [line for line in _comparison() if line.startswith("|")]
    assert len({line.count("|") for line in lines}) == 1


def test_adapters_show_intervals_over_seeds_beside_those_over_reviews() -> None:
    kinds: dict[str, Any] = {
        "federated": {"accuracy": 0.6, "seeds": [0.5, 0.7], "over_seeds": [0.1, 1.1]},
        "alone": {
            **{"accuracy": 0.55, "seeds": [0.55, 0.55], "over_seeds": None},
            "ahead_of_federated": [-0.05, -0.06, -0.04],
        },
    }
    row = {"trained": 10, "share": 0.5, "bytes": 1e6, "seconds": 1.0, **kinds}
    base = {"accuracy": 0.5, "seeds": [0.5, 0.5], "over_seeds": None, "test_items": 4}
    result = {
        **{"ways": {"lora": row, "ia3": {"no_result": "is not above"}}, "base": base},
        **{"families": {}, "protocol": {"seeds": [1, 2], "deals": [101]}},
    }
    lines = quality_tables.adapters(result)
    assert "-5.0 (-6.0 to -4.0); -5.0 (-132.1 to +122.1)" in lines[3]
    assert "no result: is not above" in lines[4]
    assert len({line.count("|") for line in lines[:5]}) == 1
