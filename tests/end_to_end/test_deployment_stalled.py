"""Silos that stall: rounds end without them, pause below the quorum, and take them back."""

import os
import signal
from pathlib import Path

import pytest

from hanse.journal.run_folder import read_ledger, read_rounds
from patience import patience
from real_federation import ALONE, SILOS, federation

pytestmark = [pytest.mark.end_to_end, pytest.mark.chaos]

DEADLINE = 15.0


def test_stalled_silos_are_left_out_waited_for_and_taken_back(
    experiment_file: Path, review_file: Path, tmp_path: Path
) -> None:
    plan = ["rounds=4", f"deployment.deadline={DEADLINE}", "deployment.quorum=3"]
    with federation(tmp_path, experiment_file, review_file, *ALONE[:2], *plan) as made:
        made.server()
        stalled = [made.silo(name) for name in SILOS][2:]
        made.hears("server", "round 1: validation")
        os.kill(stalled[1].number, signal.SIGSTOP)
        made.hears("server", "round 2: validation")
        os.kill(stalled[0].number, signal.SIGSTOP)
        made.hears("server", "paused, since a round needs 3: waiting for 2 of 4: silo-3, silo-4")
        assert len(read_rounds(made.run)) == 3  # nothing is combined below the quorum
        for silo in stalled:
            os.kill(silo.number, signal.SIGCONT)
        made.done()
    rows = read_rounds(made.run)
    assert [len(row.clients) for row in rows[2:3]] == [3]
    assert all(len(row.clients) >= 3 for row in rows[1:])
    assert rows[2].time - rows[1].time < DEADLINE + patience(5)
    late = [row for row in read_ledger(made.run) if row.late is not None]
    assert {row.client for row in late} >= {"silo-4"}
