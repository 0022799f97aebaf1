"""Every choice of a run: what loads means what was written, and what does not load says why."""

import re
from pathlib import Path

import pytest

from hanse.errors import UserError
from hanse.experiment.loading import load
from hanse.experiment.schema import build_algorithm, build_partitioner, build_tasks
from hanse.federation.algorithms.fedprox import FedProx
from hanse.journal.yaml_text import dump
from samples import ROOT

QUICKSTART = ROOT / "experiments" / "quickstart.yaml"

SMALL = """\
rounds: 2
num_clients: 3
data:
  path: movie-reviews
  partition: {dirichlet: {alpha: 1.0}}
objective: classify
train: {max_steps: 4}
"""


def written(home: Path, text: str) -> Path:
    """A file with this experiment."""
    (home / "small.yaml").write_text(text)
    return home / "small.yaml"


@pytest.mark.parametrize("file", sorted(QUICKSTART.parent.glob("*.yaml")), ids=lambda f: f.stem)
def test_every_published_experiment_loads(file: Path) -> None:
    assert load(file).output_dir is None  # so that a second run does not meet the first
    assert re.match(rf"# hanse \w+ experiments/{file.name}\n", file.read_text())


@pytest.mark.parametrize(
    "words",
    [
        [],
        ["algorithm.fedprox.mu=0.1", "seed=7", "train.learning_rate=1e-5", "model.bf16=false"],
        ["clients.silo-2.train.max_steps=9", "clients.silo-2.adapter.lora.lora_dropout=0.1"],
        ["algorithm.fedopt.optimizer=yogi", "data.labels={0: neg, 1: pos}", "output_dir=there"],
        ["adapter.from=/some/run", "data.test=0.25", "evaluation.tasks=[classification]"],
        ["train.max_steps=null", "train.num_train_epochs=0.5", "fraction_train=0.1"],
        ["adapter.lora.target_modules=[q_proj, v_proj]"],
    ],
)
def test_the_resolved_experiment_loads_as_the_same(tmp_path: Path, words: list[str]) -> None:
    first = load(written(tmp_path, SMALL), words)
    (tmp_path / "other").mkdir()
    again = tmp_path / "other" / "resolved.yaml"
    again.write_text(dump(first.resolved()))
    second = load(again)
    assert dump(second.resolved()) == dump(first.resolved())
    assert second.model_dump(exclude={"algorithm", "aggregator", "objective", "data"}) == (
        first.model_dump(exclude={"algorithm", "aggregator", "objective", "data"})
    )
    assert build_algorithm(second) == build_algorithm(first)
    assert build_partitioner(second) == build_partitioner(first)


def test_defaults_are_written_out(tmp_path: Path) -> None:
    values = load(written(tmp_path, "{rounds: 1}")).resolved()
    assert values["name"] == "small" and values["algorithm"] == {"fedavg": {}}
    assert values["adapter"]["lora"]["r"] == 8 and values["train"]["learning_rate"] == 1e-3


def test_an_override_turns_fedavg_into_fedprox(tmp_path: Path) -> None:
    file = written(tmp_path, SMALL + "algorithm: fedavg\n")
    assert build_algorithm(load(file, ["algorithm.fedprox.mu=0.1"])) == FedProx(mu=0.1)


def test_tasks_follow_the_objective(tmp_path: Path) -> None:
    assert list(build_tasks(load(written(tmp_path, SMALL)))) == ["classification"]
    assert list(build_tasks(load(written(tmp_path, SMALL), ["objective=sft"]))) == ["perplexity"]


def test_one_client_may_differ(tmp_path: Path) -> None:
    more = (
        "clients: {silo-2: {train: {learning_rate: 0.5}, adapter: {lora: {lora_dropout: 0.2}}}}\n"
    )
    experiment = load(written(tmp_path, SMALL + more))
    own, other = experiment.for_client("silo-2"), experiment.for_client("silo-1")
    assert own.train.learning_rate == 0.5 and own.train.max_steps == 4
    assert own.adapter.lora is not None and own.adapter.lora.r == 8
    assert own.adapter.lora.lora_dropout == 0.2
    assert other.train.learning_rate == 1e-3 and other == experiment


def test_clients_have_names_that_sort(tmp_path: Path) -> None:
    names = load(written(tmp_path, SMALL), ["num_clients=12"]).client_names
    assert names == sorted(names) and names[0] == "silo-01" and len(set(names)) == 12


def test_clients_may_bring_their_own_files(tmp_path: Path) -> None:
    for name in ("lübeck", "bremen"):
        (tmp_path / f"{name}.jsonl").touch()
    more = "clients: {lübeck: {data: {path: lübeck.jsonl}}, bremen: {data: {path: bremen.jsonl}}}\n"
    experiment = load(written(tmp_path, SMALL + more))
    assert experiment.brings_own_data and experiment.client_names == ["bremen", "lübeck"]
    assert experiment.for_client("lübeck").data.path == str(tmp_path / "lübeck.jsonl")


def test_files_are_found_beside_the_experiment(tmp_path: Path) -> None:
    (tmp_path / "rows.jsonl").touch()
    experiment = load(written(tmp_path, SMALL), ["data.path=rows.jsonl"])
    assert experiment.data.path == str(tmp_path / "rows.jsonl")
    assert load(written(tmp_path, SMALL)).data.path == "movie-reviews"


def test_a_file_beside_the_experiment_comes_before_one_in_the_current_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    here = tmp_path / "here"
    here.mkdir()
    for folder in (tmp_path, here):
        (folder / "rows.jsonl").touch()
        (folder / "test.jsonl").touch()
    (here / "other.jsonl").touch()
    monkeypatch.chdir(here)
    text = SMALL.replace("path: movie-reviews", "path: rows.jsonl\n  validation: other.jsonl")
    assert text != SMALL
    experiment = load(written(tmp_path, text), ["data.test=test.jsonl"])
    assert experiment.data.path == str(tmp_path / "rows.jsonl")
    assert experiment.data.validation == str(here / "other.jsonl"), "there is no other"
    assert experiment.data.test == str(here / "test.jsonl"), "typed in this folder"
    assert [record.getMessage() for record in caplog.records] == [
        f"rows.jsonl is {tmp_path / 'rows.jsonl'}, not {here / 'rows.jsonl'}; write the full path "
        "to use that",
        f"test.jsonl is {here / 'test.jsonl'}, not {tmp_path / 'test.jsonl'}; write the full path "
        "to use that",
    ]


@pytest.mark.parametrize("kind", ["lora", "lora_xs"])
def test_whole_numbers_of_alpha_stay_whole(kind: str, tmp_path: Path) -> None:
    for value, text in (("24", "24"), ("24.0", "24"), ("2.5", "2.5"), ("1e+300", "1.0e+300")):
        experiment = load(
            written(tmp_path, SMALL), [f"adapter={{{kind}: {{lora_alpha: {value}}}}}"]
        )
        assert f"lora_alpha: {text}\n" in dump(experiment.resolved())


def test_parts_are_found_beside_the_experiment(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "mine.py").write_text(
        "from dataclasses import dataclass\n"
        "from hanse.federation.algorithms.fedavg import FedAvg\n"
        "from hanse.data.partitioners.iid import Iid\n"
        "from hanse.evaluation.perplexity import Perplexity\n"
        + "".join(
            f"@dataclass(frozen=True)\nclass My{role}({role}):\n    pass\n"
            for role in ("FedAvg", "Iid", "Perplexity")
        )
    )
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    words = ["algorithm=mine.py:MyFedAvg", "data.partition=mine.py:MyIid"]
    words += ["objective=sft", "evaluation.tasks=[mine.py:MyPerplexity]"]
    experiment = load(written(tmp_path, SMALL), words)
    assert type(build_algorithm(experiment)).__name__ == "MyFedAvg"
    assert type(build_partitioner(experiment)).__name__ == "MyIid"
    assert [type(t).__name__ for t in build_tasks(experiment).values()] == ["MyPerplexity"]


def test_a_copy_takes_no_setting_that_does_not_exist(tmp_path: Path) -> None:
    experiment = load(written(tmp_path, SMALL))
    assert experiment.model_copy(update={"rounds": 7}).rounds == 7
    with pytest.raises(KeyError, match="Experiment has no setting cohort"):
        experiment.model_copy(update={"cohort": 1})


@pytest.mark.parametrize(
    ("module", "role", "setting"),
    [
        ("learners.objectives.sft", "Sft", "objective=mine.py:Mine"),
        ("evaluation.perplexity", "Perplexity", "evaluation.tasks=[mine.py:Mine]"),
    ],
)
def test_a_part_with_an_unknown_kind_of_examples_is_refused(
    tmp_path: Path, module: str, role: str, setting: str
) -> None:
    (tmp_path / "mine.py").write_text(
        "from dataclasses import dataclass\n"
        f"from hanse.{module} import {role}\n"
        f"@dataclass(frozen=True)\nclass Mine({role}):\n    example_kind = 'pictures'\n"
    )
    message = "Mine declares example_kind = 'pictures', but the kinds of examples are tokens, "
    with pytest.raises(UserError, match=message):
        load(written(tmp_path, SMALL), [setting])


def test_any_file_name_will_do_and_any_path(tmp_path: Path) -> None:
    (tmp_path / "my experiment (2).yaml").write_text(SMALL)
    assert load(tmp_path / "my experiment (2).yaml").name == "my-experiment-2-"
    long = "x" * 5000
    assert load(written(tmp_path, SMALL), [f"data.path={long}"]).data.path == long


@pytest.mark.parametrize(
    ("more", "said"),
    [
        ("rouns: 3", r"small\.yaml:8: there is no setting 'rouns' \(did you mean 'rounds'\?\)"),
        ("evaluation:\n  tests: true", r"small\.yaml:9: .*'tests' \(did you mean 'test'\?\)"),
        ("evaluation: 3", r"small\.yaml:8: evaluation is 3; "),
        ("seed: many", r"small\.yaml:8: seed is 'many'; "),
        ("seed: -1", r"small\.yaml:8: seed is -1; .*greater than or equal to 0"),
        ("fraction_train: 2", r"small\.yaml:8: fraction_train is 2; .*less than or equal to 1"),
        ("fraction_train: 0", r"fraction_train is 0; .*greater than 0"),
        ("seed: null", r"small\.yaml:8: seed is None; "),
        ("adapter: {lora: {r: 0}}", r"small\.yaml:8: adapter\.lora\.r is 0; "),
        ("adapter: {lora: {rang: 4}}", r"there is no setting 'rang'.*adapter\.lora has r, "),
        ("evaluation:\n  tasks: [acc]", r"small\.yaml:9: there is no 'acc' in evaluation"),
        (
            "adapter: {lora: {}, from: x}",
            "either one kind, such as lora: .* or from: .* not both or neither",
        ),
        ("adapter: {}", "either one kind, such as lora: .* or from: .* not both or neither"),
        (
            "algorithm: fedavgg",
            r"small\.yaml:8: there is no 'fedavgg' in algorithms \(did you mean 'fedavg'\?\)",
        ),
        ("algorithm: {fedprox: {muu: 1}}", r"no setting 'muu' \(did you mean 'mu'\?\)"),
        ("algorithm: [fedavg]", "algorithm"),
        ("algorithm: 3", "algorithm|no '3' in"),
        ("evaluation: {tasks: [classification, perplexity]}", "examples of different kinds"),
        ("evaluation: {tasks: [acuracy]}", "no 'acuracy' in evaluation"),
        ("clients: {silo-9: {}}", r"clients\.silo-9 is no client .*silo-1 to silo-3"),
        ("clients: {silo-1: {rounds: 3}}", "cannot override 'rounds'; it can override model, "),
        ("clients: {silo-1: {trian: {}}}", r"cannot override 'trian' \(did you mean 'train'\?\)"),
        ("clients:\n  silo-1: {train: {rate: 3}}", r"small\.yaml:9: there is no setting 'rate'"),
        (
            "clients:\n  silo-1:\n    train:\n      max_steps: x",
            r"small\.yaml:11: clients\.silo-1\.train\.max_steps is 'x'",
        ),
        ("clients:\n  silo-1:\n    seed: 3", r"small\.yaml:10: clients\.silo-1 cannot override"),
        (
            "clients:\n  silo-1:\n    train: {max_steps: 1, num_train_epochs: 1}",
            r"small\.yaml:9: clients\.silo-1: train has both",
        ),
        ("learning_rat: 3", r"'learning_rat' \(did you mean 'train\.learning_rate'\?\)"),
        ("model: x", r"small\.yaml:8: model is 'x'; it is a section with the settings model_name"),
        ('"a\\nb": 3', r"there is no setting 'a\\nb'"),
        ("SEED: 3", r"there is no setting 'SEED' \(did you mean 'seed'\?\)"),
        ("7: 3", r"small\.yaml:8: there is no setting '7'"),
        ("adapter: {rounds: 3}", r"'rounds' \(did you mean 'rounds' at the top\?\)"),
        ("seed: " + "[" * 90 + "]" * 90, r"seed is \[{80}…; "),
        ("clients: {silo-1: 3}", "clients"),
        ("name: a/b", r"small\.yaml:8: name is 'a/b'; it is a name of letters, digits, "),
        ("data.labels: {a: ' '}", r"small\.yaml:8: there is no setting 'data\.labels'"),
        ("list: 3", r"small\.yaml:8: there is no setting 'list' "),
        ("'x]': 3", r"small\.yaml:8: there is no setting 'x\]'"),
        ("adapter: {lora: {int: 3}}", r"there is no setting 'int'; adapter\.lora has r, "),
        ("clients: {silo-1: {data: null}}", r"small\.yaml:8: clients\.silo-1\.data is None; "),
        ("clients: {silo-1: {data: 7}}", r"small\.yaml:8: clients\.silo-1\.data is 7; "),
        (
            "clients: {../up: {data: {path: x}}}",
            r"clients\.\.\./up is '\.\./up'; it is a name of letters",
        ),
    ],
)
def test_what_is_wrong_is_said_with_its_place(tmp_path: Path, more: str, said: str) -> None:
    with pytest.raises(UserError, match=said) as caught:
        load(written(tmp_path, f"{SMALL}{more}\n"))
    assert str(caught.value).startswith(f"{tmp_path / 'small.yaml'}:")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("word", "said"),
    [
        ("train.num_train_epochs=1", "both max_steps and num_train_epochs"),
        ("data.template=no place", r"data\.template 'no place' has no {text}"),
        (
            "data.test=1.5",
            r"^the override 'data\.test=1\.5': data\.test is 1\.5; .*integer, or .*less than 1",
        ),
        ("objective=null", r"objective is None; .*valid string, or .*valid dictionary"),
        ("data.client_test=1", r"data\.client_test is 1; .*less than 1"),
        ("data.partition.dirichlet.alpha=0", r"dirichlet\.alpha is 0; "),
        ("train.optim=adma", r"train\.optim is 'adma'; .*'adamw'"),
    ],
)
def test_what_is_wrong_in_an_override_is_said(tmp_path: Path, word: str, said: str) -> None:
    with pytest.raises(UserError, match=said) as caught:
        load(written(tmp_path, SMALL), ["seed=1", word, "rounds=1"])
    assert str(caught.value).startswith(f"the override {word!r}: ")


def test_the_file_is_blamed_for_what_is_wrong_in_it(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"small\.yaml:8: seed is -1; "):
        load(written(tmp_path, SMALL + "seed: -1\n"), ["rounds=1", "train.max_steps=2"])
    with pytest.raises(UserError, match=r"^the override 'seed=-2': seed is -2; "):
        load(written(tmp_path, SMALL + "seed: -1\n"), ["rounds=1", "seed=-2"])
    assert load(written(tmp_path, SMALL + "seed: -1\n"), ["seed=2"]).seed == 2
