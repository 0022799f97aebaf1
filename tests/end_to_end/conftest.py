"""What tests on the real model, and on real processes, have in common."""

import json
import os
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from forked import forks
from hanse.errors import UserError
from hanse.learners.models.model_files import locate


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


@pytest.fixture
def figures() -> Callable[..., None]:
    """Keeps what a test has measured: a line in the file that CHAOS_FIGURES names, if it does."""

    def keep(what: str, **values: float) -> None:
        if file := os.environ.get("CHAOS_FIGURES"):
            with open(file, "a", encoding="utf-8") as lines:
                lines.write(json.dumps({"what": what, **values}) + "\n")

    return keep
