"""Remarks of many runs: each is in the log once."""

import logging

import pytest

from hanse.observability.remarks import said_once


def test_a_remark_is_said_once_and_results_each_time(caplog: pytest.LogCaptureFixture) -> None:
    remarks = logging.getLogger("hanse.experiment.assembly")
    results = logging.getLogger("hanse.federation.server")
    caplog.set_level(logging.INFO, "hanse")
    with said_once():
        for number in range(3):
            remarks.warning("%d rows are cut", 5)
            remarks.info("run folder %d", number)
            results.info("round 1: accuracy %g", 0.5)
    remarks.warning("%d rows are cut", 5)  # by another command
    texts = [record.getMessage() for record in caplog.records]
    folders = [f"run folder {number}" for number in range(3)]
    assert texts.count("5 rows are cut") == 2
    assert [text for text in texts if text in folders] == folders
    assert texts.count("round 1: accuracy 0.5") == 3
