"""What lies in files of its own is scored and watched, and never trained on."""

from pathlib import Path
from typing import Any

import pytest

from hanse.data.formats.turns import answers
from hanse.deployment.server.preconditions import refuse_unfit
from hanse.deployment.server.serve import _server_dataset
from hanse.deployment.silo import settings
from hanse.deployment.silo.job import JobRefusedError, received
from hanse.errors import UserError
from hanse.experiment.assembly.assemble import simulate
from hanse.experiment.assembly.dataset.federated_dataset import FederatedDataset, divide
from hanse.experiment.assembly.dataset.source_rows import gather
from hanse.experiment.assembly.resources import Resources
from hanse.experiment.loading import load
from hanse.experiment.schema import Experiment
from hanse.experiment.sections import Data
from hanse.journal.yaml_text import dump
from hanse.serving.evaluate import _rows
from samples import write_lines

SIZES = {"train": 40, "test": 12, "validation": 7}


def _rows_of(split: str, count: int) -> list[dict[str, str]]:
    return [{"text": f"{split} case {n}", "label": ("red", "blue")[n % 2]} for n in range(count)]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder with a file for each split, and one of no split."""
    home = tmp_path / "data"
    home.mkdir()
    for split, count in SIZES.items():
        write_lines(home / f"{split}.jsonl", _rows_of(split, count))
    return home


def _written(file: Path, data: str, more: str = "") -> Path:
    file.write_text(f"num_clients: 2\nobjective: classify\ndata: {{{data}}}\n{more}")
    return file


def _sides(found: FederatedDataset) -> dict[str, set[str]]:
    """The first words of the rows of each part: the files they come from."""
    own = [row for rows in (*found.train.values(), *found.held.values()) for row in rows]
    parts = {"own": own, "test": found.test, "validation": found.validation}
    return {name: {row.text.split()[0].lower() for row in rows} for name, rows in parts.items()}


OWN = {"own": {"train"}, "test": {"test"}, "validation": {"validation"}}


@pytest.mark.parametrize(
    "data",
    [
        "path: data",
        "path: data, test: data, validation: data",
        "path: data/train.jsonl, test: data/test.jsonl, validation: data/validation.jsonl",
    ],
)
def test_each_file_is_for_what_its_name_says(folder: Path, data: str) -> None:
    experiment = load(_written(folder.parent / "e.yaml", data))
    found = divide(experiment)
    assert _sides(found) == OWN and not found.remarks
    assert (len(found.test), len(found.validation)) == (12, 7)
    assert sum(map(len, (*found.train.values(), *found.held.values()))) == 40
    assert [row.text for row in found.test] == [row["text"] for row in _rows_of("test", 12)]
    assert divide(Experiment.model_validate(experiment.resolved())) == found


def test_a_number_beside_a_file_of_its_own_is_said(folder: Path) -> None:
    found = divide(load(_written(folder.parent / "e.yaml", "path: data, test: 5")))
    assert _sides(found) == {"own": {"train"}, "test": {"train"}, "validation": {"validation"}}
    assert len(found.test) == 5
    [remark] = found.remarks
    assert "test.jsonl: not read, data.test names none of them." in remark
    write_lines(folder / "notes.jsonl", _rows_of("notes", 3))
    found = divide(load(_written(folder.parent / "e.yaml", "path: data")))
    assert _sides(found) == OWN
    assert "notes.jsonl: not read, they are named for no split." in found.remarks[0]


def test_files_beside_the_training_file_are_said(folder: Path) -> None:
    data = "path: data/train.jsonl, test: data/test.jsonl"
    [remark] = divide(load(_written(folder.parent / "e.yaml", data))).remarks
    file = folder / "validation.jsonl"
    assert f"train.jsonl: validation.jsonl beside it is not read; data.validation: {file}" in remark
    (folder / "train.jsonl").rename(folder / "north.jsonl")
    assert not divide(load(_written(folder.parent / "e.yaml", "path: data/north.jsonl"))).remarks


def test_what_training_and_test_share_is_not_trained_on(folder: Path) -> None:
    shouted = [{**row, "text": row["text"].upper()} for row in _rows_of("test", 5)]
    again = [{**row, "label": "red"} for row in _rows_of("validation", 3)]
    write_lines(folder / "train.jsonl", [*_rows_of("train", 40), *shouted, *again])
    watched = [*_rows_of("validation", 7), *_rows_of("test", 2)]
    write_lines(folder / "validation.jsonl", watched)
    found = divide(load(_written(folder.parent / "e.yaml", "path: data")))
    assert _sides(found) == OWN
    assert (len(found.test), len(found.validation)) == (12, 7), "the test stays as it is"
    assert [remark.partition(":")[0] for remark in found.remarks] == [
        "2 rows are left out of validation",
        "8 rows are left out of training",
    ]


def test_training_on_nothing_but_the_test(folder: Path) -> None:
    data = "path: data/test.jsonl, test: data/test.jsonl, validation: 0"
    with pytest.raises(UserError, match=r"every training row is also in the files of data.test"):
        divide(load(_written(folder.parent / "e.yaml", data)))


def test_other_test_rows_are_other_data(folder: Path) -> None:
    experiment = load(_written(folder.parent / "e.yaml", "path: data"))
    before = divide(experiment).digest
    write_lines(folder / "test.jsonl", _rows_of("test", 13))
    assert divide(experiment).digest != before


def test_silos_with_files_of_their_own_share_a_test_file(folder: Path) -> None:
    for name in ("north", "south"):
        write_lines(folder / f"{name}.jsonl", [*_rows_of(name, 20), *_rows_of("test", 2)])
    clients = "clients: {north: {data: {path: data/north.jsonl}}, "
    clients += "south: {data: {path: data/south.jsonl}}}\n"
    data = "test: data/test.jsonl, validation: 0, labels: {red: red, blue: blue}"
    experiment = load(_written(folder.parent / "e.yaml", data, clients))
    found = divide(experiment)
    assert _sides(found) | {"validation": set()} == {
        "own": {"north", "south"}, "test": {"test"}, "validation": set()
    }  # fmt: skip
    assert "4 rows are left out of training" in found.remarks[0]
    refuse_unfit(experiment)
    unseen = _server_dataset(experiment)
    assert unseen is not None and unseen.test == found.test and not unseen.train
    assert "nobody can check whether rows that the server" in unseen.remarks[0]
    (folder / "notes.xlsx").write_text("x")
    data = "test: data, validation: data, labels: {red: red, blue: blue}"
    unseen = _server_dataset(load(_written(folder.parent / "e.yaml", data, clients)))
    assert unseen is not None and len(unseen.remarks) == 2
    assert "notes.xlsx; data are read from" in unseen.remarks[1]


def test_a_silo_opens_no_file_that_a_server_names(folder: Path, tmp_path: Path) -> None:
    own = {name: {"data": {"path": "/nowhere"}} for name in ("north", "south")}
    told: dict[str, Any] = {"data": {"test": "/etc/passwd", "validation": "/etc"}}
    (tmp_path / "silo.yaml").write_text(
        "name: north\nserver: 127.0.0.1:8000\n"
        f"data: {{path: {folder / 'train.jsonl'}}}\nstate: {tmp_path / 'state'}\n"
    )
    silo = settings.load(tmp_path / "silo.yaml")
    text = dump(Experiment.model_validate({**told, "clients": own}).resolved())
    data = received(text, silo).experiment.data
    assert (data.test, data.validation) == (0, 0)
    alone = {**told, "num_clients": 1}
    text = dump(Experiment.model_validate(alone).resolved())
    silo = silo.model_copy(update={"name": "silo-1"})
    with pytest.raises(JobRefusedError, match="a silo opens no file that a server names"):
        received(text, silo)
    with pytest.raises(UserError, match=r"data.test names a file, and every silo would need"):
        refuse_unfit(Experiment.model_validate(alone))


def test_a_folder_is_scored_by_its_test_files(folder: Path) -> None:
    experiment = Experiment.model_validate({"data": {"path": str(folder)}})
    assert {row.text.split()[0] for row in _rows(folder, experiment, str(folder), "test")} == {
        "test"
    }


def test_another_file_is_scored_whole(folder: Path) -> None:
    data = {"path": str(folder), "filter": {"label": "red"}}
    experiment = Experiment.model_validate({"data": data})
    assert len(_rows(folder, experiment, str(folder / "test.jsonl"), "test")) == 12
    write_lines(folder / "other.jsonl", [{"text": "a", "label": "red", "topic": "b"}])
    assert len(_rows(folder, experiment, str(folder / "other.jsonl"), "test")) == 1


def test_a_run_learns_from_its_training_file_alone(folder: Path, tiny_llama: Path) -> None:
    model = f"model: {{model_name_or_path: {tiny_llama}, bf16: false}}\n"
    made = simulate(load(_written(folder.parent / "e.yaml", "path: data", model)), Resources())
    sizes = {split: len(made.learner.examples(split)) for split in ("test", "validation")}
    assert sizes == {"test": 12, "validation": 7}


def test_earlier_answers_are_masked_on_request(tmp_path: Path) -> None:
    turns = [{"role": role, "content": role} for role in ("user", "assistant") * 2]
    bad = {"role": "assistant", "content": "bad", "weight": 0}
    talks = [turns, [*turns, {"role": "user", "content": "more"}], [*turns, turns[0], bad]]
    write_lines(tmp_path / "talks.jsonl", [{"messages": talk} for talk in talks])
    data: dict[str, Any] = {"path": str(tmp_path / "talks.jsonl"), "test": 0, "validation": 0}
    settings: dict[str, Any] = {"objective": "sft", "num_clients": 1}
    plain = gather(Experiment(**settings, data=Data(**data))).rows
    assert [answers(row.messages) for row in plain] == [[1, 3]] * 3
    experiment = Experiment(**settings, data=Data(**data, mask_history=True))
    masked = gather(experiment).rows
    assert [answers(row.messages) for row in masked] == [[3]] * 3
    assert _rows(tmp_path, experiment, data["path"], "test") == masked, "those of another file, too"
    texts = [[turn["content"] for turn in row.messages] for row in masked]
    assert texts == [[turn["content"] for turn in row.messages] for row in plain]
