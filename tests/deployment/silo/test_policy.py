"""A silo's law: what a hostile server asks for, and gets from a silo without it, is refused."""

import json
import os
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any, Literal

import pytest
import torch

from hanse import registry
from hanse.data.tokenization.prompt_template import parse
from hanse.deployment.silo.activity import DAY
from hanse.deployment.silo.enforcement import WITHHELD, PolicyEnforcer
from hanse.deployment.silo.job import LARGEST, JobRefusedError, RowCounts, received
from hanse.deployment.silo.policy import ROW_SETTINGS, Policy
from hanse.deployment.silo.refusals import row_refusals
from hanse.deployment.silo.server_texts import takes_text
from hanse.deployment.silo.settings import SiloSettings
from hanse.errors import UserError
from hanse.experiment.loading import load
from hanse.experiment.schema import Experiment
from hanse.federation.interfaces.results import TrainResult
from hanse.federation.messages import Instruction, Reply, Request, Update
from hanse.journal.yaml_text import dump
from hanse.learners.models.model_hash import model_hash
from hanse.security import trusted_code
from policy_checks import OWN, check, refusals, silo
from samples import ROOT

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


def law(mine: SiloSettings, run: str = "run-1") -> PolicyEnforcer:
    return PolicyEnforcer(mine.name, mine.policy, run, mine.state)


def logged(mine: SiloSettings) -> list[dict[str, Any]]:
    log = mine.state / "refusals.jsonl"
    return [json.loads(line) for line in log.read_text().splitlines()]


def refuse(mine: SiloSettings, told: dict[str, Any], **asked: Any) -> str:
    """What a silo's law says to a job."""
    job = received(dump(told), mine)
    with pytest.raises(JobRefusedError) as caught:
        check(law(mine), replace(job, **asked), "0" * 64, RowCounts(100, 10))
    assert logged(mine)[-1]["what"] == "refused" and str(caught.value) in logged(mine)[-1]["reason"]
    return str(caught.value)


def test_an_ordinary_job_is_taken(tmp_path: Path, told: dict[str, Any], tiny_llama: Path) -> None:
    mine = silo(tmp_path / "a", f"{{models: [{model_hash(tiny_llama)}], max_rounds: 3}}")
    job = received(dump(told), mine)
    check(law(mine), job, model_hash(tiny_llama), RowCounts(100, 10))
    assert job.cohort == 3 and not (mine.state / "refusals.jsonl").exists()


def test_the_silos_own_settings_win(tmp_path: Path, told: dict[str, Any]) -> None:
    told["data"]["path"] = "/etc/passwd"
    told["data"]["filter"] = {"text": "a film"}
    told["clients"] = {"silo-1": {"train": {"max_steps": 2}, "data": {"template": "{text}!"}}}
    mine = silo(tmp_path / "a", more="model: own.jsonl\n", data=f"{OWN}, filter: {{label: good}}")
    got = received(dump(told), mine).experiment
    assert got.data.path == str(tmp_path / "a" / "own.jsonl")
    assert got.model.model_name_or_path == str(tmp_path / "a" / "own.jsonl")
    assert (got.train.max_steps, got.data.template) == (2, told["data"]["template"])
    assert got.data.filter == {"label": "good"}  # replaced, not added to
    assert got.train.learning_rate == 0.01 and got.seed == 0


@pytest.mark.parametrize(
    "place", ["algorithm", "aggregator", "objective", "task", "partition", "client"]
)
def test_code_that_a_server_names_is_not_run(
    tmp_path: Path, told: dict[str, Any], place: str
) -> None:
    marker, evil = tmp_path / "marker", tmp_path / "evil.py"
    role = place if place in ("aggregator", "task") else "algorithm"
    base = role.title()
    evil.write_text(
        SPY.format(module=f"federation.interfaces.{role}", base=base, marker=str(marker))
    )
    name = f"{evil}:Mine"
    if place == "task":
        told["evaluation"]["tasks"] = [name]
    elif place == "partition":
        told["data"]["partition"] = {name: {}}
    elif place == "client":
        told["clients"] = {"silo-1": {"algorithm": {name: {}}, "data": {"partition": {name: {}}}}}
    else:
        told[place] = {name: {}}
    # Without the law, and trusted, it runs, and then is no whole part.
    with trusted_code.granting(), pytest.raises(UserError):
        registry.build("federation/algorithms", name)
    assert marker.exists()
    marker.unlink()
    if place == "client":  # no client may have other parts, so this is only left out
        received(dump(told), silo(tmp_path / "a"))
    else:
        with pytest.raises(JobRefusedError, match="runs no code that a server names"):
            received(dump(told), silo(tmp_path / "a"))
    assert not marker.exists()


def test_what_only_the_server_builds_is_left_out(tmp_path: Path, told: dict[str, Any]) -> None:
    marker, evil = tmp_path / "marker", tmp_path / "evil.py"
    evil.write_text(
        SPY.format(module="federation.interfaces.algorithm", base="Algorithm", marker=str(marker))
    )
    told["report_to"] = [f"{evil}:Mine"]
    job = received(dump(told), silo(tmp_path / "a"))
    assert not marker.exists() and job.experiment.report_to == []


def test_what_is_checked_is_what_is_run(tmp_path: Path, told: dict[str, Any]) -> None:
    """The share of divided rows follows from the whole, in which nothing else may differ."""
    told["clients"] = {
        "silo-1": {"train": {"max_steps": 2}, "rounds": 9, "data": {"partition": "shard"}},
        "silo-2": {"train": {"max_steps": 99}},
    }
    job = received(dump(told), silo(tmp_path / "a"))
    assert job.experiment.for_client("silo-1") is job.experiment
    assert job.experiment.clients == {}
    assert job.experiment.data.partition == told["data"]["partition"]
    assert (job.experiment.rounds, job.experiment.train.max_steps) == (3, 2)


def test_rows_of_ones_own(tmp_path: Path, told: dict[str, Any]) -> None:
    told["clients"] = {
        name: {"data": {"path": f"/secret/{name}"}, "train": {"max_steps": len(name)}}
        for name in ("silo-1", "north")
    }
    job = received(dump(told), silo(tmp_path / "a"))
    assert job.cohort == 2 and job.experiment.client_names == ["silo-1"]
    assert job.experiment.data.path == str(tmp_path / "a" / "own.jsonl")
    assert job.experiment.train.max_steps == len("silo-1")


def test_who_is_no_client_takes_no_part(tmp_path: Path, told: dict[str, Any]) -> None:
    told["participants"] = ["silo-2", "silo-3"]
    with pytest.raises(JobRefusedError, match="has no client silo-1"):
        received(dump(told), silo(tmp_path / "a"))


def test_rows_that_nobody_scores_may_be_few(experiment_file: Path) -> None:
    rows, policy = RowCounts(100, 3), Policy(max_batch_size=64)
    for rule, refused in (("mean", True), (f"{ROOT}/tests/parts/plain_rules.py:Sums", False)):
        words = [f"aggregator={rule}", "evaluation.tasks=[{classification: {batch_size: 500}}]"]
        text = "; ".join(row_refusals(policy, load(experiment_file, words), rows))
        assert ("score fewer held-out rows" in text, "500 examples in a batch" in text) == (
            refused,
            refused,
        )


def test_silos_that_share_a_file_hold_out_alike(tmp_path: Path, told: dict[str, Any]) -> None:
    mine = silo(tmp_path / "a")
    rows = mine.data.model_copy(update={"client_test": 0.5})
    with pytest.raises(JobRefusedError, match="which hold out alike"):
        received(dump(told), mine.model_copy(update={"data": rows}))


def test_an_outside_part_that_the_policy_names_is_the_silos_own(
    tmp_path: Path, told: dict[str, Any]
) -> None:
    marker, evil = tmp_path / "marker", tmp_path / "mine.py"
    evil.write_text(
        SPY.format(module="federation.algorithms.fedavg", base="FedAvg", marker=str(marker))
    )
    (tmp_path / "a").mkdir()
    own = evil.read_text().replace(str(marker), str(tmp_path / "own-marker"))
    (tmp_path / "a" / "mine.py").write_text(own)
    told["algorithm"] = {f"{evil}:Mine": {}}
    mine = silo(tmp_path / "a", "{algorithms: ['mine.py:Mine']}")
    job = received(dump(told), mine)
    assert job.experiment.algorithm == {f"{tmp_path / 'a' / 'mine.py'}:Mine": {}}
    assert (tmp_path / "own-marker").exists() and not marker.exists()
    assert list(refusals(mine.policy, job, "0" * 64, RowCounts(100, 10))) == []
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
            "{max_examples: 80, max_batch_size: 1000}",
            {"train.per_device_train_batch_size": 1000},
            "3,000 examples in a round, more than 80",
        ),
        ("{algorithms: [fedprox]}", {}, "the algorithm fedavg is not among fedprox"),
        (
            "{metrics: [loss]}",
            {"algorithm": "fednova"},
            "the algorithm fednova needs the number sum_a of each update",
        ),
        ("{objectives: [sft]}", {}, "the objective classify is not among sft"),
        ("{aggregators: [secagg]}", {}, "the aggregator mean is not among secagg"),
        (
            "{compression: [identity]}",
            {"compression.upload": [{"identity": {}}, {"bf16": {}}]},
            "the compression.upload bf16 is not among identity",
        ),
        (
            "{compression: [identity]}",
            {"compression.download": ["bf16"]},
            "the compression.download bf16 is not among identity",
        ),
        ("{adapters: [ia3]}", {}, "the adapter lora is not among ia3"),
        (
            "{adapters: [ia3]}",
            {"algorithm": "fedkseed", "adapter": "none"},
            "the adapter none is not among ia3",
        ),
        ("{}", {"adapter": {"from": "/home"}}, "a folder of this machine that the server names"),
        ("{min_cohort: 4}", {}, "3 silos train in a round, and it asks for 4"),
        ("{}", {"participants": ["silo-1"]}, "1 silos train in a round, and it asks for 2"),
        ("{}", {"fraction_train": 0.1}, "1 silos train in a round, and it asks for 2"),
        ("{}", {"data.pooled": True}, "1 silos train in a round, and it asks for 2"),
        ("{privacy: {epsilon: 8, clip: 1}}", {}, "it asks for differential privacy (ε ≤ 8"),
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
        "{min_cohort: 1, tasks: [classification, generation], adapters: [lora, from, in_place], "
        "max_batch_size: 1000}",
    )
    job = received(dump(told), unbound)  # another silo takes the same job
    assert list(refusals(unbound.policy, job, "0" * 64, RowCounts(100, 10))) == []
    assert said in refuse(silo(tmp_path / "a", policy), told)


def test_all_reasons_are_said_at_once(tmp_path: Path, told: dict[str, Any]) -> None:
    said = refuse(silo(tmp_path / "a", "{max_rounds: 1, algorithms: [fedprox]}"), told)
    assert "fedavg" in said and "3 rounds" in said


def test_a_model_that_is_not_here_is_refused(tmp_path: Path, told: dict[str, Any]) -> None:
    told["model"]["model_name_or_path"] = "someone/something"
    mine = silo(tmp_path / "a")
    with pytest.raises(JobRefusedError, match="'someone/something' is not on its machine"):
        check(law(mine), received(dump(told), mine), None, RowCounts(100, 10))


def test_generated_answers_on_the_servers_own_rows_are_its_business(
    tmp_path: Path, told: dict[str, Any]
) -> None:
    told |= {"objective": "sft"}
    told["evaluation"]["tasks"] = ["perplexity", "generation"]
    mine = silo(tmp_path / "a")
    assert (
        list(refusals(mine.policy, received(dump(told), mine), "0" * 64, RowCounts(100, 10))) == []
    )


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "holds no settings"),
        ("[1, 2]", "holds no settings"),
        ("rounds: [", "is not valid YAML"),
        ("rounds: 3\nrounds: 4", "is given twice"),
        ("a: &a [1]\nb: [*a, *a]", "has YAML aliases"),
        ("rounds: !!python/object/apply:os.system ['true']", "is not valid YAML"),
        ("[" * LARGEST, "nested more than 100 deep"),
        ("- " * (LARGEST // 2), "nested more than 100 deep"),
        ("{a: " * (LARGEST // 4), "nested more than 100 deep"),
        ("x" * (LARGEST + 1), "characters, more than"),
        ("round: 3", "there is no setting 'round' (did you mean 'rounds'?)"),
        ("rounds: -1", "rounds is -1"),
        ("algorithm: fedavgg", "names 'fedavgg', which this hanse does not have"),
        ("algorithm: ../fedavg", "which this hanse does not have"),
        ("algorithm: {fedavg: {a: 1}}", "fedavg has no setting 'a'"),
        ("algorithm: {a: {}, b: {}}", "but there are 2"),
        ("clients: {silo-1: {train: {max_steps: -1}}}", "max_steps"),
        ("clients: {silo-1: {model: 7}}", "model"),
    ],
)
def test_a_text_that_is_no_job(tmp_path: Path, text: str, said: str) -> None:
    with pytest.raises(JobRefusedError) as caught:
        received(text, silo(tmp_path / "a"))
    assert "the server's experiment" in str(caught.value) and said in str(caught.value)


def test_rounds_beyond_the_job_are_refused(tmp_path: Path) -> None:
    mine = silo(tmp_path / "a")
    law(mine).admit(Request("train", 3), rounds=3)
    with pytest.raises(JobRefusedError, match="refuses round 4: the job has 3 rounds"):
        law(mine).admit(Request("train", 4), rounds=3)


def test_a_round_is_trained_from_a_few_models_even_after_restarts(tmp_path: Path) -> None:
    """Else a job of one round could go on forever, each time with another model to probe with."""

    def asking(value: float, kind: str = "train") -> Request:
        return Request(kind, 1, instruction=Instruction({"w": torch.tensor([value])}))

    mine = silo(tmp_path / "a")
    for model in (1.0, 2.0, 3.0):
        law(mine).admit(asking(model), rounds=3)
    with pytest.raises(
        JobRefusedError, match=r"refuses to train in round 1 once more.*max_tries 3"
    ):
        law(mine).admit(asking(4.0), rounds=3)
    for _ in range(4):  # a server that was killed again and again
        law(mine).admit(asking(3.0), rounds=3)
    law(mine).admit(asking(4.0, "evaluate"), rounds=3)


def test_a_round_with_phases_may_be_repeated(tmp_path: Path) -> None:
    """A paused round is asked again with other keys and shares, but with the same model."""
    mine = silo(tmp_path / "a", "{max_tries: 1, max_requests_per_day: 12}")

    def asking(number: int, kind: str) -> Request:
        keys = Instruction({"keys": torch.tensor([number])})
        model = Instruction({"w": torch.ones(1)})
        if kind == "train":
            return Request(kind, 1, instruction=model, aggregator_note=keys)
        return Request(kind, 1, instruction=keys)

    for number in range(6):
        for kind in ("shares", "train"):
            law(mine).admit(asking(number, kind), rounds=3)
    for kind in ("shares", "train"):
        law(mine).admit(asking(5, kind), rounds=3)
        with pytest.raises(JobRefusedError, match="12 requests came in the last 24 hours"):
            law(mine).admit(asking(6, kind), rounds=3)


def test_counts_that_cannot_be_read_are_not_begun_anew(tmp_path: Path) -> None:
    mine = silo(tmp_path / "a")
    law(mine).admit(Request("train", 1), rounds=3)
    next(mine.state.glob("asked-*.json")).write_text("{")
    with pytest.raises(UserError, match="the record of what this silo"):
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
    assert (got.update.weight, got.update.keeps_memory, got.round) == (7.0, True, 1)
    mine_law.outgoing(reply)  # said once in a run, not in every round
    assert [line["reason"].split()[0] for line in logged(mine)] == ["accuracy", "secret"]


def test_what_training_reports_may_leave_by_default(tmp_path: Path) -> None:
    spent = {"data": 1.0, "forward": 2.0}
    numbers = TrainResult(1, 1.0, 10, 10, 1.0, spent, 1.0, 1.0, joules=5.0).numbers()
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
    open_one = silo(tmp_path / "b", "{share_error_texts: true}")
    assert law(open_one).outgoing(reply) == reply


def test_the_log_does_not_grow_without_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("hanse.deployment.silo.enforcement.LARGEST", 1000)
    mine = silo(tmp_path / "a")
    for number in range(100):
        law(mine).note("refused", f"reason {number}")
    files = sorted(mine.state.glob("refusals*"))
    assert [file.name for file in files] == ["refusals.1.jsonl", "refusals.jsonl"]
    assert all(file.stat().st_size < 1200 for file in files)
    assert logged(mine)[-1]["reason"] == "reason 99"


@pytest.mark.parametrize(
    ("setting", "value"),
    [
        ("filter", {"text": "a film"}),  # asks whether this person is among the rows
        ("columns", {"text": "surname"}),
        ("template", "Does it say {text}?"),
        ("system", "drop"),
        ("encoding", "cp1251"),
        ("skip_invalid", True),
        ("labels", {"good": "yes", "bad": "no"}),
    ],
)
@pytest.mark.parametrize("place", ["top", "client"])
def test_a_server_cannot_query_private_rows(
    tmp_path: Path, told: dict[str, Any], setting: str, value: Any, place: str
) -> None:
    """By a filter and the count of rows, a server could read one attribute of one person."""
    if place == "top":
        told["data"][setting] = value
    else:
        told["clients"] = {
            name: {
                "data": {"path": name, setting: dict(value) if isinstance(value, dict) else value}
            }
            for name in ("silo-1", "north")
        }
    if (setting, place) == ("labels", "client"):  # no client may have others; it is left out
        assert received(dump(told), silo(tmp_path / "a")).experiment.data.labels == {}
        return
    data = "" if setting == "template" else OWN
    with pytest.raises(JobRefusedError, match=f"takes the settings of its rows.*{setting}: "):
        received(dump(told), silo(tmp_path / "a", data=data))
    allowed = silo(tmp_path / "b", f"{{data_settings: [{setting}]}}", data=data)
    assert getattr(received(dump(told), allowed).experiment.data, setting) == value


def test_every_setting_of_rows_is_asked_for_in_that_test() -> None:
    [marks] = [
        mark
        for mark in test_a_server_cannot_query_private_rows.pytestmark  # type: ignore[attr-defined]
        if mark.args[0] == ("setting", "value")
    ]
    assert {setting for setting, _ in marks.args[1]} == {*ROW_SETTINGS}


def test_the_answers_that_are_learned_are_those_of_the_experiment(
    tmp_path: Path, told: dict[str, Any]
) -> None:
    told["data"]["mask_history"] = True
    assert received(dump(told), silo(tmp_path / "a")).experiment.data.mask_history


def test_label_words_are_those_of_the_federation(tmp_path: Path, told: dict[str, Any]) -> None:
    told["data"]["labels"] = {"good": "positive", "bad": "negative"}
    own = f"{OWN}, labels: {{gut: positive, schlecht: negative}}"
    job = received(dump(told), silo(tmp_path / "a", data=own))
    assert job.experiment.data.labels == {"gut": "positive", "schlecht": "negative"}
    other = f"{OWN}, labels: {{schlecht: negative, gut: positive}}"
    with pytest.raises(
        JobRefusedError, match=r"other label words .* positive, negative in this order"
    ):
        received(dump(told), silo(tmp_path / "a", data=other))


FORBIDDEN: dict[str, Any] = {
    "model": {"model_name_or_path": "forbidden/model", "max_length": 99, "quantization": "nf4"},
    "adapter": {"from": "/home/private/adapter"},
    "train": {"max_steps": 999, "per_device_train_batch_size": 99},
    "data": {"client_test": 0.77, "template": "{text}?"},
}


@pytest.mark.parametrize("section", FORBIDDEN)
@pytest.mark.parametrize("own_rows", [True, False])
def test_the_experiment_that_is_judged_is_the_one_that_runs(
    tmp_path: Path, told: dict[str, Any], section: str, own_rows: bool
) -> None:
    """Forbidden settings at the top, and allowed ones for this client, are not two experiments."""
    allowed = {key: told[section][key] for key in FORBIDDEN[section] if key in told[section]}
    if section == "adapter":
        allowed = told["adapter"]
    told[section] = (
        FORBIDDEN[section] if section == "adapter" else told[section] | FORBIDDEN[section]
    )
    told["clients"] = {"silo-1": {section: dict(allowed)}}
    if own_rows:
        told["clients"] = {
            name: {**own, "data": {**own.get("data", {}), "path": name}}
            for name, own in [*told["clients"].items(), ("north", {})]
        }
    experiment = received(dump(told), silo(tmp_path / "a")).experiment
    for key in set(Experiment.model_fields) - {"clients", "participants"}:
        assert getattr(experiment, key) == getattr(experiment.for_client("silo-1"), key)
    assert "forbidden" not in dump(experiment.resolved())
    assert "private" not in dump(experiment.resolved())


@pytest.mark.parametrize(
    ("place", "part", "said"),
    [
        ("data.partition", {"cluster": {"encoder": "someone/encoder"}}, "encoder came as 'someone"),
        (
            "adapter",
            {"peft": {"method": "prompt_tuning", "settings": {"tokenizer_name_or_path": "a/b"}}},
            "came as {'tokenizer_name_or_path': 'a/b'}; a server may give switches, numbers",
        ),
        (
            "adapter",
            {"peft": {"method": "lora", "settings": {"rank_pattern": {"(a+)+$": 8}}}},
            "rank_pattern",
        ),
        ("adapter", {"peft": {"method": "loha", "settings": {"r": 10**6}}}, "numbers up to 4,096"),
        ("adapter", {"lora": {"target_modules": "(a|a)*b"}}, "target_modules came as '(a|a)*b'"),
        ("adapter", {"lora": {"target_modules": ["../x/y"]}}, "target_modules"),
        ("adapter", {"lora": {"rank_pattern": {"(a+)+$": 8}}}, "rank_pattern.(a+)+$"),
        ("adapter", {"lora": {"rank_pattern": {"q_proj": 10**6}}}, "65536"),
        ("adapter", {"lora": {"rank_pattern": {f"m{i}": 1 for i in range(1001)}}}, "at most 1000"),
        ("algorithm", {"fedper": {"share": ["(a+)+$"]}}, "share came as"),
        ("algorithm", {"fedper": {"share": ["a*a*a*b"]}}, "at most two repetitions"),
        ("algorithm", {"fedper": {"share": [".?" * 40 + "#"]}}, "at most two repetitions"),
        ("adapter", {"prompt_tuning": {"num_virtual_tokens": 10**9}}, "4096"),
        ("adapter", {"prefix_tuning": {"num_virtual_tokens": 10**9}}, "4096"),
        ("adapter", {"p_tuning": {"encoder_hidden_size": 10**6}}, "16384"),
    ],
)
def test_text_that_a_server_may_not_give(
    tmp_path: Path, told: dict[str, Any], place: str, part: dict[str, Any], said: str
) -> None:
    section, _, key = place.rpartition(".")
    (told[section] if section else told)[key] = part
    with pytest.raises(JobRefusedError) as caught:
        received(dump(told), silo(tmp_path / "a"))
    assert said in str(caught.value)


@pytest.mark.parametrize(
    ("place", "part"),
    [
        ("adapter", {"lora": {"target_modules": ["q_proj", "self_attn.v_proj"]}}),
        ("adapter", {"lora": {"target_modules": "all-linear"}}),
        ("adapter", {"lora": {"rank_pattern": {"q_proj": 4, "layers.1.mlp.up_proj": 2}}}),
        ("adapter", {"vera": {"r": 64, "target_modules": ["q_proj"], "vera_dropout": 0.1}}),
        ("algorithm", {"fedper": {"share": [r"layers\.2\d\.", r"layers\.\d+\.mlp"]}}),
        ("data.partition", {"natural_id": {"partition_by": "the ward's name"}}),
    ],
)
def test_text_that_a_server_may_give(
    tmp_path: Path, told: dict[str, Any], place: str, part: dict[str, Any]
) -> None:
    section, _, key = place.rpartition(".")
    (told[section] if section else told)[key] = part
    received(dump(told), silo(tmp_path / "a"))


def test_a_part_that_marks_nothing_takes_no_text_from_a_server() -> None:
    closed = [str, Any, list[str], dict[str, int], str | None, Path, Annotated[str, "a"], None]
    assert all(map(takes_text, closed))
    free = [int, bool, float | None, Literal["a", "b"], tuple[int, ...], Annotated[int, "a"]]
    assert not any(map(takes_text, free))


@pytest.mark.parametrize(
    "template",
    ["{text}{text:>3000000000}", "{text:>3000000000}", "{text!r}", "{text.__class__}", "{a[0]}"],
)
def test_a_template_cannot_ask_for_memory_or_for_attributes(
    tmp_path: Path, told: dict[str, Any], template: str
) -> None:
    with pytest.raises(UserError, match=r"write \{text\} exactly once|has no \{text\}"):
        mine = silo(tmp_path / "a", data=f"template: {json.dumps(template)}")
        told["data"]["template"] = template
        parse(received(dump(told), mine).experiment.data.template)


@pytest.mark.parametrize(
    ("rows", "said"),
    [
        (RowCounts(1, 50), "would train on fewer rows than policy.min_examples, which is 10"),
        (RowCounts(50, 2), "would score fewer held-out rows than policy.min_examples"),
        (RowCounts(10, 0), None),
        (RowCounts(10, 10), None),
    ],
)
def test_few_rows_are_neither_trained_on_nor_scored(
    tmp_path: Path, told: dict[str, Any], rows: RowCounts, said: str | None
) -> None:
    """An update of one row, or the accuracy on two, tells of these rows."""
    mine = silo(tmp_path / "a")
    reasons = list(refusals(mine.policy, received(dump(told), mine), "0" * 64, rows))
    assert [said in reason for reason in reasons] == [True] * bool(said)


def test_a_batch_that_memory_could_not_hold(tmp_path: Path, told: dict[str, Any]) -> None:
    told["train"]["per_device_train_batch_size"] = 1000
    assert "1,000 examples in a batch, more than 256" in refuse(silo(tmp_path / "a"), told)


def test_counts_leave_rounded(tmp_path: Path) -> None:
    numbers = {"examples": 113.0, "tokens": 4.0, "steps": 7.0}
    trained = Reply("silo-1", "train", 1, Update({}, numbers, 110.0))
    scored = Reply("silo-1", "evaluate", 1, Update({}, {}, 17.0))
    mine = law(silo(tmp_path / "a"))
    told = mine.outgoing(trained).update
    assert told.numbers == {"examples": 110.0, "tokens": 10.0, "steps": 7.0}
    assert (told.weight, mine.outgoing(scored).update.weight) == (110.0, 20.0)
    exact = law(silo(tmp_path / "b", "{count_rounding: 1}"))
    assert exact.outgoing(trained) == trained and exact.outgoing(scored) == scored


def test_a_new_name_of_the_run_frees_no_limit(tmp_path: Path) -> None:
    """By renaming its run, a server had eight models trained where one was allowed."""
    mine = silo(tmp_path / "a", "{max_runs_per_day: 2, max_requests_per_day: 3}")
    now = [1e9]

    def other(run: str) -> PolicyEnforcer:
        return PolicyEnforcer(mine.name, mine.policy, run, mine.state, lambda: now[0])

    for run in ("a", "b", "a"):
        other(run).begin("rounds: 3")
    with pytest.raises(JobRefusedError, match="2 others began in the last 24 hours"):
        other("c").begin("rounds: 3")
    with pytest.raises(JobRefusedError, match="max_runs_per_day"):
        other("a").begin("rounds: 4")  # the same name with other settings is another job
    for round in (1, 2, 3):
        other("a").admit(Request("train", round), rounds=9)
    with pytest.raises(JobRefusedError, match="3 requests came in the last 24 hours"):
        other("b").admit(Request("evaluate", 1), rounds=9)
    now[0] += DAY + 1
    other("c").begin("rounds: 3")
    other("b").admit(Request("evaluate", 1), rounds=9)


def test_what_is_kept_of_old_runs_is_removed(tmp_path: Path) -> None:
    mine = silo(tmp_path / "a")
    for number in range(40):
        (mine.state / "runs" / f"run{number}").mkdir(parents=True)
        for folder in (mine.state / "runs" / f"run{number}",):
            os.utime(folder, (number, number))
    PolicyEnforcer(mine.name, mine.policy, "run3", mine.state).begin("rounds: 3")
    left = {folder.name for folder in (mine.state / "runs").iterdir()}
    assert left == {"run3", *(f"run{number}" for number in range(20, 40))}


def test_an_algorithm_needs_numbers_that_the_policy_holds_back(
    tmp_path: Path, told: dict[str, Any]
) -> None:
    """Each update without them is refused by the server: better no job than all of its rounds."""
    told["algorithm"] = {"fednova": {}}
    said = refuse(silo(tmp_path / "a", "{metrics: [loss]}"), told)
    assert "fednova needs the number sum_a of each update, which policy.metrics does not" in said
    free = silo(tmp_path / "b")
    job = received(dump(told), free)
    assert list(refusals(free.policy, job, "0" * 64, RowCounts(100, 10))) == []


@pytest.mark.parametrize("section", ["model", "train", "data"])
def test_a_section_of_this_client_that_is_none(
    tmp_path: Path, told: dict[str, Any], section: str
) -> None:
    told["clients"] = {"silo-1": {section: "text"}}
    with pytest.raises(
        JobRefusedError, match=f"clients.silo-1.{section} 'text', which is no section"
    ):
        received(dump(told), silo(tmp_path / "a", more="model: own.jsonl\n"))


def test_a_refusal_does_not_tell_how_many_rows_there_are(
    tmp_path: Path, told: dict[str, Any]
) -> None:
    """One example a step, and a pass over all: its steps are the rows, and so is a limit met."""
    told["train"] |= {"max_steps": None, "num_train_epochs": 1, "per_device_train_batch_size": 1}
    said = set()
    for rows in (61, 67):
        mine = silo(tmp_path / str(rows), "{max_steps: 64}")
        with pytest.raises(JobRefusedError) as caught:
            check(law(mine), received(dump(told), mine), "0" * 64, RowCounts(rows, 10))
        said.add(str(caught.value))
    assert len(said) == 1 and "it has 70 steps in a round, more than 64" in said.pop()
    exact = silo(tmp_path / "exact", "{max_steps: 64, count_rounding: 1}")
    check(law(exact), received(dump(told), exact), "0" * 64, RowCounts(61, 10))


def test_rows_are_scored_in_batches_that_the_policy_allows(
    tmp_path: Path, told: dict[str, Any]
) -> None:
    told["evaluation"]["tasks"] = [{"classification": {"batch_size": 10**9}}]
    assert "1,000,000,000 examples in a batch of a task, more than 256" in refuse(
        silo(tmp_path / "home"), told
    )


@pytest.mark.parametrize(
    ("settings", "name", "allowed"),
    [
        ({}, "loss", True),
        ({}, "forward_seconds", True),
        ({}, "auc", True),
        ({}, "f1", False),  # of the task tagging, which is not allowed
        ({"tasks": ("tagging",)}, "f1", True),
        ({"tasks": ("tagging",)}, "auc", False),
        ({"metrics": ("steps",)}, "loss", False),
    ],
)
def test_numbers_of_training_and_of_allowed_tasks_may_leave(
    settings: dict[str, Any], name: str, allowed: bool
) -> None:
    assert Policy(**settings).allows_number(name) == allowed
