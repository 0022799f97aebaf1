"""Sentences on the differential privacy of a run."""

from dataclasses import replace
from pathlib import Path

from folders import finished
from hanse.journal import record_files
from hanse.journal.privacy_record import PRIVACY, PrivacyRecord
from hanse.reports.privacy import assumptions, privacy
from hanse.reports.run.page import write_report
from reports.test_run_page import words

RECORD = PrivacyRecord(
    mechanism="client_dp",
    unit="silo",
    epsilon=7.5,
    delta=1e-5,
    releases=6,
    noise_multiplier=1.5,
    clip=0.25,
    assumptions=("The server is trusted.",),
)


def test_a_promise_in_words() -> None:
    assert privacy(RECORD) == (
        "Differential privacy by client_dp: ε = 7.5 at δ = 1e-05 for a silo, in 6 releases (noise "
        "multiplier 1.5, clip norm 0.25). No result becomes more than e^ε = 1,808 times as likely "
        "by one silo, up to δ."
    )
    assert "The budget is ε = 8." in privacy(replace(RECORD, budget=8.0))
    assert assumptions(RECORD) == RECORD.assumptions
    assert "weak promise" not in privacy(RECORD)
    assert privacy(replace(RECORD, epsilon=500.0)).endswith("So large a factor is a weak promise.")


def test_without_a_bound_nothing_is_promised() -> None:
    open_ended = replace(RECORD, epsilon=None)
    assert privacy(open_ended).endswith("Without a bound on ε nothing is promised.")
    assert "times as likely" not in privacy(open_ended) and not assumptions(open_ended)
    assert privacy(None) == "" and assumptions(None) == ()


def test_a_report_has_it_and_names_a_damaged_record(tmp_path: Path) -> None:
    folder = finished(tmp_path / "run", [1.0] * 9, [1.0] * 9)
    assert "rivacy" not in words(write_report(folder))
    record_files.write(folder / PRIVACY, RECORD)
    text = words(write_report(folder))
    assert privacy(RECORD) in text and "The server is trusted." in text
    (folder / PRIVACY).write_text("{")
    assert "privacy.json cannot be read." in words(write_report(folder))
