"""The real model: a short run, and its adapter in a process that never imports hanse."""

import json
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from hanse import errors
from hanse.experiment.assembly.dataset.federated_dataset import divide
from hanse.experiment.loading import load
from hanse.experiment.schema import Experiment
from hanse.journal import run_folder
from hanse.learners.injection.adapter_layout import WEIGHTS
from hanse.learners.models.model_files import locate
from hanse.simulation import run as simulation
from samples import ROOT

pytestmark = [pytest.mark.end_to_end, pytest.mark.usefixtures("smollm2")]

PLAIN = """
import json, sys, torch
from peft import PeftModel
from transformers import AutoModelForCausalLM, AutoTokenizer

base, adapter, rows = sys.argv[1], sys.argv[2], json.load(open(sys.argv[3]))
tokenizer = AutoTokenizer.from_pretrained(adapter)
model = AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32)
model = PeftModel.from_pretrained(model, adapter).eval()
words = [tokenizer(w, add_special_tokens=False).input_ids[0] for w in (" negative", " positive")]
right = []
for text, label in rows:
    ids = tokenizer(text, add_special_tokens=False, return_tensors="pt").input_ids
    with torch.no_grad():
        scores = model(input_ids=ids).logits[0, -1, words]
    right.append(float(scores.argmax() == int(label)))
assert "hanse" not in sys.modules
print(json.dumps(right))
"""


WORDS = [
    *("rounds=1", "train.num_train_epochs=null", "train.max_steps=3", "data.test=24"),
    *("data.validation=0", "data.client_test=0", "model.bf16=false", "train.learning_rate=0.003"),
]
RANKS = [f"clients.silo-{1 + place}.adapter.lora.r={r}" for place, r in enumerate((4, 8, 16, 16))]


class Second(threading.Event):
    """Set from the second look on: a run stops after its first round."""

    def is_set(self) -> bool:
        before = super().is_set()
        self.set()
        return before


def _experiment(folder: Path, *words: str) -> Experiment:
    return load(ROOT / "experiments" / "quickstart.yaml", [*WORDS, *words, f"output_dir={folder}"])


def _scored_by_peft(folder: Path, experiment: Experiment) -> tuple[float, ...]:
    """Which test rows a run's adapter gets right in a process without hanse."""
    template = experiment.data.template
    rows = [(template.replace("{text}", row.text), row.label) for row in divide(experiment).test]
    file = folder / "rows.json"
    file.write_text(json.dumps(rows))
    base = locate(experiment.model.model_name_or_path)
    command = [sys.executable, "-c", PLAIN, base, str(folder / "adapter"), str(file)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    return tuple(json.loads(done.stdout))


def test_its_adapter_scores_the_same_in_plain_peft(tmp_path: Path) -> None:
    experiment = _experiment(tmp_path / "run")
    folder = simulation.run(experiment)
    kept = run_folder.read_evaluation(folder, "test-classification", 1).items
    assert kept != run_folder.read_evaluation(folder, "test-classification", 0).items
    assert _scored_by_peft(folder, experiment) == kept


def test_unequal_ranks_end_in_one_adapter_whether_stopped_or_not(tmp_path: Path) -> None:
    words = [*RANKS, "rounds=2", "train.max_steps=2", "adapter.lora.r=16", "clients_per_pass=4"]
    words.append("algorithm=flora")
    experiment = _experiment(tmp_path / "whole", *words)
    folder = simulation.run(experiment)
    with pytest.raises(errors.StoppedError, match="after round 1"):
        simulation.run(_experiment(tmp_path / "stopped", *words), stop=Second())
    again = simulation.resume(tmp_path / "stopped")
    adapters = [(run / "adapter" / WEIGHTS).read_bytes() for run in (folder, again)]
    assert adapters[0] == adapters[1]
    kept = run_folder.read_evaluation(folder, "test-classification", 2).items
    assert kept != run_folder.read_evaluation(folder, "test-classification", 0).items
    assert _scored_by_peft(folder, experiment) == kept
