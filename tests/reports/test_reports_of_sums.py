"""Reports and model cards of runs whose updates were summed securely."""

from dataclasses import replace
from pathlib import Path
from typing import Any

from folders import finished, record, run_folder
from hanse.journal.records import DEPLOYED, RoundRecord, Traffic
from hanse.reports.run.page import write_report
from hanse.reports.secure_sums import secure_sums
from reports.test_run_page import Page, words

TRAINED = {"loss": 2.0, "clipped": 0.0, "threshold": 3.0}


def summed(round: int, clients: tuple[str, ...], dropped_out: float) -> Any:
    """A round of secure sums."""
    return record(round, clients=clients, train={**TRAINED, "dropped_out": dropped_out})


ROUNDS = [record(0), summed(1, ("a", "b", "c", "d"), 0.0), summed(2, ("a", "c", "d"), 1.0)]


def test_a_report_says_what_the_server_could_read(tmp_path: Path) -> None:
    folder = run_folder(tmp_path / "run", ROUNDS)
    (folder / "ledger.jsonl").write_text('{"round": 1, "client": "a", "kind": "train", "up": 5}\n')
    simulated = write_report(folder)
    Page(simulated.read_text())
    text = words(simulated)
    assert "could read the sum over 3 to 4 clients, and no single update" in text
    assert "The threshold was 3 clients." in text
    assert "before their masked update had arrived: 1 in round 2." in text
    assert "keys that protect nothing" in text
    assert "clients dropped out" in text
    assert "Training loss: the mean over those rounds" not in text
    (folder / DEPLOYED).write_text("run")
    assert "keys that protect nothing" not in words(write_report(folder))


def test_a_plain_run_says_nothing_of_it(tmp_path: Path) -> None:
    text = words(write_report(finished(tmp_path / "run", [1.0] * 9, [1.0] * 9)))
    assert "secure" not in text and "dropped out" not in text
    assert "Training loss: the mean over those rounds" in text


def test_many_rounds_with_drop_outs_are_not_all_named() -> None:
    costs: Any = {"bytes": Traffic(0, 0), "seconds": {}, "clients": ("a", "b", "c")}
    train = {**TRAINED, "dropped_out": 1.0}
    rounds = [RoundRecord(round=n, train=train, **costs) for n in range(1, 11)]
    sentence = secure_sums(rounds, deployed=True)
    assert sentence.endswith("1 in round 7, 1 in round 8, and others in 2 more rounds.")
    whole = replace(rounds[0], train={**train, "dropped_out": 0.0})
    assert "No client dropped out" in secure_sums([whole], deployed=True)
