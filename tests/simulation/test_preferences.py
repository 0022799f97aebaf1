"""A preference objective from outside the package, from a data file to a trained adapter."""

import json
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from hanse.errors import UserError
from hanse.experiment.loading import load
from hanse.journal.run_folder import read_evaluation
from hanse.serving.evaluate import compare
from hanse.simulation import run as simulation
from learner_checks import resumed_ends_in_the_same_adapter
from samples import BAD, GOOD, PLAIN, ROOT

PART = f"{ROOT}/tests/parts/preference.py:Preference"


def _preferences(count: int) -> list[dict[str, str]]:
    """Praise is chosen and blame is rejected, in TRL's columns."""
    draw = random.Random(0)
    return [
        {
            "prompt": f"The {draw.choice(PLAIN)} {number} was",
            "chosen": f" {draw.choice(GOOD)}",
            "rejected": f" {draw.choice(BAD)}",
        }
        for number in range(count)
    ]


@pytest.fixture
def file(tmp_path: Path, tiny_llama: Path) -> Path:
    data = tmp_path / "pairs.jsonl"
    data.write_text("".join(json.dumps(row) + "\n" for row in _preferences(80)))
    path = tmp_path / "preferences.yaml"
    path.write_text(
        f"""rounds: 3
num_clients: 2
model: {{model_name_or_path: {tiny_llama}, bf16: false}}
adapter: {{lora: {{r: 4, lora_dropout: 0.1}}}}
data: {{path: {data}, test: 24, validation: 0}}
objective: {{"{PART}": {{beta: 0.5}}}}
train: {{learning_rate: 0.01, max_steps: 4}}
output_dir: {tmp_path / "run"}
"""
    )
    return path


def _metrics(folder: Path) -> tuple[dict[str, float], dict[str, float]]:
    """The test metrics before and after training."""
    before, after = (read_evaluation(folder, "test-preference", at) for at in (0, 3))
    return before.metrics, after.metrics


def test_chosen_answers_become_likelier(file: Path) -> None:
    folder = simulation.run(load(file, ()))
    before, after = _metrics(folder)
    assert after["margin"] > before["margin"] + 2
    assert after["accuracy"] > before["accuracy"]


def test_a_stopped_run_ends_in_the_same_adapter(file: Path) -> None:
    resumed_ends_in_the_same_adapter(file)


def test_a_stopped_run_with_drawn_answers_ends_in_the_same_adapter(file: Path) -> None:
    resumed_ends_in_the_same_adapter(file, f'objective={{"{PART}": {{drawn: 6}}}}')


VERDICTS = '''
from dataclasses import dataclass

from hanse.federation.interfaces.objective import Objective


@dataclass(frozen=True)
class Weighted(Objective):
    """Good answers become likelier, and bad ones less likely."""

    example_kind = "verdicts"

    def loss(self, learner, batch):
        return -((2 * batch.verdicts - 1) * learner.scores(batch)[:, 0]).mean() / 20
'''


@pytest.fixture
def judged(file: Path) -> list[str]:
    """What turns the experiment into one with verdicts on single answers."""
    rows = [
        {"prompt": row["prompt"], "completion": row[name], "label": name == "chosen"}
        for row in _preferences(80)
        for name in ("chosen", "rejected")
    ]
    data, part = file.parent / "judged.jsonl", file.parent / "weighted.py"
    data.write_text("".join(json.dumps(row) + "\n" for row in rows))
    part.write_text(VERDICTS)
    return [f"data.path={data}", f"objective={part}:Weighted", "clients_per_pass=2"]


def test_good_answers_become_likelier_than_bad_ones(file: Path, judged: list[str]) -> None:
    """Both kinds of answers are rows, and clients that need one pass train together."""
    folder = simulation.run(load(file, judged))
    before, after = (read_evaluation(folder, "test-verdict", at) for at in (0, 3))
    assert len(after.items) == 24
    assert after.metrics["concordance"] > before.metrics["concordance"] + 0.1
    [compared] = compare(folder).values()
    assert compared.adapted.metrics["concordance"] == pytest.approx(after.metrics["concordance"])


def test_a_task_for_good_answers_refuses_bad_ones(file: Path, judged: list[str]) -> None:
    with pytest.raises(UserError, match=r"judged.jsonl:\d+ marks its answer as a bad one"):
        simulation.run(load(file, [*judged, "evaluation.tasks=[perplexity]"]))


def test_check_shows_both_answers(file: Path, hanse: Callable[..., Any]) -> None:
    out = hanse("check", str(file), "--trust").out
    assert "[rejected] " in out
    assert "read as preference: chosen, rejected, prompt" in out


def test_sft_refuses_pairs_and_preferences_refuse_texts(
    file: Path, tiny_bert: Path, review_file: Path
) -> None:
    with pytest.raises(UserError, match=r"pairs.jsonl:\d+ holds a preference"):
        simulation.run(load(file, ["objective=sft"]))
    with pytest.raises(UserError, match=r"has text \+ label, but .* compares two answers"):
        simulation.run(load(file, [f"data.path={review_file}"]))
    with pytest.raises(UserError, match="does not judge answers; choose a causal"):
        simulation.run(load(file, [f"model.model_name_or_path={tiny_bert}"]))
