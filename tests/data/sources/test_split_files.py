"""Files named after a split are that split, and no others'."""

from pathlib import Path, PurePath
from typing import Any

import pytest

from hanse.data.sources import files
from hanse.data.sources.corpora import load
from hanse.data.sources.split_files import is_piece, split_of
from hanse.errors import UserError
from samples import write_lines


@pytest.mark.parametrize(
    ("name", "split"),
    [
        ("train.jsonl", "train"),
        ("training.csv", "train"),
        ("Train-00000-of-00003.parquet", "train"),
        ("train_data.json", "train"),
        ("trainset.txt", "train"),
        ("news-train.jsonl", "train"),
        ("train/north.jsonl", "train"),
        ("north/train.jsonl", "train"),
        ("test.jsonl", "test"),
        ("data/test-00000-of-00001.parquet", "test"),
        ("snli_1.0_test.csv", "test"),
        ("test/pos/0_9.txt", "test"),
        ("validation.jsonl", "validation"),
        ("valid.jsonl", "validation"),
        ("val.csv", "validation"),
        ("dev.tsv", "validation"),
        ("eval_set.json", "validation"),
        ("test/train-like.jsonl", "train"),
        ("north.jsonl", None),
        ("valencia.jsonl", None),
        ("contest.jsonl", None),
        ("device-1.csv", None),
        ("train_test_split.json", None),
    ],
)
def test_a_name_says_its_split(name: str, split: str | None) -> None:
    assert split_of(PurePath(name)) == split


def test_pieces_are_no_silos() -> None:
    assert all(map(is_piece, ["train", "data-00000-of-00002", "dev", "test-00001-of-00002"]))
    assert not any(map(is_piece, ["north", "silo-1", "valencia"]))


def _texts(folder: Path, *names: str) -> None:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        write_lines(folder / name, [{"text": f"{name} {number}"} for number in range(2)])


@pytest.mark.parametrize(
    "names",
    [
        ("train.jsonl", "test.jsonl", "validation.jsonl"),
        ("train/a.jsonl", "test/a.jsonl", "dev/a.jsonl"),
        ("train-00000-of-00001.jsonl", "test-00000-of-00001.jsonl", "val-00000-of-00001.jsonl"),
        ("en/train.jsonl", "en/test.jsonl", "en/valid.jsonl"),
    ],
)
def test_each_split_is_read_by_itself(tmp_path: Path, names: tuple[str, ...]) -> None:
    _texts(tmp_path, *names)
    for name, split in zip(names, ("train", "test", "validation"), strict=True):
        assert {row.text for row in load(str(tmp_path), split=split)} == {f"{name} 0", f"{name} 1"}
    assert len(load(str(tmp_path))) == 2, "unasked, those for training"


def test_a_folder_with_one_split_has_none(tmp_path: Path) -> None:
    for names in (("train-00000-of-00002.jsonl", "train-00001-of-00002.jsonl"), ("test.jsonl",)):
        folder = tmp_path / names[0]
        _texts(folder, *names)
        assert not files.splits(folder)
        assert len(load(str(folder), split="validation")) == 2 * len(names)


def test_a_split_that_is_not_there(tmp_path: Path) -> None:
    _texts(tmp_path, "train.jsonl", "test.jsonl")
    with pytest.raises(UserError, match="has no files of the split validation, only of"):
        load(str(tmp_path), split="validation")


def test_folders_of_splits_are_no_part_of_a_label(tmp_path: Path) -> None:
    _texts(tmp_path, *(f"{split}/{mood}/1.jsonl" for split in ("train", "test") for mood in "ab"))
    columns = {"label": "folder"}
    found = {
        split: load(str(tmp_path), columns=columns, split=split) for split in ("train", "test")
    }
    assert [{row.label for row in rows} for rows in found.values()] == [{"a", "b"}] * 2


def test_a_file_in_a_folder_that_may_not_be_listed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(folder: Path) -> Any:
        raise PermissionError(13, "Permission denied", str(folder))

    file = tmp_path / "train.jsonl"
    file.write_text("{}")
    (tmp_path / "test.jsonl").write_text("{}")
    assert files.beside(file) == {"test": tmp_path / "test.jsonl"}
    monkeypatch.setattr(Path, "iterdir", refuse)
    assert files.beside(file) == {}
