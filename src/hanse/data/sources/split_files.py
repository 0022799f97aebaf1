"""Files that are named after a split, as datasets, mlx-lm and the hub lay them out.

A folder has splits if some of its files are named for training and some for another split: by a
word of the file's name (train.jsonl, test-00000-of-00003.parquet, news_dev.csv) or of a folder's
(train/north.jsonl).
"""

import re
from collections.abc import Iterable, Mapping
from pathlib import Path, PurePath

TRAIN, VALIDATION, TEST = "train", "validation", "test"
WORDS = {
    **dict.fromkeys(("train", "training"), TRAIN),
    **dict.fromkeys(("validation", "valid", "val", "dev", "eval", "evaluation"), VALIDATION),
    **dict.fromkeys(("test", "testing"), TEST),
}
_GLUED = re.compile(r"(?:set|data|file|split)$")  # as in trainset
_SHARD = re.compile(r"-\d{5}-of-\d{5}")  # as the hub numbers the pieces of one file


def split_of(path: PurePath) -> str | None:
    """The split that a file's name or one of its folders' says, the innermost first."""
    for part in (path.stem, *reversed(path.parent.parts)):
        words = {_GLUED.sub("", word) or word for word in re.findall(r"[a-z]+", part.casefold())}
        found = {WORDS[word] for word in words & WORDS.keys()}
        if len(found) == 1:
            return found.pop()
    return None


def layout(folder: Path, files: Iterable[Path]) -> Mapping[str | None, list[Path]]:
    """The files of each split; under None those of no split. Empty if a folder has no splits."""
    found: dict[str | None, list[Path]] = {}
    for file in files:
        found.setdefault(split_of(file.relative_to(folder)), []).append(file)
    return found if TRAIN in found and found.keys() & {VALIDATION, TEST} else {}


def beside_splits(folder: PurePath) -> PurePath:
    """A folder's path without the parts that are named after a split."""
    return PurePath(*(part for part in folder.parts if split_of(PurePath(part)) is None))


def is_piece(name: str) -> bool:
    """Whether a name is that of a split or of a numbered piece, and so of no silo."""
    return split_of(PurePath(name)) is not None or _SHARD.search(name) is not None
