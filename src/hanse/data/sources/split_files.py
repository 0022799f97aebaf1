"""Files that are named after a split, in the layouts of datasets, mlx-lm and the hub.

A folder has splits if some of its files are named for training and some for another split, by a
word in a file's name (train.jsonl, test-00000-of-00003.parquet, news_dev.csv) or in a folder's
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
_SUFFIX = re.compile(r"(?:set|data|file|split)$")  # as in trainset
_SHARD = re.compile(r"-\d{5}-of-\d{5}")  # the hub's numbers of the pieces of one file


def split_of(path: PurePath) -> str | None:
    """The split in a file's name, or else in the name of its innermost folder that has one."""
    for part in (path.stem, *reversed(path.parent.parts)):
        words = {_SUFFIX.sub("", word) or word for word in re.findall(r"[a-z]+", part.casefold())}
        splits = {WORDS[word] for word in words & WORDS.keys()}
        if len(splits) == 1:
            return splits.pop()
    return None


def layout(folder: Path, files: Iterable[Path]) -> Mapping[str | None, list[Path]]:
    """The files of each split, and under None the others; empty if a folder has no splits."""
    by_split: dict[str | None, list[Path]] = {}
    for file in files:
        by_split.setdefault(split_of(file.relative_to(folder)), []).append(file)
    return by_split if TRAIN in by_split and by_split.keys() & {VALIDATION, TEST} else {}


def without_splits(folder: PurePath) -> PurePath:
    """A folder's path without the parts that are named after a split."""
    return PurePath(*(part for part in folder.parts if split_of(PurePath(part)) is None))


def is_shard(name: str) -> bool:
    """Tell if a name is that of a numbered piece of a file."""
    return _SHARD.search(name) is not None


def is_piece(name: str) -> bool:
    """Tell if a name is that of a split or of a numbered piece, and therefore of no silo."""
    return split_of(PurePath(name)) is not None or is_shard(name)
