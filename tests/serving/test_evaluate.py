"""A run whose answers are generated and compared: what it records, and scoring it again."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from hanse.errors import UserError
from hanse.experiment.loading import load
from hanse.journal import run_folder
from hanse.serving import evaluate as rescore
from hanse.simulation import run as simulation
from samples import reviews, write_lines

BRIEF = "{metrics: [chrf, exact_match], max_new_tokens: 6, limit: 9, samples: 4}"


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory, tiny_llama: Path) -> Path:
    """A folder with an experiment on prompts and completions, finished once."""
    folder = tmp_path_factory.mktemp("rescored")
    rows = [{"prompt": r["text"], "completion": f" {r['label']}"} for r in reviews(80)]
    write_lines(folder / "asked.jsonl", rows)
    (folder / "plain.jsonl").write_text("".join(f'{{"text": "word {n}"}}\n' for n in range(40)))
    (folder / "asked.yaml").write_text(
        f"rounds: 2\nnum_clients: 2\n"
        f"model: {{model_name_or_path: {tiny_llama}, bf16: false}}\n"
        f"data: {{path: {folder / 'asked.jsonl'}, test: 12, validation: 8, client_test: 0.2}}\n"
        "train: {learning_rate: 0.03, max_steps: 8}\n"
        f"evaluation: {{tasks: [perplexity, generation: {BRIEF}]}}\n"
        f"output_dir: {folder / 'run'}\n"
    )
    simulation.run(load(folder / "asked.yaml"))
    return folder


def test_generation_is_measured_on_the_test_rows_before_and_after(home: Path) -> None:
    first, middle, last = run_folder.read_rounds(home / "run")
    for record in (first, last):
        assert list(record.test) == [
            *("loss", "perplexity", "chrf", "chrf_se", "exact_match", "exact_match_se")
        ]
    assert not middle.test
    assert {*first.validation, *middle.validation} == {"loss", "perplexity"}
    for own in last.client_test.values():
        assert own.keys() == {"loss", "perplexity", "seconds"}


def test_some_answers_are_kept_to_be_read(home: Path) -> None:
    before, after = (run_folder.read_evaluation(home / "run", "test-generation", n) for n in (0, 2))
    for scores in (before, after):
        assert len(scores.items) == 9
        assert len(scores.samples) == 4
        for sample in scores.samples:
            assert sample.answer.strip() in ("positive", "negative")
    asked = [[s.prompt for s in scores.samples] for scores in (before, after)]
    assert asked[0] == asked[1]
    rows = map(json.loads, (home / "asked.jsonl").read_text().splitlines())
    by_prompt = {row["prompt"]: row["completion"] for row in rows}
    assert all(by_prompt[s.prompt] == s.answer for s in before.samples)
    assert [s.said for s in before.samples] != [s.said for s in after.samples]
    assert run_folder.read_evaluation(home / "run", "test-perplexity", 0).samples == ()


def test_the_same_rows_score_the_same_again(home: Path) -> None:
    found = rescore.compare(home / "run")["generation"]
    for round, scores in ((0, found.base), (2, found.adapted)):
        kept = run_folder.read_evaluation(home / "run", "test-generation", round)
        assert scores.items == pytest.approx(kept.items)
        assert tuple(scores.samples) == kept.samples


def test_costly_may_be_turned_off(home: Path, tmp_path: Path) -> None:
    words = [f"evaluation.tasks=[generation: {BRIEF[:-1]}, costly: false}}]", "rounds=1"]
    folder = simulation.run(load(home / "asked.yaml", [*words, f"output_dir={tmp_path / 'run'}"]))
    record = run_folder.read_rounds(folder)[-1]
    assert "chrf" in record.validation
    assert all("chrf" in own for own in record.client_test.values())


def test_a_run_measured_by_generation_alone(home: Path, tmp_path: Path) -> None:
    words = [
        f"evaluation.tasks=[generation: {BRIEF}]",
        "rounds=1",
        f"output_dir={tmp_path / 'run'}",
    ]
    records = run_folder.read_rounds(simulation.run(load(home / "asked.yaml", words)))
    assert not any(record.validation or record.client_test for record in records)
    assert all("chrf" in record.test for record in records)


def test_another_file_and_another_task(home: Path, tmp_path: Path) -> None:
    rows = [{"prompt": r["text"], "completion": f" {r['label']}"} for r in reviews(5, seed=3)]
    file = write_lines(tmp_path / "more.jsonl", rows)
    tasks = ["evaluation.tasks=[generation: {metrics: [rouge_l], max_new_tokens: 4}]"]
    found = rescore.compare(home / "run", str(file), overrides=tasks)
    assert list(found) == ["generation"]
    assert len(found["generation"].base.items) == 5
    assert "rouge_l" in found["generation"].adapted.metrics


def test_columns_have_the_names_that_the_run_gave_them(home: Path, tmp_path: Path) -> None:
    rows = [{"told": row["text"], "then": f" {row['label']}"} for row in reviews(40)]
    file = write_lines(tmp_path / "named.jsonl", rows)
    words = [f"data.path={file}", "data.columns={prompt: told, completion: then}", "rounds=1"]
    words += ["evaluation.tasks=[perplexity]", f"output_dir={tmp_path / 'run'}"]
    folder = simulation.run(load(home / "asked.yaml", words))
    assert len(rescore.compare(folder, str(file))["perplexity"].base.items) == 40


@pytest.fixture
def evaluate(home: Path, hanse: Callable[..., Any]) -> Callable[..., tuple[int, str]]:
    """Call `hanse evaluate` on the run; its exit code, and what it printed."""

    def call(*words: object) -> tuple[int, str]:
        code, out, err = hanse("evaluate", home / "run", *words)
        return code, err.splitlines()[-1] if code else out

    return call


def test_answers_are_shown_beside_each_other(home: Path, evaluate) -> None:
    code, out = evaluate()
    assert code == 0
    kept = run_folder.read_evaluation(home / "run", "test-generation", 2).samples
    for number, sample in enumerate(kept[:3], 1):
        assert f"sample {number}\n{sample.prompt}\n" in out
        assert f"adapter  {sample.said}".strip() in out
    assert "sample 4" not in out


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["--data", "plain.jsonl", "evaluation.tasks=[generation]"], "row 1 of the test rows"),
        (["--data", "absent.jsonl"], "absent.jsonl"),
        (["--data", "asked.yaml"], "asked.yaml"),
        (["--data", "empty.jsonl"], "empty"),
        (["--split", "validation", "data.validation=0"], "there are no validation rows to score"),
        (["evaluation.tasks=[generation, classification]"], "need examples of different kinds"),
        (["evaluation.tasks=[classification]"], "needs text and label"),
        (["evaluation.tasks=[generation: {metrics: [bleu]}]"], "'bleu'"),
        (["evaluation.tasks=[generation: {metrics: []}]"], "generation.metrics"),
        (["evaluation.tasks=[generation: {answer: number}]"], "has no number in its answer"),
        (["evaluation.tasks=[generation: {max_new_tokens: 900}]"], "reads at most 256 tokens"),
    ],
)
def test_one_sentence_for_each_mistake(
    home: Path, evaluate, monkeypatch: pytest.MonkeyPatch, words: list[str], expected: str
) -> None:
    monkeypatch.chdir(home)
    (home / "empty.jsonl").touch()
    code, sentence = evaluate(*words)
    assert code == 2
    assert sentence.startswith("hanse: ")
    assert expected in sentence


@pytest.mark.parametrize("words", [["data.test=0"], ["evaluation.test=false"]])
def test_a_task_that_would_be_left_out(home: Path, tmp_path: Path, words: list[str]) -> None:
    words = [*words, f"output_dir={tmp_path / 'run'}"]
    with pytest.raises(UserError, match="takes so long that it scores test rows"):
        simulation.run(load(home / "asked.yaml", words))
    assert not (tmp_path / "run").exists()


def test_plain_texts_have_no_answers_to_generate(home: Path, tmp_path: Path) -> None:
    words = [f"data.path={home / 'plain.jsonl'}", "evaluation.tasks=[generation]"]
    with pytest.raises(UserError, match="no answer to compare with"):
        simulation.run(load(home / "asked.yaml", [*words, f"output_dir={tmp_path / 'run'}"]))
