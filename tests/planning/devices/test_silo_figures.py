"""Figures that a silo tells of its machine: what cannot be is refused in a clause."""

import json
import math
from dataclasses import replace
from typing import Any

import pytest

from hanse.federation.messages import LARGEST_NUMBER, MessageError, Update, validate_update
from hanse.journal import record_files
from hanse.journal.records import ClientRecord
from hanse.planning.devices.silo_figures import MACHINE, PREFIX, SiloFigures, StepFigures

STEP = StepFigures(rows=4, length=16, rank=8, depth=2, seconds=0.1, kept=1e6, peak=2e6)
FIGURES = SiloFigures(2, 1e9, 4e9, 1e11, 2e11, 1e10, 2, 12, 40, (STEP, replace(STEP, peak=None)))


def test_figures_are_read_as_they_were_told() -> None:
    assert SiloFigures.read({**FIGURES.numbers(), "loss": 1.0}) == FIGURES
    assert SiloFigures.read({"loss": 1.0}) is None


@pytest.mark.parametrize("value", [math.nan, math.inf, -1.0])
@pytest.mark.parametrize("name", [*MACHINE, "step0_seconds", "step1_rows", "step1_kept"])
def test_figures_that_no_machine_has_are_refused(name: str, value: float) -> None:
    with pytest.raises(ValueError, match=f"^{name} came as (none|inf|-1), and is "):
        SiloFigures.read({**FIGURES.numbers(), PREFIX + name: value})


@pytest.mark.parametrize("value", [math.nan, math.inf, 10 * LARGEST_NUMBER])
def test_a_reply_with_such_a_figure_is_refused_as_a_whole(value: float) -> None:
    update = Update({}, {PREFIX + "cores": value}, 1.0)
    with pytest.raises(MessageError, match="the number device_cores is"):
        validate_update(update, {})


@pytest.mark.parametrize("value", ["9" * 100_000, "many", "NaN", "2.0", [1.0], True])
def test_a_text_in_place_of_a_figure_counts_as_none(value: Any) -> None:
    kept = {"round": 1, "client": "silo-1", "kind": "train", **FIGURES.numbers()}
    line = json.dumps({**kept, PREFIX + "cores": value}).encode()
    numbers = record_files.parse(line, ClientRecord).numbers
    with pytest.raises(ValueError, match=r"^cores came as none, and is 1 to 100000$"):
        SiloFigures.read(numbers)
