"""The command line: what it prints, and one sentence with exit code 2 for every mistake."""

import json
import sys
from pathlib import Path
from typing import Any

import pytest

from hanse import __main__ as program
from samples import reviews, write_lines


def _sentence(outcome: Any) -> str:
    """The one sentence of a refusal: exit code 2, nothing else on stderr, no traceback."""
    assert outcome.code == 2
    lines = [line for line in outcome.err.splitlines() if line.startswith("hanse: ")]
    assert len(lines) == 1, outcome.err
    assert "Traceback" not in outcome.err + outcome.out
    return lines[0]


def test_run_then_evaluate(hanse, experiment_file: Path, tmp_path: Path) -> None:
    done = hanse("run", experiment_file)
    assert done.code == 0, done.err
    assert "paired 95 % interval" in done.out
    assert str(tmp_path / "run" / "report.html") in done.out.replace("\n", "")
    file = write_lines(tmp_path / "more.jsonl", reviews(20, seed=9))
    scored = hanse("evaluate", tmp_path / "run", "--data", file)
    assert scored.code == 0, scored.err
    assert "20 rows" in scored.out
    refused = _sentence(hanse("run", experiment_file))
    assert "exists" in refused
    assert "hanse resume" in refused


def test_check_shows_what_will_happen(hanse, experiment_file: Path, tmp_path: Path) -> None:
    shown = hanse("check", experiment_file)
    assert shown.code == 0, shown.err
    for expected in ("Sentiment:", "silo-3", "positive", "bytes up", "parameters", "GB of memory"):
        assert expected in shown.out
    for expected in ("read as labelled: text, label", "max_length 256 cuts 0.0 %"):
        assert expected in " ".join(shown.out.split())
    assert not (tmp_path / "run").exists()


def test_one_row_is_scored_without_an_interval(hanse, experiment_file: Path) -> None:
    done = hanse("run", experiment_file, "data.test=1", "rounds=1")
    assert done.code == 0, done.err
    assert "(without an interval: one row is too few)" in done.out


def test_labels_are_shown_as_they_are(hanse, experiment_file: Path, tmp_path: Path) -> None:
    rows = [
        {**row, "label": {"positive": "[/good]"}.get(row["label"], "bad")} for row in reviews(90)
    ]
    file = write_lines(tmp_path / "marked.jsonl", rows)
    shown = hanse("check", experiment_file, f"data.path={file}")
    assert shown.code == 0, shown.err
    assert "[/good]" in shown.out


def test_parts_lists_every_part_with_its_settings(hanse) -> None:
    shown = hanse("parts").out
    for expected in ("fedprox", "mu: float = 0.01", "dirichlet", "classification", "mean", "sft"):
        assert expected in shown
    wide = " ".join(shown.split())
    assert "float | None = 0.001 with adam, yogi, adagrad; 1.0 with momentum" in wide


def test_parts_lists_the_compressors_of_emulators(hanse) -> None:
    listed = hanse("parts").out.partition("\ncompressors\n")[2]
    for expected in ("layer_drop ", "drop: float = 0.5", "low_rank ", "energy: float", "quantized"):
        assert expected in listed


def _override(words: str, *expected: str) -> object:
    return pytest.param(words.split("|"), expected, id=words)


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        _override("rounds=0", "rounds is 0", "greater than"),
        _override("rounds=many", "rounds is 'many'"),
        _override("ruonds=3", "no setting 'ruonds'", "did you mean 'rounds'"),
        _override("train.learning_rat=1", "did you mean 'learning_rate'"),
        _override("algorithm=fedprx", "did you mean 'fedprox'"),
        _override("algorithm.fedopt.taw=1", "no setting 'taw'", "did you mean 'tau'"),
        _override("algorithm.fedprox.mu=-1", "fedprox.mu"),
        _override("objective=clasify", "did you mean 'classify'"),
        _override("data.partition=dirichle", "did you mean 'dirichlet'"),
        _override("train.num_train_epochs=1", "both max_steps and num_train_epochs"),
        _override("data.path=nowhere.jsonl", "nowhere.jsonl"),
        _override("model.model_name_or_path=smollm2", "did you mean 'smollm2-135m'"),
        _override("num_clients=500", "500 clients"),
        _override("data.test=5000", "5000"),
        _override("data.template=Sentiment", "{text}"),
        _override("data.labels={positive: good}", "name all labels"),
        _override("adapter.lora.target_modules=[quary]", "quary", "q_proj"),
        _override("adapter.lora.r=0", "adapter.lora.r"),
        _override("adapter={from: nowhere, lora: {r: 2}}", "not both"),
        _override("adapter.from=nowhere", "there is no folder nowhere"),
        _override("clients.silo-9.train.max_steps=1", "silo-9", "silo-1 to silo-3"),
        _override("clients.silo-1.rounds=1", "cannot override 'rounds'"),
        _override("evaluation.tasks=[acuracy]", "evaluation"),
        _override("data.filter.colour=red", "no column 'colour'"),
        _override("rounds", "no override"),
        _override("train.learning_rate=.inf", "train.learning_rate is inf"),
        _override("algorithm.fedprox.mu=.nan", "fedprox.mu", "finite"),
        _override("data.test=1.0", "data.test is 1.0"),
        _override("evaluation.tasks=[]", "evaluation.tasks is []"),
        _override("clients.silo-1.data.partition=iid", "would change nothing"),
        _override("clients.silo-1.data.client_test=0", "would change nothing"),
        _override("clients.silo-1.data.path=x.jsonl", "every client must"),
        _override("model.max_length=1000", "reads at most 256 tokens"),
        _override("adapter.lora.target_modules='('", "LoRA cannot be put into this model"),
        _override("fraction_train=2", "fraction_train is 2"),
        _override("seed=-1", "seed is -1"),
        _override("model.max_length=8", "max_length"),
        _override("model.device=cuda", "no GPU"),
    ],
)
def test_wrong_settings(hanse, experiment_file: Path, words: list[str], expected: tuple[str, ...]):
    sentence = _sentence(hanse("run", experiment_file, *words))
    for part in expected:
        assert part in sentence
    assert not (experiment_file.parent / "run").exists(), "refused before anything is written"


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (b'{"text": "a", "label": "x"}\n{"text": \n', ":2"),
        (b"", "empty"),
        (b'{"text": "only one", "label": "x"}\n', "1"),
        (b'{"messages": [{"role": "user", "content": "hi"}]}\n' * 9, "assistant"),
        (b'{"colour": "red"}\n' * 9, "colour"),
        (
            b'{"text": "caf\xc3\xa9s", "label": "x"}\n' * 9 + b'{"text": "\xe9"}',
            ":10: text holds bytes that are not UTF-8",
        ),
        (b"".join(b'{"text": "a %d"}\n' % n for n in range(90)), "this row has none"),
    ],
)
def test_wrong_data(hanse, experiment_file: Path, tmp_path: Path, content: bytes, expected: str):
    (tmp_path / "bad.jsonl").write_bytes(content)
    sentence = _sentence(hanse("run", experiment_file, f"data.path={tmp_path / 'bad.jsonl'}"))
    assert expected in sentence


def test_wrong_files(hanse, tmp_path: Path, experiment_file: Path) -> None:
    assert "absent.yaml cannot be read" in _sentence(hanse("run", "absent.yaml"))
    (tmp_path / "bad.yaml").write_text("rounds: 3\n  seed: [1\n")
    assert "bad.yaml:2 is not valid YAML" in _sentence(hanse("run", "bad.yaml"))
    (tmp_path / "twice.yaml").write_text("rounds: 3\ntrain:\n  max_steps: 3\n  max_steps: 4\n")
    assert "twice.yaml:4 is not valid YAML: the key 'max_steps'" in _sentence(
        hanse("run", "twice.yaml")
    )
    (tmp_path / "ring.yaml").write_text("algorithm: &a {fedprox: *a}\n")
    assert "ring.yaml:1 is not valid YAML: an alias contains itself" in _sentence(
        hanse("run", "ring.yaml")
    )
    (tmp_path / "typo.yaml").write_text("rounds: 3\ntrain:\n  max_step: 3\n")
    sentence = _sentence(hanse("check", "typo.yaml"))
    assert "typo.yaml:3" in sentence
    assert "did you mean 'max_steps'" in sentence
    assert "is no run folder" in _sentence(hanse("resume", tmp_path))
    assert "is no run folder" in _sentence(hanse("evaluate", tmp_path))
    assert "can be test or validation" in _sentence(
        hanse("evaluate", tmp_path, "--split", "training")
    )


def test_a_sentence_names_the_line_of_a_wrong_value(hanse, experiment_file: Path) -> None:
    text = experiment_file.read_text().replace("rounds: 3", "rounds: -3")
    experiment_file.write_text(text)
    assert f"{experiment_file}:1: rounds is -3" in _sentence(hanse("run", experiment_file))


def test_resolved_experiment_runs_again(hanse, experiment_file: Path, tmp_path: Path) -> None:
    assert hanse("run", experiment_file).code == 0
    again = tmp_path / "again"
    assert hanse("run", tmp_path / "run" / "experiment.yaml", f"output_dir={again}").code == 0
    weights = "adapter/adapter_model.safetensors"
    assert (tmp_path / "run" / weights).read_bytes() == (again / weights).read_bytes()
    config = json.loads((again / "adapter" / "adapter_config.json").read_text())
    assert config["peft_type"] == "LORA"


def test_data_that_have_changed_are_not_divided_again(
    hanse, experiment_file: Path, tmp_path: Path
) -> None:
    file = write_lines(tmp_path / "own.jsonl", reviews(150))
    assert hanse("run", experiment_file, f"data.path={file}").code == 0
    write_lines(file, reviews(149))
    for command in ("resume", "evaluate"):
        assert "the data have changed" in _sentence(hanse(command, tmp_path / "run"))


def test_a_run_folder_that_was_damaged(hanse, experiment_file: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    assert hanse("run", experiment_file).code == 0
    (run / "metrics.jsonl").unlink()
    for name in ("machine.json", "scores/test-classification-00000.json"):
        (run / name).write_bytes((run / name).read_bytes()[:10])
    done = hanse("resume", run)
    assert done.code == 0, done.err
    assert "cannot be read" in done.out
    text = (run / "experiment.yaml").read_text()
    (run / "experiment.yaml").write_text(text[:60])
    assert "is not whole" in _sentence(hanse("resume", run))
    assert "is no run folder" in _sentence(hanse("evaluate", tmp_path / "nowhere"))


def test_words_that_are_no_commands(hanse) -> None:
    assert hanse("rnu").code == 2
    assert hanse("run").code == 2


def test_the_end_of_the_program_visits_no_objects(monkeypatch: pytest.MonkeyPatch) -> None:
    froze: list[bool] = []
    monkeypatch.setattr("gc.freeze", lambda: froze.append(True))
    monkeypatch.setattr("hanse.cli.main.main", sys.exit)
    with pytest.raises(SystemExit):
        program.main()
    assert froze == [True]
