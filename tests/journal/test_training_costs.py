"""What a client's training took: measured from its reports, predicted by the models, else None."""

from pathlib import Path

import pytest

from hanse.journal import record_files
from hanse.journal.checkpoints import Checkpoint
from hanse.journal.journey import Journey
from hanse.journal.records import (
    ENVIRONMENT,
    ClientRecord,
    EnvironmentRecord,
    RoundRecord,
    Traffic,
)
from hanse.journal.round_costs import with_training_costs
from hanse.journal.run_folder import Journal, read_ledger
from hanse.journal.training_costs import TrainingCosts

HERE = EnvironmentRecord(train_flops_per_token=1e6, peak_flops=1e9)
NUMBERS = {"seconds": 2.0, "tokens": 500.0, "joules": 30.0}


def trained(**more: object) -> ClientRecord:
    """The record of a training of 500 tokens in 2 seconds, answered after 5."""
    values = {"up": 10, "numbers": NUMBERS, "sent_at": 100.0, "answered_at": 105.0} | more
    return ClientRecord(1, "a", "train", **values)  # type: ignore[arg-type]


def test_a_simulation_measures_no_network() -> None:
    record = with_training_costs(trained(), HERE, {}, remote=False)
    assert record.measured == TrainingCosts(
        computing=2.0, tokens_per_second=250.0, mfu=0.25, joules=30.0
    )
    assert record.predicted is None


def test_a_deployment_measures_the_network_and_not_the_servers_peak() -> None:
    record = with_training_costs(trained(), HERE, {}, remote=True)
    assert record.measured == TrainingCosts(
        computing=2.0, communicating=3.0, granularity=2 / 3, tokens_per_second=250.0, joules=30.0
    )


def test_links_and_devices_predict_the_same_quantities() -> None:
    journey = Journey(1.0, 8.0, 3.0, joules=70.0, mfu=0.4)
    record = with_training_costs(trained(simulated=journey), HERE, {}, remote=False)
    assert record.predicted == TrainingCosts(
        computing=8.0,
        communicating=4.0,
        granularity=2.0,
        tokens_per_second=62.5,
        mfu=0.4,
        joules=70.0,
    )
    links = with_training_costs(trained(simulated=Journey(1.0, 0.0, 3.0)), HERE, {}, remote=False)
    assert links.predicted == TrainingCosts(communicating=4.0)


def test_a_plan_predicts_the_seconds_of_training() -> None:
    record = with_training_costs(trained(), HERE, {"a": 4.0}, remote=True)
    assert record.predicted == TrainingCosts(computing=4.0, tokens_per_second=125.0)
    links = trained(simulated=Journey(1.0, 0.0, 3.0))
    record = with_training_costs(links, HERE, {"a": 8.0}, remote=False)
    assert record.predicted is not None and record.predicted.granularity == 2.0
    assert with_training_costs(trained(), HERE, {"b": 4.0}, remote=True).predicted is None


@pytest.mark.parametrize(
    "numbers",
    [
        {},
        {"seconds": -1.0, "tokens": -5.0, "joules": -1.0},
        {"seconds": 1e99, "tokens": 1e99, "joules": 1e99},
        {"seconds": float("nan"), "tokens": float("inf"), "joules": float("nan")},
    ],
)
def test_numbers_that_cannot_be_are_not_measured(numbers: dict[str, float]) -> None:
    record = with_training_costs(trained(numbers=numbers), HERE, {}, remote=True)
    assert record.measured is not None and record.measured.is_empty


def test_a_silo_that_claims_more_seconds_than_have_passed_has_none_on_the_way() -> None:
    numbers = NUMBERS | {"seconds": 50.0}
    measured = with_training_costs(trained(numbers=numbers), HERE, {}, remote=True).measured
    assert measured is not None and measured.computing == 50.0
    assert measured.communicating is None and measured.granularity is None


@pytest.mark.parametrize(
    "more", [{"error": "full"}, {"late": 1, "unused": 3}, {"up": 0}, {"kind": "evaluate"}]
)
def test_only_an_answered_training_has_costs(more: dict[str, object]) -> None:
    kind = str(more.pop("kind", "train"))
    values = {"up": 10, "numbers": NUMBERS} | more
    record = ClientRecord(1, "a", kind, **values)  # type: ignore[arg-type]
    assert with_training_costs(record, HERE, {}, remote=False) is record


@pytest.mark.parametrize("seconds", [2.0, 1e-300])
def test_a_ledger_has_them_and_can_be_read_again(tmp_path: Path, seconds: float) -> None:
    """A hostile silo's seconds must not make a line that nobody can read."""
    text = "algorithm: {fedpipe: {expected_seconds: {a: 3.0, b: many}}}"
    journal = Journal.create(tmp_path / "run", text)
    record_files.write(tmp_path / "run" / ENVIRONMENT, HERE)
    journal.ledger.sent("a", "train", 5)
    numbers = {"seconds": seconds, "tokens": 1e30, "joules": 1.0}
    journal.ledger.received("a", "train", 5, numbers)
    record = RoundRecord(round=1, bytes=Traffic(5, 5), seconds={})
    journal.commit(Checkpoint(1, {}, {}), record)
    journal.close()
    (line,) = read_ledger(tmp_path / "run")
    assert line.measured is not None and line.measured.computing == seconds
    assert line.predicted is not None and line.predicted.computing == 3.0
    fast = 1e30 / seconds
    assert line.measured.tokens_per_second == (fast if fast <= 1e30 else None)
    assert b'"communicating": null' in (tmp_path / "run" / "ledger.jsonl").read_bytes()
