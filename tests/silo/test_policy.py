"""A silo's law: what a hostile server asks for, and gets from a silo without it, is refused."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from hanse import parts
from hanse.errors import UserError
from hanse.loading import load
from hanse.messages import Order, Reply, Request, Update
from hanse.settings import dump
from hanse.silo import settings
from hanse.silo.job import LARGEST, Refused, received
from hanse.silo.law import WITHHELD, Law, refusals
from hanse.silo.models import model_hash
from hanse.silo.settings import Silo
from hanse.values import Fit

SPY = """\
from dataclasses import dataclass
from pathlib import Path

from hanse.{module} import {base}

Path({marker!r}).write_text("was run")


@dataclass(frozen=True)
class Mine({base}):
    pass
"""


@pytest.fixture
def told(experiment_file: Path) -> dict[str, Any]:
    """What the server sends: its experiment with every default written out."""
    return load(experiment_file).resolved()


def silo(home: Path, policy: str = "{}", more: str = "") -> Silo:
    """A silo with rows of its own."""
    home.mkdir(exist_ok=True)
    (home / "own.jsonl").write_text('{"text": "a film", "label": "good"}\n')
    (home / "silo.yaml").write_text(
        f"name: silo-1\nserver: 127.0.0.1:8000\ndata: {{path: own.jsonl}}\nstate: state\n"
        f"policy: {policy}\n{more}"
    )
    return settings.load(home / "silo.yaml")


def law(mine: Silo, run: str = "run-1") -> Law:
    return Law(mine.name, mine.policy, run, mine.state)


def logged(mine: Silo) -> list[dict[str, Any]]:
    log = mine.state / "refusals.jsonl"
    return [json.loads(line) for line in log.read_text().splitlines()]


def refuse(mine: Silo, told: dict[str, Any], **asked: Any) -> str:
    """What a silo's law says to a job."""
    job = received(dump(told), mine)
    with pytest.raises(Refused) as caught:
        law(mine).check(replace(job, **asked), "0" * 64, 100)
    assert logged(mine)[-1]["what"] == "refused" and str(caught.value) in logged(mine)[-1]["reason"]
    return str(caught.value)


def test_an_ordinary_job_is_taken(tmp_path: Path, told: dict[str, Any], tiny_llama: Path) -> None:
    mine = silo(tmp_path / "a", f"{{models: [{model_hash(tiny_llama)}], max_rounds: 3}}")
    job = received(dump(told), mine)
    law(mine).check(job, model_hash(tiny_llama), 100)
    assert job.cohort == 3 and not (mine.state / "refusals.jsonl").exists()


def test_the_silos_own_settings_win(tmp_path: Path, told: dict[str, Any]) -> None:
    told["data"]["path"] = "/etc/passwd"
    told["clients"] = {"silo-1": {"train": {"max_steps": 2}, "data": {"template": "{text}!"}}}
    mine = silo(tmp_path / "a", more="model: own.jsonl\n")
    got = received(dump(told), mine).experiment
    assert got.data.path == str(tmp_path / "a" / "own.jsonl")
    assert got.model.model_name_or_path == str(tmp_path / "a" / "own.jsonl")
    assert (got.train.max_steps, got.data.template) == (2, "{text}!")
    assert got.train.learning_rate == 0.01 and got.seed == 0


def test_where_is_replaced_not_added_to(tmp_path: Path, told: dict[str, Any]) -> None:
    told["data"]["where"] = {"label": "bad"}
    mine = silo(tmp_path / "a")
    rows = mine.data.model_copy(update={"where": {}})
    got = received(dump(told), mine.model_copy(update={"data": rows})).experiment
    assert got.data.where == {}


@pytest.mark.parametrize(
    "place", ["algorithm", "aggregator", "objective", "task", "partition", "client"]
)
def test_code_that_a_server_names_is_not_run(
    tmp_path: Path, told: dict[str, Any], place: str
) -> None:
    marker, evil = tmp_path / "marker", tmp_path / "evil.py"
    base = {"aggregator": "Aggregator", "task": "Task"}.get(place, "Algorithm")
    evil.write_text(SPY.format(module="interfaces", base=base, marker=str(marker)))
    name = f"{evil}:Mine"
    if place == "task":
        told["evaluation"]["tasks"] = [name]
    elif place == "partition":
        told["data"]["partition"] = {name: {}}
    elif place == "client":
        told["clients"] = {"silo-1": {"algorithm": {name: {}}, "data": {"partition": {name: {}}}}}
    else:
        told[place] = {name: {}}
    with pytest.raises(UserError):  # without the law, it runs (and then is no whole part)
        parts.build("algorithms", name)
    assert marker.exists()
    marker.unlink()
    if place == "client":  # no client may have other parts, so this is only left out
        received(dump(told), silo(tmp_path / "a"))
    else:
        with pytest.raises(Refused, match="runs no code that a server names"):
            received(dump(told), silo(tmp_path / "a"))
    assert not marker.exists()


def test_what_only_the_server_builds_is_left_out(tmp_path: Path, told: dict[str, Any]) -> None:
    marker, evil = tmp_path / "marker", tmp_path / "evil.py"
    evil.write_text(SPY.format(module="interfaces", base="Algorithm", marker=str(marker)))
    told["report_to"] = [f"{evil}:Mine"]
    job = received(dump(told), silo(tmp_path / "a"))
    assert not marker.exists() and job.whole.report_to == []


def test_what_is_checked_is_what_is_run(tmp_path: Path, told: dict[str, Any]) -> None:
    """The share of divided rows follows from the whole, in which nothing else may differ."""
    told["clients"] = {
        "silo-1": {"train": {"max_steps": 2}, "rounds": 9, "data": {"partition": "shard"}},
        "silo-2": {"train": {"max_steps": 99}},
    }
    job = received(dump(told), silo(tmp_path / "a"))
    assert job.whole.for_client("silo-1") == job.experiment
    assert job.whole.clients == {"silo-1": {"train": {"max_steps": 2}, "data": {}}}
    assert job.whole.data.partition == told["data"]["partition"]
    assert (job.experiment.rounds, job.experiment.train.max_steps) == (3, 2)


def test_rows_of_ones_own(tmp_path: Path, told: dict[str, Any]) -> None:
    told["clients"] = {
        name: {"data": {"path": f"/secret/{name}", "template": f"{name}: {{text}}"}}
        for name in ("silo-1", "north")
    }
    job = received(dump(told), silo(tmp_path / "a"))
    assert job.cohort == 2 and job.whole.client_names == ["silo-1"]
    assert job.experiment.data.path == str(tmp_path / "a" / "own.jsonl")
    assert job.experiment.data.template == "silo-1: {text}"


def test_who_is_no_client_takes_no_part(tmp_path: Path, told: dict[str, Any]) -> None:
    told["participants"] = ["silo-2", "silo-3"]
    with pytest.raises(Refused, match="has no client silo-1"):
        received(dump(told), silo(tmp_path / "a"))


def test_silos_that_share_a_file_hold_out_alike(tmp_path: Path, told: dict[str, Any]) -> None:
    mine = silo(tmp_path / "a")
    rows = mine.data.model_copy(update={"client_test": 0.5})
    with pytest.raises(Refused, match="which hold out alike"):
        received(dump(told), mine.model_copy(update={"data": rows}))


def test_an_outside_part_that_the_policy_names_is_the_silos_own(
    tmp_path: Path, told: dict[str, Any]
) -> None:
    marker, evil = tmp_path / "marker", tmp_path / "mine.py"
    evil.write_text(SPY.format(module="algorithms.fedavg", base="FedAvg", marker=str(marker)))
    (tmp_path / "a").mkdir()
    own = evil.read_text().replace(str(marker), str(tmp_path / "own-marker"))
    (tmp_path / "a" / "mine.py").write_text(own)
    told["algorithm"] = {f"{evil}:Mine": {}}
    mine = silo(tmp_path / "a", "{algorithms: ['mine.py:Mine']}")
    job = received(dump(told), mine)
    assert job.experiment.algorithm == {f"{tmp_path / 'a' / 'mine.py'}:Mine": {}}
    assert (tmp_path / "own-marker").exists() and not marker.exists()
    assert list(refusals(mine.policy, job, "0" * 64, 100)) == []
    told["algorithm"] = {"fedavg": {}}  # then no other is allowed
    assert "the algorithm fedavg is not among" in refuse(mine, told)


def test_a_policy_that_names_a_file_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"silo.yaml:5: policy.algorithms names 'no.py:Mine'"):
        silo(tmp_path / "a", "{algorithms: ['no.py:Mine']}")


@pytest.mark.parametrize(
    ("policy", "change", "said"),
    [
        ("{models: ['" + "1" * 64 + "']}", {}, "has the hash 0000"),
        ("{max_rounds: 2}", {}, "it has 3 rounds, more than 2"),
        ("{max_steps: 3}", {"train.max_steps": 300}, "it has 300 steps in a round, more than 3"),
        ("{max_steps: 3}", {"train.max_steps": None}, "it has 13 steps in a round, more than 3"),
        (
            "{max_examples: 80}",
            {"train.per_device_train_batch_size": 1000},
            "3,000 examples in a round, more than 80",
        ),
        ("{algorithms: [fedprox]}", {}, "the algorithm fedavg is not among fedprox"),
        (
            "{metrics: [loss]}",
            {"algorithm": "fednova"},
            "the algorithm fednova needs the number sum_a, which it keeps",
        ),
        ("{objectives: [sft]}", {}, "the objective classify is not among sft"),
        ("{aggregators: [secagg]}", {}, "the aggregator mean is not among secagg"),
        ("{adapters: [ia3]}", {}, "the adapter lora is not among ia3"),
        ("{}", {"adapter": {"from": "/home"}}, "a folder of this machine that the server names"),
        ("{min_cohort: 4}", {}, "3 silos train in a round, and it asks for 4"),
        ("{}", {"participants": ["silo-1"]}, "1 silos train in a round, and it asks for 2"),
        ("{}", {"fraction_train": 0.1}, "1 silos train in a round, and it asks for 2"),
        ("{}", {"data.pooled": True}, "1 silos train in a round, and it asks for 2"),
        ("{privacy: {epsilon: 8, clip: 1}}", {}, "differential privacy (clip ≤ 1, epsilon ≤ 8)"),
        (
            "{}",
            {"objective": "sft", "evaluation.tasks": [{"generation": {"costly": False}}]},
            "the task generation is not among classification, perplexity",
        ),
        ("{tasks: []}", {}, "the task classification is not among those allowed"),
    ],
)
def test_what_a_policy_does_not_allow_is_refused(
    tmp_path: Path, told: dict[str, Any], policy: str, change: dict[str, Any], said: str
) -> None:
    for key, value in change.items():
        section, _, name = key.rpartition(".")
        (told[section] if section else told)[name] = value
    unbound = silo(
        tmp_path / "free",
        "{min_cohort: 1, tasks: [classification, generation], adapters: [lora, from]}",
    )
    job = received(dump(told), unbound)  # another silo takes the same job
    assert list(refusals(unbound.policy, job, "0" * 64, 100)) == []
    assert said in refuse(silo(tmp_path / "a", policy), told)


def test_all_reasons_are_said_at_once(tmp_path: Path, told: dict[str, Any]) -> None:
    said = refuse(silo(tmp_path / "a", "{max_rounds: 1, algorithms: [fedprox]}"), told)
    assert "fedavg" in said and "3 rounds" in said


def test_a_model_that_is_not_here_is_refused(tmp_path: Path, told: dict[str, Any]) -> None:
    told["model"]["model_name_or_path"] = "someone/something"
    mine = silo(tmp_path / "a")
    with pytest.raises(Refused, match="'someone/something' is not on its machine"):
        law(mine).check(received(dump(told), mine), None, 100)


def test_generated_answers_on_the_servers_own_rows_are_its_business(
    tmp_path: Path, told: dict[str, Any]
) -> None:
    told |= {"objective": "sft"}
    told["evaluation"]["tasks"] = ["perplexity", "generation"]
    mine = silo(tmp_path / "a")
    assert list(refusals(mine.policy, received(dump(told), mine), "0" * 64, 100)) == []


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "holds no settings"),
        ("[1, 2]", "holds no settings"),
        ("rounds: [", "is not valid YAML"),
        ("rounds: 3\nrounds: 4", "is given twice"),
        ("a: &a [1]\nb: [*a, *a]", "has YAML aliases"),
        ("rounds: !!python/object/apply:os.system ['true']", "is not valid YAML"),
        ("[" * 5000, "is not valid YAML"),
        ("x" * (LARGEST + 1), "characters, more than"),
        ("round: 3", "there is no setting 'round' (did you mean 'rounds'?)"),
        ("rounds: -1", "rounds is -1"),
        ("algorithm: fedavgg", "names 'fedavgg', which this hanse does not have"),
        ("algorithm: ../fedavg", "which this hanse does not have"),
        ("algorithm: {fedavg: {a: 1}}", "fedavg has no setting 'a'"),
        ("algorithm: {a: {}, b: {}}", "but 2 came"),
        ("clients: {silo-1: {train: {max_steps: -1}}}", "max_steps"),
        ("clients: {silo-1: {model: 7}}", "model"),
    ],
)
def test_a_text_that_is_no_job(tmp_path: Path, text: str, said: str) -> None:
    with pytest.raises(Refused) as caught:
        received(text, silo(tmp_path / "a"))
    assert "the server's experiment" in str(caught.value) and said in str(caught.value)


def test_rounds_beyond_the_job_are_refused(tmp_path: Path) -> None:
    mine = silo(tmp_path / "a")
    law(mine).admit(Request("train", 3), rounds=3)
    with pytest.raises(Refused, match="refuses round 4: the job has 3 rounds"):
        law(mine).admit(Request("train", 4), rounds=3)


def test_a_round_is_trained_from_a_few_models_even_after_restarts(tmp_path: Path) -> None:
    """Else a job of one round could go on forever, each time with another model to probe with."""

    def asking(value: float, kind: str = "train") -> Request:
        return Request(kind, 1, order=Order({"w": torch.tensor([value])}))

    mine = silo(tmp_path / "a")
    for model in (1.0, 2.0, 3.0):
        law(mine).admit(asking(model), rounds=3)
    with pytest.raises(Refused, match=r"refuses to train in round 1 once more.*max_tries 3"):
        law(mine).admit(asking(4.0), rounds=3)
    for _ in range(4):  # a server that was killed again and again
        law(mine).admit(asking(3.0), rounds=3)
    law(mine).admit(asking(4.0, "evaluate"), rounds=3)
    law(mine, "run-2").admit(asking(4.0), rounds=3)


def test_counts_that_cannot_be_read_are_not_begun_anew(tmp_path: Path) -> None:
    mine = silo(tmp_path / "a")
    law(mine).admit(Request("train", 1), rounds=3)
    next(mine.state.glob("asked-*.json")).write_text("{")
    with pytest.raises(UserError, match="cannot be read, which says what"):
        law(mine)


def test_only_allowed_numbers_leave(tmp_path: Path) -> None:
    mine = silo(tmp_path / "a", "{metrics: [loss, '*_seconds']}")
    tensors = {"w": torch.ones(2)}
    numbers = {"loss": 1.0, "data_seconds": 2.0, "accuracy": 0.9, "secret": 4.0}
    reply = Reply("silo-1", "train", 1, Update(tensors, numbers, 7.0, True))
    mine_law = law(mine)
    got = Reply.parse(mine_law.outgoing(Reply.parse(reply.pack())).pack())
    assert got.update.numbers == {"loss": 1.0, "data_seconds": 2.0}
    assert torch.equal(got.update.tensors["w"], tensors["w"])
    assert (got.update.weight, got.update.remembered, got.round) == (7.0, True, 1)
    mine_law.outgoing(reply)  # said once in a run, not in every round
    assert [line["reason"].split()[0] for line in logged(mine)] == ["accuracy", "secret"]


def test_what_training_reports_may_leave_by_default(tmp_path: Path) -> None:
    numbers = Fit(1, 1.0, 1, 1, 1.0, {"data": 1.0, "forward": 2.0}, 1.0, 1.0).numbers()
    reply = Reply("silo-1", "train", 1, Update({}, numbers))
    assert law(silo(tmp_path / "a")).outgoing(reply) == reply


def test_the_text_of_an_error_stays_here_unless_it_may_leave(tmp_path: Path) -> None:
    """A sentence about a row quotes the row."""
    reply = Reply("silo-1", "train", 1, error="row 3 has no number in its answer 'my diagnosis'")
    mine = silo(tmp_path / "a")
    assert law(mine).outgoing(reply).error == WITHHELD
    assert "my diagnosis" in logged(mine)[0]["reason"]
    mine_law = law(mine)
    refused = Reply("silo-1", "train", 1, error=str(mine_law.refused("it has too many rounds")))
    assert mine_law.outgoing(refused) == refused  # its own words have no rows in them
    open_one = silo(tmp_path / "b", "{reasons: true}")
    assert law(open_one).outgoing(reply) == reply


def test_the_log_does_not_grow_without_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("hanse.silo.law.LARGEST", 1000)
    mine = silo(tmp_path / "a")
    for number in range(100):
        law(mine).note("refused", f"reason {number}")
    files = sorted(mine.state.glob("refusals*"))
    assert [file.name for file in files] == ["refusals.1.jsonl", "refusals.jsonl"]
    assert all(file.stat().st_size < 1200 for file in files)
    assert logged(mine)[-1]["reason"] == "reason 99"
