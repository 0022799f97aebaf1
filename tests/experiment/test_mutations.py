"""Experiments that somebody has mistyped: one sentence and exit code 2, or they are valid."""

import json
import random
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from hanse.data.formats.row import Record
from hanse.data.sources import corpora
from hanse.experiment import loading
from hanse.experiment.assembly.dataset.federated_dataset import divide
from hanse.experiment.schema import Experiment
from hanse.planning.first_experiment.start import start
from hanse.planning.preview import estimate
from samples import ROOT, reviews, write_lines

MUTANTS = 320
Draw = random.Random

STRANGE: tuple[Any, ...] = (
    None, True, -1, 0, 1, 2**70, -(2**70), 0.5, -0.5, 1e308, float("nan"), float("inf"), "", " ",
    "x", "fedprox", "a: b", "§ü☃", "a\nb", "\t", "x" * 5000, [], [1], [None], ["fedavg"], {},
    {"a": 1}, {"fedprox": {"mu": "x"}}, {1: 2}, {None: {}}, {"from": "x"}, {"path": None},
    "2001-01-01", "nowhere.py:Mine", "../up", "/", "{text}", [["x"]], {"iid": {}}, "no/where",
)  # fmt: skip
NAMES = (
    *("rounds", "path", "data", "train", "lora", "from", "clients", "silo-1", "algorithm", "x"),
    *("lora_r", "lr", "num-clients", "dataset", "epochs", "columns", "labels", "partition", ""),
)


class ReachedTheModelError(Exception):
    """A mutant is valid as far as its settings and its data go."""


def places(values: Any, above: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """The place of every key below."""
    if isinstance(values, dict):
        for key, value in values.items():
            yield (*above, key)
            yield from places(value, (*above, key))


def holder(values: dict[str, Any], place: tuple[Any, ...]) -> dict[Any, Any]:
    """The section that a place is in."""
    for key in place[:-1]:
        values = values[key]
    return values


def without(values: dict[str, Any], place: tuple[Any, ...], draw: Draw) -> None:
    del holder(values, place)[place[-1]]


def replaced(values: dict[str, Any], place: tuple[Any, ...], draw: Draw) -> None:
    holder(values, place)[place[-1]] = draw.choice(STRANGE)


def renamed(values: dict[str, Any], place: tuple[Any, ...], draw: Draw) -> None:
    section, name = holder(values, place), str(place[-1])
    names = (name[:-1], name + "s", name.upper(), name.replace("_", "-"), name[::-1], *NAMES, 7)
    section[draw.choice(names)] = section.pop(place[-1])


def added(values: dict[str, Any], place: tuple[Any, ...], draw: Draw) -> None:
    holder(values, place)[draw.choice(NAMES)] = draw.choice(STRANGE)


def swapped(values: dict[str, Any], place: tuple[Any, ...], draw: Draw) -> None:
    other = draw.choice(list(places(values)))
    if other[: len(place)] != place and place[: len(other)] != other:
        here, there = holder(values, place), holder(values, other)
        here[place[-1]], there[other[-1]] = there[other[-1]], here[place[-1]]


def moved_down(values: dict[str, Any], place: tuple[Any, ...], draw: Draw) -> None:
    section = holder(values, place)
    section[place[-1]] = {place[-1]: section[place[-1]]}


def retyped(values: dict[str, Any], place: tuple[Any, ...], draw: Draw) -> None:
    section = holder(values, place)
    value = section[place[-1]]
    kinds: tuple[Callable[[], Any], ...] = (
        lambda: str(value), lambda: [value], lambda: {"value": value}, lambda: f"{value} ",
        lambda: -value if isinstance(value, int | float) else None,
        lambda: value * 10**9 if isinstance(value, int | float) else [],
    )  # fmt: skip
    section[place[-1]] = draw.choice(kinds)()


CHANGES = (
    without,
    replaced,
    replaced,
    replaced,
    renamed,
    renamed,
    added,
    swapped,
    retyped,
    moved_down,
)


def mistyped(text: str, draw: Draw) -> str:
    """A text with one thing wrong in its letters or lines."""
    lines = text.splitlines(keepends=True)
    here = draw.randrange(len(lines))
    at = draw.randrange(len(text))
    kind = draw.randrange(9)
    if kind == 0:
        return text[:at]  # the rest is lost
    if kind == 1:
        return "".join([*lines[:here], "\t" + lines[here], *lines[here + 1 :]])
    if kind == 2:
        return "".join([*lines[: here + 1], *lines[here:]])  # twice
    if kind == 3:
        return "".join([*lines[:here], " " * draw.randint(1, 3) + lines[here], *lines[here + 1 :]])
    if kind == 4:
        draw.shuffle(lines)
        return "".join(lines)
    if kind == 5:
        return text[:at] + draw.choice("{}[]:#&*!|>'\"%@`,-?\0\u2028é☃\x07") + text[at:]
    if kind == 6:
        return "".join([*lines[:here], *lines[here + 1 :]])
    if kind == 7:
        return text.replace(": ", draw.choice((":", " ", "= ", ":  - ")), draw.randint(1, 3))
    return text[: at // 2] + text[at:]  # a piece is missing


def mutant(text: str, draw: Draw) -> str:
    """An experiment's text with one thing wrong, or a few."""
    if draw.random() < 0.35:
        return mistyped(text, draw)
    values = yaml.safe_load(text)
    for _ in range(draw.choice((1, 1, 1, 2, 3))):
        draw.choice(CHANGES)(values, draw.choice(list(places(values))), draw)
    return yaml.safe_dump(values, sort_keys=False, allow_unicode=True)


def small_reviews() -> Iterator[Record]:
    """What stands in for the corpora here."""
    for number, row in enumerate(reviews(60), 1):
        source = "rotten_tomatoes" if number % 3 else "imdb"
        yield f"reviews:{number}", {**row, "label": str(number % 2), "source": source}


def small_talks() -> Iterator[Record]:
    for number in range(1, 41):
        messages = [{"role": "user", "content": f"What is {number}?"},
                    {"role": "assistant", "content": f"It is {number}."}]  # fmt: skip
        talk = {"messages": messages, "answer": str(number), "topic": f"topic {number % 20}"}
        yield f"talks:{number}", talk


def small_sentences() -> Iterator[Record]:
    for number in range(1, 91):
        words = {"words": ["film", str(number)], "tags": ["NN", "CD"]}
        yield f"sentences:{number}", {**words, "category": f"genre {number % 15}"}


@pytest.fixture
def originals(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The published experiments, and some of `hanse init`, on small data."""
    small = {"movie-reviews": small_reviews, "gsm-symbolic": small_talks, "chatterbot": small_talks}
    small["brown"] = small_sentences
    monkeypatch.setattr(corpora, "CORPORA", small)
    monkeypatch.setattr(loading, "CORPORA", small)
    write_lines(tmp_path / "my own.jsonl", reviews(50))
    (tmp_path / "talks.json").write_text(json.dumps([record for _, record in small_talks()]))
    texts = [file.read_text() for file in sorted((ROOT / "experiments").glob("*.yaml"))]
    texts = [re.sub(r"(?m)^  (test|validation): \d+", r"  \1: 8", text) for text in texts]
    texts = [re.sub(r"(?m)^num_clients: \d{3,}", "num_clients: 4", text) for text in texts]
    for place, name in enumerate(("public", "silos", "validation", "test", "texts")):
        write_lines(tmp_path / f"{name}.jsonl", reviews(50, seed=place))
    # files that a script makes
    texts = [re.sub(r"\.\./runs/[\w-]+/(\w+\.jsonl)", r"\1", text) for text in texts]
    for number, names in enumerate(
        (["my own.jsonl"], ["talks.json"], ["my own.jsonl", "talks.json"])
    ):
        file = tmp_path / f"begun-{number}.yaml"
        start([str(tmp_path / name) for name in names], None, "smollm2-135m", file, {})
        texts.append(file.read_text(encoding="utf-8"))
    return texts


@pytest.fixture
def check(hanse: Callable[..., Any], monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    """`hanse check` of a text, up to where the model would be loaded: its exit code and stderr."""

    def stop_there(experiment: Experiment) -> None:
        divide(experiment)
        raise ReachedTheModelError

    monkeypatch.setattr(estimate, "preview", stop_there)

    def call(text: str) -> tuple[int, str]:
        (tmp_path / "mutant.yaml").write_text(text, encoding="utf-8")
        try:
            code, _, err = hanse("check", "mutant.yaml")
        except ReachedTheModelError:
            return 0, ""
        assert code, "the check neither reached the model nor ended"
        return code, err

    return call


def test_the_originals_are_valid(originals: list[str], check) -> None:
    assert len(originals) >= 5
    for text in originals:
        assert check(text)[0] == 0, check(text)[1] + text


def test_a_mutated_file_is_valid_or_met_with_one_sentence(originals: list[str], check) -> None:
    draw = Draw(0)
    wrong, sentences = 0, set()
    for number in range(MUTANTS):
        text = mutant(draw.choice(originals), draw)
        try:
            code, err = check(text)
        except Exception as error:
            pytest.fail(f"mutant {number} raised {error!r}:\n{text}")
        if code == 0:
            continue
        wrong += 1
        assert code == 2, text
        assert err.startswith("hanse: ") and err.count("\n") == 1, f"{err}\n{text}"
        assert "Traceback" not in err and len(err) < 1500, f"{err}\n{text}"
        sentences.add(err)
    assert wrong >= 200 and MUTANTS - wrong >= 30 and len(sentences) >= 120
