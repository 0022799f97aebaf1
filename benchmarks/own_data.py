"""Seconds of `hanse init` and `hanse check` for your own data, and the lengths that init counts.

Beside them stands `hanse check` of the demo, whose experiment is written already. Each command
begins with empty caches, as for a new user. Writes benchmarks/results/own_data.json.
"""

import csv
import gzip
import json
import os
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

from measured import ROOT, clock, keep
from transformers import AutoTokenizer

from hanse.data.sources import corpora
from hanse.learners.models.model_files import DEFAULT, locate
from hanse.planning.first_experiment.start import start

DEMO = "movie-reviews"
QUICKSTART = ROOT / "experiments" / "quickstart.yaml"
OWN_ROWS = 400  # of each silo
WORDS = {"0": "negative", "1": "positive"}
LENGTH_ROWS = 1200  # more than init counts
SENTENCES = {
    "English": "The parcel that you asked about left our warehouse on Monday morning. ",
    "German": "Die Donaudampfschifffahrtsgesellschaft würde Ihr Päckchen übermorgen zustellen. ",
    "Korean": "죄송합니다. 소포는 현재 배송 중이며 내일 도착할 예정입니다. ",
    "code": "def f(x):\n    return {k: v for k, v in x.items() if v is not None}\n",
    "emoji": "👩‍🚀🚀 launched 🎉🎉 at 🕘, landed 🪂 🌊! ",
}


def main() -> None:
    """Time both commands on the demo's data and on four silos, compare lengths, and keep all."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        silos = [word for file in _silos(folder) for word in ("--from", str(file))]
        timed = {
            "the demo": _timed(folder),
            "all reviews of the demo's corpus": _timed(folder, ("--from", DEMO, "--silos", "4")),
            "four silos with files of their own": _timed(folder, silos),
        }
        lengths = [_lengths(folder, language) for language in SENTENCES]
    for what, seconds in timed.items():
        shown = "".join(f"  {name} {value:6.1f} s" for name, value in seconds.items())
        print(f"{what:<36}{shown}")
    for row in lengths:
        sizes = f"{row['written']:8.1f}{row['counted']:8.1f}"
        print(f"{row['language']:<10}{sizes} {row['deviation']:+.1%}")
    keep("own_data", {"rows": OWN_ROWS, "seconds": timed, "lengths": lengths})


def _silos(folder: Path) -> list[Path]:
    """Files of four silos: JSONL, compressed JSONL, CSV, and other names of columns."""
    rows = [(row.text, WORDS[str(row.label)]) for row in corpora.load(DEMO)]
    step = len(rows) // (4 * OWN_ROWS)  # of all kinds of reviews and both labels
    shares = [rows[at * step :: 4 * step][:OWN_ROWS] for at in range(4)]
    north, east, south, west = (
        folder / name for name in ("north.jsonl", "east.jsonl.gz", "south.csv", "west.jsonl")
    )
    north.write_text(_lines(shares[0], ("text", "label")), encoding="utf-8")
    east.write_bytes(gzip.compress(_lines(shares[1], ("text", "label")).encode()))
    with south.open("w", encoding="utf-8", newline="") as file:
        csv.writer(file).writerows([("review", "sentiment"), *shares[2]])
    west.write_text(_lines(shares[3], ("sentence", "category")), encoding="utf-8")
    return [north, east, south, west]


def _lines(rows: Sequence[tuple[str, str]], names: tuple[str, str]) -> str:
    return "".join(json.dumps(dict(zip(names, row, strict=True))) + "\n" for row in rows)


def _timed(folder: Path, words: Sequence[str] = ()) -> dict[str, float]:
    """The seconds of `hanse init` and of `hanse check`, which converts the model, too.

    words: of `hanse init`; without any, the demo's experiment is checked.
    """
    with tempfile.TemporaryDirectory(dir=folder) as home:
        if not words:
            return {"check": clock(partial(_run, home, "check", str(QUICKSTART)))}
        return {
            "init": clock(partial(_run, home, "init", *words, "--out", "own.yaml")),
            "check": clock(partial(_run, home, "check", "own.yaml")),
        }


def _run(home: str, *words: str) -> None:
    """A command in an empty home; raises CalledProcessError if it fails."""
    own = {name: home for name in ("HOME", "XDG_CACHE_HOME", "XDG_STATE_HOME")}
    command = (sys.executable, "-m", "hanse", *words)
    subprocess.run(command, cwd=home, env={**os.environ, **own}, check=True, capture_output=True)


def _lengths(folder: Path, language: str) -> dict[str, Any]:
    """The mean length of conversations that init writes, and that by the tokenizer of the model."""
    rows = [
        {"instruction": f"{n}?", "output": SENTENCES[language] * (1 + n * n % 7)}
        for n in range(LENGTH_ROWS)
    ]
    file = folder / f"{language}.jsonl"
    file.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    written = start([str(file)], 4, DEFAULT, folder / f"{language}.yaml", {}).plan.lengths
    tokenizer = AutoTokenizer.from_pretrained(locate(DEFAULT))
    counts = [_count(tokenizer, row) for row in rows]
    counted = statistics.fmean(min(count, written.max_length) for count in counts)
    return {
        "language": language,
        "written": written.mean,
        "counted": counted,
        "deviation": written.mean / counted - 1,
        "rows_counted": written.counted,
        "max_length": written.max_length,
        "longest": max(counts),
    }


def _count(tokenizer: Any, row: dict[str, str]) -> int:
    """The tokens of a conversation, as the chat template writes it."""
    messages = [
        {"role": role, "content": row[part]}
        for role, part in (("user", "instruction"), ("assistant", "output"))
    ]
    text = tokenizer.apply_chat_template(messages, tokenize=False)
    return len(tokenizer(text)["input_ids"])


if __name__ == "__main__":
    main()
