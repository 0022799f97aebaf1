"""A column tells the rows for training from those for test and validation, in one file."""

import gzip
from pathlib import Path

import pytest

from hanse.data.formats.row import Row, row
from hanse.data.sources.split_column import by_split, column
from hanse.errors import UserError
from hanse.experiment.assembly.dataset.federated_dataset import divide
from hanse.experiment.loading import load
from hanse.experiment.schema import Experiment
from hanse.planning.first_experiment.start import start
from samples import write_lines

SIZES = {"train": 40, "test": 12, "validation": 7}


def _rows(name: str, *values: str | None) -> list[Row]:
    return [row({"text": "a", name: value}, "f:1") for value in values]


@pytest.mark.parametrize("name", ["split", "Split", "subset", "data_split", "set", "partition"])
@pytest.mark.parametrize(
    "values", [("train", "test"), ("Train", "DEV"), ("training", "val"), ("trainset", "testset")]
)
def test_columns_that_tell_splits(name: str, values: tuple[str, str]) -> None:
    rows = _rows(name, *values)
    assert column(rows) == name
    assert [len(held) for held in by_split(rows).values()] == [1, 1]


@pytest.mark.parametrize(
    ("name", "values"),
    [
        ("split", ("train", "train")),
        ("split", ("test", "validation")),
        ("split", ("train", "test", None)),
        ("split", ("train", "test", "other")),
        ("split", ("1", "2")),
        ("topic", ("train", "test")),
    ],
)
def test_other_columns(name: str, values: tuple[str | None, ...]) -> None:
    assert column(_rows(name, *values)) is None


def test_a_label_is_no_split() -> None:
    rows = [row({"text": "a", "set": x}, "f:1", {"label": "set"}) for x in ("train", "test")]
    assert column(rows) is None


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "all.jsonl"
    rows = [
        {"text": f"{split} case {n}", "label": ("red", "blue")[n % 2], "split": split}
        for split, count in SIZES.items()
        for n in range(count)
    ]
    write_lines(path, rows)
    return path


def _divided(file: Path, **data: object) -> tuple[dict[str, set[str]], tuple[str, ...]]:
    values = {"data": {"path": str(file), "client_test": 0, **data}, "num_clients": 2}
    found = divide(Experiment.model_validate(values))
    parts = {"train": [*found.train.values()], "test": [found.test], "dev": [found.validation]}
    texts = {
        name: {row.text.split()[0] for rows in part for row in rows} for name, part in parts.items()
    }
    return texts, found.remarks


def test_each_row_is_for_what_its_column_says(file: Path) -> None:
    texts, remarks = _divided(file, test=str(file), validation=str(file))
    assert texts == {"train": {"train"}, "test": {"test"}, "dev": {"validation"}}
    assert not remarks
    texts, remarks = _divided(file, test=str(file), validation=5)
    assert texts == {"train": {"train"}, "test": {"test"}, "dev": {"train"}}
    assert remarks == (f"{file}: not read: the rows whose split names 7 for validation.",)


def test_another_file_for_a_split_is_read_for_that_split_alone(file: Path, tmp_path: Path) -> None:
    rows = [{"text": f"own {n}", "label": ("red", "blue")[n % 2]} for n in range(30)]
    path = write_lines(tmp_path / "own.jsonl", rows)
    texts, remarks = _divided(path, test=str(file), validation=str(file))
    assert texts == {"train": {"own"}, "test": {"test"}, "dev": {"validation"}}
    assert remarks == (f"{file}: not read: the rows whose split names 40 for train.",)


def test_a_file_of_test_and_validation_rows_is_read_by_its_column(
    file: Path, tmp_path: Path
) -> None:
    lines = file.read_text().splitlines(keepends=True)
    held = tmp_path / "held.jsonl"
    held.write_text("".join(line for line in lines if '"split": "train"' not in line))
    texts, remarks = _divided(file, test=str(held), validation=str(held), filter={"label": "red"})
    assert texts["test"] == {"test"} and texts["dev"] == {"validation"}
    assert not any("not used" in remark or "not read" in remark for remark in remarks)


def test_public_rows_of_other_splits_are_said(file: Path, tmp_path: Path) -> None:
    rows = [{"text": f"own {n}", "label": ("red", "blue")[n % 2]} for n in range(30)]
    path = write_lines(tmp_path / "own.jsonl", rows)
    _, [remark] = _divided(path, test=5, validation=5, public=str(file))
    assert remark == (
        f"{file}: split names rows 12 for test and 7 for validation, but all rows are public; "
        "data.public.filter: {split: train} keeps the training rows."
    )
    public = {"path": str(file), "filter": {"split": "train"}}
    assert _divided(path, test=5, validation=5, public=public)[1] == ()


def test_init_says_that_a_silo_trains_on_all_splits_of_its_file(file: Path, tmp_path: Path) -> None:
    other = tmp_path / "other.jsonl.gz"
    other.write_bytes(gzip.compress(file.read_bytes()))
    written = start([str(file), str(other)], None, "smollm2-135m", tmp_path / "two.yaml", {})
    assert list(written.sources) == ["all", "other"]
    for source in written.sources.values():
        assert "but all rows are trained on; data.filter: {split: train}" in source.remarks[0]


def test_training_on_test_rows_is_said(file: Path) -> None:
    texts, [remark] = _divided(file, test=0, validation=0)
    assert texts["train"] == {"train", "test", "validation"}
    assert remark == (
        f"{file}: split names rows 12 for test and 7 for validation, but all rows are trained on; "
        "name the same file in data.test and data.validation to score them instead."
    )
    _, remarks = _divided(file, test=0, validation=0, filter={"split": "train"})
    assert not remarks


def test_init_names_the_file_for_each_split(file: Path, tmp_path: Path) -> None:
    written = start([str(file)], 2, "smollm2-135m", tmp_path / "all.yaml", {})
    [source] = written.sources.values()
    assert [len(source.rows), *(len(held.rows) for held in written.held.values())] == [40, 12, 7]
    assert source.remarks == ["split tells which rows are for train, test, validation."]
    found = divide(load(written.file))
    assert (len(found.test), len(found.validation)) == (12, 7)
    assert {row.text.split()[0] for rows in found.train.values() for row in rows} == {"train"}


def test_init_finds_the_files_beside_a_training_file(tmp_path: Path) -> None:
    for split, count in SIZES.items():
        rows = [{"text": f"{split} {n}", "label": str(n % 2)} for n in range(count)]
        write_lines(tmp_path / f"{split}.jsonl", rows)
    path = str(tmp_path / "train.jsonl")
    written = start([path], 2, "smollm2-135m", tmp_path / "a.yaml", {})
    assert {split: len(held.rows) for split, held in written.held.items()} == {
        "test": 12,
        "validation": 7,
    }
    found = divide(load(written.file))
    assert (len(found.test), len(found.validation), found.remarks) == (12, 7, ())


def test_a_split_without_rows_is_not_all_rows(tmp_path: Path) -> None:
    rows = [
        {"text": f"case {n}", "label": "ab"[n % 2], "split": ("train", "dev")[n % 3 == 0]}
        for n in range(30)
    ]
    path = write_lines(tmp_path / "two.jsonl", rows)
    sentence = (
        r"data.test names .*two.jsonl, whose column split has rows for train and validation only; "
        "name another file there, or the number of rows to hold out"
    )
    with pytest.raises(UserError, match=sentence):
        _divided(path, test=str(path), validation=str(path))


def test_training_on_test_rows_of_a_client_is_said(file: Path) -> None:
    own = {
        "a": {"data": {"path": str(file)}},
        "b": {"data": {"path": str(file), "filter": {"split": "train"}}},
    }
    values = {"data": {"client_test": 0, "test": 0, "validation": 0}, "clients": own}
    remarks = divide(Experiment.model_validate(values)).remarks
    assert remarks == (
        f"{file}: split names rows 12 for test and 7 for validation, but all rows are trained on; "
        "data.filter: {split: train} of this client keeps the training rows.",
    )
