"""Tables of a model's owner: each row has its cells, and none that was not measured."""

from itertools import pairwise
from typing import Any

import owner_tables as owner
import pytest

Row = dict[str, Any]
PROTOCOL = {"seeds": [1, 2, 3], "deals": [101], "silos": 4}
AHEAD = {"by_item": [0.01, 0.0, 0.02], "by_seed": [0.01, -0.2, 0.22]}
SCORED = {"accuracy": 0.6, "over_seeds": [0.5, 0.7], "loss": 0.5, "test_items": 1000, "runs": []}
FOUND = {"keys": 12, "rate": 0.99, "over_keys": [0.98, 1.0], "lowest": 0.9, "proved": 11}
FAMILIES = {"one": {"rate": 0.001, "tried": {"0.0003": 0.5, "0.001": 0.7, "0.003": 0.6}}}
RECORD = {"layers": [0, 1, 2], "source": {"layers": 5}, "middle_error": 0.01, "distillation": None}
LOSSES = {"first": {"lm": 7.0, "kd": 0.9}, "last": {"lm": 5.0, "kd": 0.8}}
DISTILLED = {**RECORD, "distillation": {"settings": {"steps": 9}, **LOSSES}}


def same_cells(lines: list[str]) -> None:
    """Each table's lines have as many cells as its head."""
    for line, below in pairwise(lines):
        if line.startswith("|") and below.startswith("|"):
            assert line.count("|") == below.count("|"), below


def test_emulators_and_plugged_in_models() -> None:
    rows = {
        "base": SCORED,
        "it": {**SCORED, "over_base": AHEAD},
        "it, plugged in": {**SCORED, "over_base": AHEAD, "over_emulator": AHEAD},
        "wild": {"no_result": "diverged on one of the deals"},
    }
    made = {"it": DISTILLED, "int8": RECORD}
    lines = owner.offsite(
        {"rows": rows, "emulators": made, "protocol": PROTOCOL, "families": FAMILIES}
    )
    same_cells(lines)
    assert lines[2].startswith("| base | 60.0 % (50.0 to 70.0) | 0.500 |  |")
    assert "+1.0 (+0.0 to +2.0); +1.0 (-20.0 to +22.0)" in lines[4]
    assert lines[5] == "| wild | no result: diverged on one of the deals | | | | | |"
    assert "| it | 3 of 5 | 0.01 | 9 | 7.00, 5.00 | 0.90, 0.80 |" in lines
    assert "| int8 | 3 of 5 | 0.01 | — | — | — |" in lines


def test_costs_of_a_step() -> None:
    model = {"layers": 30, "step_seconds": [2.0, 1.0, 3.0], "faster": 1.0, "smaller": 1.0}
    line = {"layer": 0.1, "beside": 1.0, "ratio_24_to_12": 1.5}
    content = {"models": {"whole": {**model, "peak_bytes": 5e8}}, "batch": 8}
    lines = owner.emulator_costs({**content, "seconds": line, "peak_bytes": line})
    same_cells(lines)
    assert lines[2] == "| whole | 30 | 2.00 | 1.00 | 500 | 1.00 |"


def test_emulators_alone_show_what_was_trained() -> None:
    row = {"loss": 3.0, "perplexity": 20.0, "times_whole": 1.0, "test_items": 1000}
    plain, trained = {**row, "over_items": [2.9, 3.1]}, {**row, "over_seeds": [2.8, 3.2]}
    rows = {"whole": plain, "whole, trained on": trained, "int8": plain}
    rate = {"rate": 1e-4, "tried": {"3e-05": 4.0, "0.0001": 3.0, "0.0003": 3.5}, "judge": "it"}
    lines = owner.emulator_alone({"rows": rows, "rate": rate, "protocol": PROTOCOL})
    same_cells(lines)
    assert lines[2] == (
        "| whole | 20.0 | 1.00 | 3.000 (2.900 to 3.100) | 20.0 | 1.00 | 3.000 (2.800 to 3.200) |"
    )
    assert lines[3].count("20.0") == 1


@pytest.mark.parametrize("bound", [3e-5, None])
def test_marks_their_survival_and_their_capacity(bound: float | None) -> None:
    marked = {**FOUND, **SCORED, "survives": {"int8": FOUND}, "prompts": FOUND, "rider": FOUND}
    full = {**FOUND, "bound": 0.75, "channels": 4608, "bits": 2048, "accuracy": 0.6}
    strangers = {"keys": 100_000, "verified": 0 if bound else 1, "whole_keys": FOUND}
    content = {"rows": {"marked": marked, "many": full}, "protocol": PROTOCOL}
    lines = owner.ownership({**content, "strangers": {**strangers, "bound_95": bound}})
    same_cells(lines)
    assert lines[2].startswith(
        "| marked | 12 | 99.0 % (98.0 to 100.0) | 90.0 % | 11 of 12 | 60.0 %"
    )
    assert [line.split(" |")[0] for line in lines[3:6]] == [
        *("| … its prompts", "| … the rider's own key", "| … int8")
    ]
    assert "| 8,192 | 4,608 | 75.0 % | 99.0 % (98.0 to 100.0) | 90.0 % |" in lines
    assert any(("bound 3e-05" in line) == bool(bound) for line in lines if "100,000 keys" in line)
