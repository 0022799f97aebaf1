"""Commands import what takes seconds only once they need it."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from hanse.cli.main import PLAIN, WATCHED

MODELS = {"transformers", "peft", "sklearn", "matplotlib", "scipy"}
SLOW = {"torch", *MODELS}
LOOK = """
import sys
from hanse.cli.main import main

try:
    main()
finally:
    print("|", *sys.modules)
"""

# An experiment with a mistake, and words of the sentence about it.
MISTAKES = {
    "YAML": ("a: [", "is not valid YAML"),
    "key of the top": ("rouns: 3", "did you mean 'rounds'?"),
    "key of a section": ("train: {learning_rat: 1}", "did you mean 'learning_rate'?"),
    "value of a section": ("model: {max_length: 1}", "model.max_length is 1"),
    "key of an adapter": ("adapter: {lora: {rr: 3}}", "did you mean 'r'?"),
    "value of an adapter": ("adapter: {ia3: {layers_to_transform: [-1]}}", "layers_to_transform"),
    "adapter": ("adapter: loora", "did you mean 'lora'?"),
    "algorithm": ("algorithm: fedavgg", "did you mean 'fedavg'?"),
    "aggregator": ("aggregator: {meen: {}}", "did you mean 'mean'?"),
    "objective": ("objective: sfft", "did you mean 'sft'?"),
    "partitioner": ("data: {partition: {dirichle: {}}}", "did you mean 'dirichlet'?"),
    "task": ("evaluation: {tasks: [perplexiti]}", "did you mean 'perplexity'?"),
    "tracker": ("report_to: [tensorboad]", "did you mean 'tensorboard'?"),
    "name behind a part with settings": (
        "algorithm: {fedprox: {mu: 0.5}}\nreport_to: nobody",
        "there is no 'nobody' in trackers",
    ),
    "key beside a part with settings": (
        "algorithm: {fedopt: {beta1: 0.5}}\nadapter: {vera: {r: 2}}\nrouns: 3",
        "did you mean 'rounds'?",
    ),
}


def imported(*words: str) -> tuple[set[str], str]:
    """The modules that a command has imported at its end, and what it said of its mistake."""
    done = subprocess.run([sys.executable, "-c", LOOK, *words], capture_output=True, text=True)
    return set(done.stdout.rpartition("|")[2].split()), done.stderr


@pytest.mark.parametrize(
    "words",
    [
        *([], ["--help"], ["nonsense"], ["kit", "--help"], ["kit", "enrol", "nobody.pub"]),
        *([name, "--nonsense"] for name in (*WATCHED, *PLAIN)),
    ],
)
def test_words_that_need_no_model_import_none(words: list[str]) -> None:
    modules, _ = imported(*words)
    assert "hanse.cli.main" in modules
    assert not SLOW & modules


@pytest.mark.parametrize("mistake", MISTAKES)
def test_a_mistake_in_names_is_found_without_torch(mistake: str, tmp_path: Path) -> None:
    text, said = MISTAKES[mistake]
    (tmp_path / "experiment.yaml").write_text(text)
    modules, told = imported("run", str(tmp_path / "experiment.yaml"))
    assert said in told
    assert not SLOW & modules


def test_an_experiment_is_begun_without_torch(tmp_path: Path, tiny_llama: Path) -> None:
    rows = [{"prompt": f"{n}?", "completion": "Yes." * (n % 5 + 1)} for n in range(60)]
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    out = tmp_path / "rows.yaml"
    words = "--from", tmp_path / "rows.jsonl", "--model", tiny_llama, "--out", out
    modules, told = imported("init", *map(str, words))
    assert out.is_file(), told
    assert "torch" not in modules


def test_a_mistake_in_a_silo_is_found_without_torch(tmp_path: Path) -> None:
    (tmp_path / "silo.yaml").write_text("name: a\nserver: here\n")
    modules, told = imported("join", str(tmp_path / "silo.yaml"))
    assert "server is 'here'" in told or "is missing" in told
    assert not SLOW & modules


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["resume"], "is no run folder"),
        (["report"], "is no run folder"),
        (["compare", "absent too"], "is no run folder"),
        (["evaluate"], "is no run folder"),
        (["chat", "--prompt=hello"], "holds neither a run"),
        (["export", "--merge=model"], "holds neither a run"),
    ],
)
def test_a_folder_without_a_run_is_refused_without_torch(
    words: list[str], said: str, tmp_path: Path
) -> None:
    modules, told = imported(words[0], str(tmp_path / "absent"), *words[1:])
    assert said in told
    assert not SLOW & modules


@pytest.mark.parametrize("words", [["evaluate"], ["export", "--merge=model"]])
def test_an_unfinished_run_is_refused_without_torch(words: list[str], tmp_path: Path) -> None:
    (tmp_path / "experiment.yaml").write_text("rounds: 3\n")
    modules, told = imported(words[0], str(tmp_path), *words[1:])
    assert "is not finished; run `hanse resume" in told
    assert not SLOW & modules


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("algorithm: {fedprox: {mu: -1}}", "fedprox.mu is -1"),
        ("evaluation: {tasks: [{generation: {limit: -1}}]}", "generation.limit is -1"),
        ("data: {partition: {cluster: {alpha: -1}}}", "cluster.alpha is -1"),
        ("objective: {sft: {x: 1}}", "sft has no setting 'x'"),
    ],
)
def test_a_mistake_in_a_part_is_found_without_models(text: str, said: str, tmp_path: Path) -> None:
    (tmp_path / "experiment.yaml").write_text(text)
    modules, told = imported("run", str(tmp_path / "experiment.yaml"))
    assert said in told
    assert not MODELS & modules


def test_the_parts_are_listed_without_models() -> None:
    modules, told = imported("parts")
    assert {"hanse.learners.adapters.lora", "hanse.evaluation.classification"} <= modules
    assert not told and not MODELS & modules
