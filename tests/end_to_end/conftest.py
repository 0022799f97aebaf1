"""What tests on the real model, and on real processes, have in common."""

import json
import os
import tempfile
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import pytest

import tiny_models
from forked import forks
from hanse.errors import UserError
from hanse.learners.models.model_files import PACKAGED, locate
from samples import ROOT, reviews, write_lines
from standing_federation import StandingFederation, standing_federation


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Begin with the real model: no worker is to wait at the end for the longest tests."""
    items.sort(key=lambda item: "smollm2" not in getattr(item, "fixturenames", ()))


@pytest.fixture
def smollm2() -> None:
    """Skip without the packages that carry SmolLM2."""
    try:
        locate("smollm2-135m")
    except UserError as error:
        pytest.skip(str(error))


@pytest.fixture(scope="session")
def hanse() -> Iterator[Path]:
    """The program, quick to start."""
    with tempfile.TemporaryDirectory(prefix="hanse-") as folder, forks(Path(folder)) as program:
        yield program


@pytest.fixture(scope="session")
def tiny_packages(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder for PYTHONPATH in which the packages that carry models hold tiny random ones.

    The tokenizers know the words of examples/tickets.jsonl, and its labels as one token each.
    """
    home = tmp_path_factory.mktemp("packages")
    lines = (ROOT / "examples" / "tickets.jsonl").read_text(encoding="utf-8").splitlines()
    rows = [json.loads(line) for line in lines]
    texts = [" ".join([row["text"], *[row["label"]] * 20]) for row in rows]
    llama = partial(tiny_models.save_llama, layers=6)  # a model that can be cut
    save = {"smollm2-135m": llama, "minilm-l6": tiny_models.save_bert}
    for name, (module, place, _) in PACKAGED.items():
        package = home / module
        package.mkdir()
        (package / "__init__.py").touch()
        save[name](package / place, texts)  # a folder, even where the package holds a GGUF file
    return home


@pytest.fixture
def figures() -> Callable[..., None]:
    """Keeps what a test has measured: a line in the file that CHAOS_FIGURES names, if it does."""

    def keep(what: str, **values: float) -> None:
        if file := os.environ.get("CHAOS_FIGURES"):
            with open(file, "a", encoding="utf-8") as lines:
                lines.write(json.dumps({"what": what, **values}) + "\n")

    return keep


@pytest.fixture(scope="session")
def standing(tmp_path_factory: pytest.TempPathFactory) -> Iterator[StandingFederation]:
    """Its rows are reviews, and in further columns a question with two answers."""
    home = tmp_path_factory.mktemp("standing")
    rows = [
        {**row, "question": f"Review {number}:", "better": " good", "worse": " bad"}
        for number, row in enumerate(reviews(160))
    ]
    with standing_federation(home, write_lines(home / "rows.jsonl", rows)) as parts:
        yield parts
