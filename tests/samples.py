"""Invented reviews for tests that need data."""

import json
import random
from pathlib import Path
from typing import NamedTuple

import numpy as np

from hanse.data.formats.row import Row

ROOT = Path(__file__).parent.parent  # of the repository

GOOD = ("great", "lovely", "bright", "moving", "funny", "warm")
BAD = ("dull", "awful", "flat", "boring", "cold", "clumsy")
PLAIN = ("film", "actor", "plot", "scene", "story", "music", "camera", "ending")


def reviews(count: int, seed: int = 0) -> list[dict[str, str]]:
    """Invented reviews whose label is told by their words, all different."""
    draw = random.Random(seed)
    rows = []
    for number in range(count):
        label = "positive" if number % 2 else "negative"
        words = draw.choices(PLAIN, k=draw.randint(2, 9))
        words += draw.choices(GOOD if number % 2 else BAD, k=3)
        draw.shuffle(words)
        rows.append({"text": f"{' '.join(words)} {number}", "label": label})
    return rows


def sentences(count: int, seed: int = 0) -> list[dict[str, list[str]]]:
    """Invented sentences in which praise and blame are entities of two words or of one."""
    draw = random.Random(seed)
    rows = []
    for number in range(count):
        words, tags = [f"{number}"], ["O"]
        for _ in range(draw.randint(2, 4)):
            words.append(draw.choice(PLAIN))
            tags.append("O")
            kind, known = draw.choice((("good", GOOD), ("bad", BAD)))
            size = draw.randint(1, 2)
            words += draw.choices(known, k=size)
            tags += [f"B-{kind}", f"I-{kind}"][:size]
        rows.append({"tokens": words, "ner_tags": tags})
    return rows


def write_lines(path: Path, rows: list[dict[str, str]]) -> Path:
    """A .jsonl file of these rows."""
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def write_experiment(folder: Path, model: Path, data: Path) -> Path:
    """Write an experiment of three clients that runs in about a second."""
    file = folder / "tiny.yaml"
    file.write_text(
        f"""rounds: 3
clients_per_pass: 2
num_clients: 3
model: {{model_name_or_path: {model}, bf16: false}}
adapter: {{lora: {{r: 4}}}}
data:
  path: {data}
  template: "Review: {{text}}\\nSentiment:"
  test: 30
  validation: 20
  partition: {{dirichlet: {{alpha: 1.0}}}}
objective: classify
train: {{learning_rate: 0.01, max_steps: 3}}
output_dir: {folder / "run"}
""",
        encoding="utf-8",
    )
    return file


def empty_report(folder: Path) -> Path:
    """Write a run's report without anything in it, in the place of `write_report`."""
    (folder / "report.html").write_text("")
    return folder / "report.html"


def some_rows(count: int = 600, labels: int = 6) -> list[Row]:
    """Rows with labels in turn, one of three sources, and a place in the plane."""
    points = np.random.default_rng(0).normal(size=(count, 2))
    return [
        Row(
            text=f"t{i}",
            label=str(i % labels),
            fields={"label": str(i % labels), "source": "abc"[min(i % 6, 2)]},
            place=f"f:{i + 1}",
            vector=tuple(points[i]),
        )
        for i in range(count)
    ]


class Outcome(NamedTuple):
    """What a command left: its exit code and what it printed."""

    code: int
    out: str
    err: str
