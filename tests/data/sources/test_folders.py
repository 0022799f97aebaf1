"""Files that describe data are no data; what is not read is said; tables of `datasets` are read."""

import bz2
import gzip
import json
import lzma
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from hanse.data.formats.row import Row
from hanse.data.sources import corpora, files
from hanse.data.sources.readers.class_names import ClassSettings
from hanse.data.sources.split_files import TEST
from hanse.errors import UserError

DESCRIPTIONS = [
    *("dataset_info.json", "dataset_infos.json", "dataset_dict.json", "state.json"),
    *("croissant.json", "sub/dataset_info.json"),
]
DOCUMENTS = [  # which may be data if the user names them
    *("README.txt", "readme.json", "LICENSE.txt", "Licence-CC.txt", "CITATION.txt"),
    *("requirements.txt", "requirements-dev.txt"),
]
DATA = [
    "citations.json",
    "license_plates.json",
    "changelog.json",
    "requirements.json",
    "states.json",
]
SILENT = ["README.md", "LICENSE", ".gitattributes", ".cache/a.json", "load.py", "__pycache__/a.txt"]


def _load(path: Path, split: str = "train") -> tuple[list[Row], list[str]]:
    remarks: list[str] = []
    return corpora.load(str(path), remark=remarks.append, split=split), remarks


def _add(folder: Path, name: str, content: str | bytes = "{}") -> None:
    (folder / name).parent.mkdir(parents=True, exist_ok=True)
    (folder / name).write_bytes(content.encode() if isinstance(content, str) else content)


@pytest.mark.parametrize("name", [*DESCRIPTIONS, *DOCUMENTS])
def test_descriptions_are_left_out_and_said(tmp_path: Path, name: str) -> None:
    _add(tmp_path, "mine.jsonl", '{"text": "a"}')
    _add(tmp_path, name, '{"mine": {"file_name": "mine.jsonl"}}')
    rows, remarks = _load(tmp_path)
    assert [row.text for row in rows] == ["a"]
    assert remarks == [f"{tmp_path}: not read: {name}, named like files that describe data."]


@pytest.mark.parametrize("name", DESCRIPTIONS)
def test_descriptions_are_refused_by_name(tmp_path: Path, name: str) -> None:
    _add(tmp_path, name)
    with pytest.raises(UserError, match=r"describes data and holds none; name the data file or"):
        _load(tmp_path / name)


@pytest.mark.parametrize("name", [*DOCUMENTS, *DATA])
def test_a_file_that_the_user_names_is_read(tmp_path: Path, name: str) -> None:
    _add(tmp_path, name, '{"text": "a"}')
    assert len(_load(tmp_path / name)[0]) == 1


@pytest.mark.parametrize("name", DATA)
def test_names_that_only_begin_like_documents_are_data(tmp_path: Path, name: str) -> None:
    _add(tmp_path, name, '{"text": "a"}')
    assert len(_load(tmp_path)[0]) == 1


@pytest.mark.parametrize("name", SILENT)
def test_documents_need_no_remark(tmp_path: Path, name: str) -> None:
    _add(tmp_path, "mine.jsonl", '{"text": "a"}')
    _add(tmp_path, name)
    assert _load(tmp_path)[1] == []


@pytest.mark.parametrize("name", ["a.jsonl", "a.parquet", "a.csv", "a.arrow"])
def test_pointers_of_git_lfs_are_named(tmp_path: Path, name: str) -> None:
    _add(tmp_path, name, "version https://git-lfs.github.com/spec/v1\noid sha256:1\nsize 2\n")
    with pytest.raises(
        UserError, match=r"is a pointer of Git LFS, not the data; run `git lfs pull`"
    ):
        _load(tmp_path)


def test_files_with_other_endings_are_said(tmp_path: Path) -> None:
    _add(tmp_path, "a.jsonl", '{"text": "a"}')
    for name in ("b.xlsx", "c.docx", "d.pdf", "e.zip"):
        _add(tmp_path, name)
    [remark] = _load(tmp_path)[1]
    assert remark.startswith(f"{tmp_path}: not read: b.xlsx, c.docx, d.pdf and 1 more; data are re")


def test_a_folder_with_nothing_but_descriptions(tmp_path: Path) -> None:
    _add(tmp_path, "dataset_info.json")
    with pytest.raises(UserError, match="holds no data"):
        _load(tmp_path)


@pytest.mark.parametrize(
    ("ending", "compress"), [("gz", gzip.compress), ("bz2", bz2.compress), ("xz", lzma.compress)]
)
def test_compressed_files(tmp_path: Path, ending: str, compress: Callable[[bytes], bytes]) -> None:
    _add(tmp_path, f"a.jsonl.{ending}", compress(b'{"text": "a"}'))
    _add(tmp_path, "b.csv", "text\nb\n")
    rows, remarks = _load(tmp_path)
    assert [(row.text, row.fields["file"]) for row in rows] == [("a", "a"), ("b", "b")]
    assert not remarks
    _add(tmp_path, f"a.jsonl.{ending}", compress(b'{"text": "a"}' * 99)[:-9])
    with pytest.raises(UserError, match=rf"a.jsonl.{ending} cannot be decompressed: "):
        _load(tmp_path / f"a.jsonl.{ending}")


@pytest.fixture
def saved(tmp_path: Path) -> Path:
    """A data set with named classes, for training and for test, as `datasets` stores it."""
    datasets = pytest.importorskip("datasets")
    names = {"label": ["neg", "pos"], "ner": ["O", "B-X"]}
    label, tag = (datasets.ClassLabel(names=names[column]) for column in names)
    text = datasets.Value("string")
    features = datasets.Features(
        {"text": text, "label": label, "ner": datasets.Sequence(tag), "old": [tag]}
    )
    table = {"text": ["a", "b", "c"], "label": [1, 0, -1], "ner": [[1, 0], [0], []]}
    whole = datasets.Dataset.from_dict({**table, "old": table["ner"]}, features=features)
    parts = {"train": whole.select([0, 1]), "test": whole.select([1])}
    datasets.DatasetDict(parts).save_to_disk(tmp_path / "saved")
    whole.to_parquet(tmp_path / "a.parquet")
    _add(tmp_path / "saved", "train/cache-1f.arrow", b"x")
    return tmp_path


def test_a_data_set_saved_to_disk(saved: Path) -> None:
    rows, remarks = _load(saved / "saved")
    assert [(row.text, row.label) for row in rows] == [("a", "pos"), ("b", "neg")]
    assert len(remarks) == 1 and "named like files that describe data" in remarks[0]
    assert [row.text for row in _load(saved / "saved", TEST)[0]] == ["b"]
    [file] = (saved / "saved" / "train").glob("data-*.arrow")
    assert len(_load(file)[0]) == 2
    file.write_bytes(file.read_bytes()[:-200])
    with pytest.raises(UserError, match=r"cannot be read as arrow: .*; write it again"):
        _load(file)


def test_an_arrow_file_with_an_index(saved: Path) -> None:
    pa = pytest.importorskip("pyarrow")
    table = pa.table({"text": ["a", "b"]})
    with pa.OSFile(str(saved / "b.arrow"), "wb") as sink, pa.ipc.new_file(sink, table.schema) as to:
        to.write_table(table)
    assert [row.text for row in _load(saved / "b.arrow")[0]] == ["a", "b"]


def test_classes_have_their_names(saved: Path) -> None:
    records: list[Any] = [record for _, record in files.records(saved / "a.parquet")]
    assert [record["label"] for record in records] == ["pos", "neg", None]
    assert [record["ner"] for record in records] == [["B-X", "O"], ["O"], []]
    assert records[0]["old"] == ["B-X", "O"]


def test_odd_descriptions_in_a_table_name_nothing(tmp_path: Path) -> None:
    pa = pytest.importorskip("pyarrow")
    pq = pytest.importorskip("pyarrow.parquet")
    odd: list[Any] = [
        {"info": {"features": {"label": {"_type": "ClassLabel"}, "x": 3, "y": [1, 2]}}}
    ]
    odd += [
        {"info": None},
        [],
        {"info": {"features": {"gone": {"names": ["a"], "_type": "ClassLabel"}}}},
    ]
    for number, value in enumerate(odd):
        table = pa.table({"text": ["a"], "label": [1]})
        table = table.replace_schema_metadata({b"huggingface": json.dumps(value)})
        pq.write_table(table, tmp_path / f"{number}.parquet")
    assert [row.label for row in _load(tmp_path)[0]] == ["1"] * len(odd)


@pytest.mark.parametrize(
    ("labels", "filter", "read"),
    [
        ({}, {}, ["pos", "neg"]),
        ({"neg": "bad", "pos": "good"}, {}, ["pos", "neg"]),
        ({"0": "bad", "1": "good"}, {}, ["1", "0"]),
        ({}, {"label": "1"}, ["1", "0"]),
        ({}, {"label": "pos"}, ["pos", "neg"]),
        ({}, {"text": "1"}, ["pos", "neg"]),
        ({"0": "bad", "1": "good", "2": "other"}, {}, ["pos", "neg"]),
    ],
)
def test_classes_that_settings_give_by_number_keep_their_numbers(
    saved: Path, labels: dict[str, str], filter: dict[str, str], read: list[str]
) -> None:
    for source in ("saved", "a.parquet"):
        rows = corpora.load(
            str(saved / source),
            {"text": "text", "label": "label"},
            skip_invalid=True,
            classes=ClassSettings(labels, filter),
        )
        assert [row.label for row in rows][:2] == read


def test_names_that_are_numbers_are_names() -> None:
    stars = ["1", "2", "3"]
    assert not ClassSettings(["1", "2"]).by_number("stars", stars)
    assert ClassSettings(["0", "1", "2"]).by_number("stars", stars)
