"""Secure sums as a user sees them: hanse check, the log of a run, its card and its report."""

import logging
import re
from collections.abc import Callable
from pathlib import Path

import pytest

from hanse.experiment.loading import load
from hanse.journal import record_files
from hanse.journal.privacy_record import PRIVACY, PrivacyRecord
from hanse.journal.run_folder import read_ledger, read_rounds
from hanse.planning.preview import estimate
from hanse.simulation import run as simulation
from samples import Outcome

PHASES = ["keys", "shares", "train", "survivors", "unmask"]
SUMMED = ("aggregator=secagg", "data.client_test=0", "rounds=1")


def test_check_shows_the_terms_and_the_bytes_of_each_exchange(
    hanse: Callable[..., Outcome], experiment_file: Path
) -> None:
    outcome = hanse("check", str(experiment_file), *SUMMED)
    text = " ".join(outcome.out.split())
    assert outcome.code == 0
    assert "aggregator 3 silos, each of which shares its secrets with all others; 3 of 3" in text
    assert "rounded to steps of 2.2e-08 (32 bits each)" in text
    assert "no loss, step count or score of a single client leaves it" in text
    for phase in PHASES:
        assert f"a client {phase}: " in text
    assert "masked updates" not in text, "a rehearsal is no round"


def test_a_run_says_what_is_hidden_and_what_its_keys_are_worth(
    experiment_file: Path, caplog: pytest.LogCaptureFixture
) -> None:
    predicted = estimate.preview(load(experiment_file, SUMMED))
    with caplog.at_level(logging.INFO, logger="hanse"):
        folder = simulation.run(load(experiment_file, SUMMED))
    for phrase in predicted.terms:
        assert f"aggregator: {phrase}" in caplog.messages
    assert sum("protect nothing" in message for message in caplog.messages) == 1
    assert [row.kind for row in read_ledger(folder)][::3] == PHASES
    assert all(row.loss is None and row.amount("tokens") is None for row in read_ledger(folder))
    [_, record] = read_rounds(folder)
    assert (record.train["threshold"], record.train["dropped_out"]) == (3, 0)
    card = (folder / "adapter" / "README.md").read_text()
    assert "could read the sum over 3 clients, and no single update" in card
    assert "simulated, with keys that protect nothing" in card


def test_noise_that_adds_up_in_a_run(hanse: Callable[..., Outcome], experiment_file: Path) -> None:
    words = [*SUMMED, "privacy={distributed_gaussian: {epsilon: 4, clip: 0.1}}"]
    checked = " ".join(hanse("check", experiment_file, *words).out.split())
    assert "updates are whole numbers, added as they are (32 bits each)" in checked
    assert re.search(r"promise ε = (3\.99\d*|4) at δ = 1e-05 for a silo, in 1 releases", checked)
    assert "Each silo draws its share of the noise on its own word" in checked
    outcome = hanse("run", experiment_file, *words)
    assert outcome.code == 0, outcome.err
    folder = experiment_file.parent / "run"
    [_, record] = read_rounds(folder)
    assert len(record.clients) == record.weight == 3 and record.train["clipped"] == 0
    account = record_files.read(folder / PRIVACY, PrivacyRecord)
    assert account is not None and account.epsilon is not None
    assert (account.mechanism, account.releases) == ("distributed_gaussian", 1)
    assert 3.9 < account.epsilon <= account.budget == 4
    assert "times as long as the mean can be" in checked


def test_a_plain_run_says_nothing_of_it(
    experiment_file: Path, caplog: pytest.LogCaptureFixture
) -> None:
    words = ["rounds=1", "data.client_test=0"]
    assert estimate.preview(load(experiment_file, words)).terms == ()
    with caplog.at_level(logging.INFO, logger="hanse"):
        folder = simulation.run(load(experiment_file, words))
    assert not any("protect nothing" in message for message in caplog.messages)
    assert "secure" not in (folder / "adapter" / "README.md").read_text()
