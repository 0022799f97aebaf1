"""What hanse check finds out: how the data were read, how long they are, how long scoring takes."""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
from transformers import AutoTokenizer

from hanse.experiment.assembly.assemble import simulate
from hanse.experiment.assembly.federated_dataset import divide
from hanse.experiment.loading import load
from hanse.federation.interfaces.learner import Learner
from hanse.federation.interfaces.results import Scores
from hanse.federation.interfaces.task import Task
from hanse.federation.messages import Request
from hanse.federation.round import open_round
from hanse.federation.server import start
from hanse.journal.run_folder import Journal
from hanse.planning import estimate
from hanse.simulation.in_process import in_process
from samples import reviews, write_lines


@pytest.mark.parametrize("limit", [12, 18, 64])
def test_lengths_are_those_before_the_cut(
    experiment_file: Path, tiny_llama: Path, limit: int
) -> None:
    experiment = load(experiment_file, [f"model.max_length={limit}", "data.client_test=0"])
    found = estimate.preview(experiment).lengths
    tokenizer = AutoTokenizer.from_pretrained(tiny_llama)
    answer = max(len(tokenizer(f" {word}")["input_ids"]) for word in ("negative", "positive"))
    sizes = sorted(
        len(tokenizer(f"Review: {row.text}\nSentiment:")["input_ids"])
        for rows in divide(experiment).train.values()
        for row in rows
    )
    assert len(sizes) == 110
    assert found.mean == pytest.approx(sum(sizes) / 110)
    assert sizes[int(0.95 * 109)] <= found.most <= sizes[int(0.95 * 109) + 1]
    assert found.limit == limit
    assert found.cut == sum(size > limit - answer for size in sizes) / 110


def test_an_encoders_texts_are_cut_where_they_are_too_long(
    experiment_file: Path, tiny_llama: Path, tiny_bert: Path
) -> None:
    text = experiment_file.read_text().replace(str(tiny_llama), str(tiny_bert))
    experiment_file.write_text(text)
    tokenizer = AutoTokenizer.from_pretrained(tiny_bert)
    words = ["adapter.lora.target_modules=[query]", "data.client_test=0"]
    for limit in (8, 64):
        experiment = load(experiment_file, [*words, f"model.max_length={limit}"])
        found = estimate.preview(experiment)
        sizes = [
            len(tokenizer(row.text)["input_ids"])
            for rows in divide(experiment).train.values()
            for row in rows
        ]
        assert found.lengths.cut == sum(size > limit for size in sizes) / 110
        assert found.example[-1][0] in (" → negative", " → positive")


def test_readings_say_what_the_columns_were_taken_for(
    experiment_file: Path, review_file: Path, tmp_path: Path
) -> None:
    [(path, reading)] = estimate.preview(load(experiment_file)).readings
    assert path == str(review_file)
    assert (reading.kind, reading.columns) == ("labelled", {"text": "text", "label": "label"})
    odd = [{"body": row["text"], "verdict": row["label"]} for row in reviews(80)]
    files = [write_lines(tmp_path / f"{name}.jsonl", odd) for name in ("north", "south")]
    words = [f"clients.{file.stem}.data.path={file}" for file in files]
    words += ["data.columns={text: body, label: verdict}", "data.path=none"]
    found = estimate.preview(load(experiment_file, [*words, "data.partition=iid"])).readings
    assert [path for path, _ in found] == [str(file) for file in files]
    assert all(reading.columns == {"text": "body", "label": "verdict"} for _, reading in found)


def test_many_clients_are_not_asked_one_by_one(
    experiment_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    packed, pack = [], Request.pack

    def counted(self: Request) -> bytes:
        packed.append(self.kind)
        return pack(self)

    monkeypatch.setattr(Request, "pack", counted)
    words = ["num_clients=40", "data.partition=iid", "data.client_test=0"]
    text = "clients: {silo-07: {train: {max_steps: 1}}}\n"
    experiment_file.write_text(experiment_file.read_text() + text)
    found = estimate.preview(load(experiment_file, words))
    assert len(found.down) == len(found.up) == 40
    assert len(packed) == 4, "for each of two kinds of clients one to be answered, one to be sized"


@pytest.mark.parametrize(("epochs", "rounds"), [(1.0, 1), (0.5, 1), (2.0, 3)])
def test_known_rows_take_the_time_of_known_rows(
    experiment_file: Path,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    epochs: float,
    rounds: int,
) -> None:
    """Two seconds a token that is read for the first time, half a second for one that is known."""
    probe = estimate._probe
    monkeypatch.setattr(estimate, "_probe", lambda *asked: (probe(*asked)[0], 2.0, 0.5))
    words = ["train.max_steps=null", f"train.num_train_epochs={epochs}", f"rounds={rounds}"]
    words += ["train.per_device_train_batch_size=1", "data.client_test=0"]
    simulation = simulate(load(experiment_file, words))
    journal = Journal(tmp_path)
    run = simulation.run(journal, in_process(simulation, journal.folder))
    profiles = {profile.name: profile for profile in simulation.profiles}
    exchange = open_round(run, 1, start(run, profiles), profiles)
    seconds = estimate._asked(simulation, exchange, tmp_path, rounds)[2]
    journal.close()
    wanted = 0.0
    for silo in simulation.clients.values():
        train = silo.examples["train"]
        tokens, passes = sum(map(len, train)), round(epochs * len(train)) / len(train) * rounds
        wanted += tokens * (2 * min(1, passes) + 0.5 * max(0, passes - 1))
    assert seconds == pytest.approx(wanted)


@dataclass(frozen=True)
class Slow(Task):
    """Takes two seconds for each token, or for each answer if it is costly."""

    clock: list[float]
    costly: bool = False
    limit: int | None = None
    example_kind = "label_words"

    @property
    def test_only(self) -> bool:
        return self.costly

    def evaluate(self, learner: Learner, split: str) -> Scores:
        scored = learner.examples(split)[: self.limit]
        self.clock[0] += 2 * (len(scored) if self.costly else sum(map(len, scored)))
        return Scores({}, [])


@pytest.mark.parametrize("test", ["true", "final", "false"])
@pytest.mark.parametrize(("costly", "limit"), [(False, None), (True, 7), (True, 20), (False, 9)])
@pytest.mark.parametrize(("every", "looks"), [(0, {5}), (2, {0, 2, 4, 5}), (5, {0, 5})])
def test_scoring_takes_as_long_as_its_splits_are(
    experiment_file: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    test: str,
    costly: bool,
    limit: int | None,
    every: int,
    looks: set[int],
) -> None:
    words = ["rounds=5", f"evaluation.validate_every={every}", f"evaluation.test={test}"]
    simulation = simulate(load(experiment_file, words))
    journal = Journal(tmp_path)
    clock = [0.0]
    task = Slow(clock, costly, limit)
    run = replace(
        simulation.run(journal, in_process(simulation, journal.folder)), tasks={"slow": task}
    )
    monkeypatch.setattr(estimate.time, "perf_counter", lambda: clock[0])
    predicted = estimate._scoring(simulation, run)
    journal.close()

    def spent(split: Any) -> int:
        return len(split[:limit]) if costly else sum(map(len, split[:limit]))

    tests, validation = (simulation.learner.examples(name) for name in ("test", "validation"))
    amount = {"true": 2, "final": 1, "false": 0}[test] * spent(tests)
    if not costly:
        amount += len(looks) * spent(validation)
        amount += sum(spent(silo.examples["test"]) for silo in simulation.clients.values())
    assert predicted == pytest.approx(2 * amount)
