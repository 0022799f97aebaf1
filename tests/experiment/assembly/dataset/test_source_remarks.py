"""Files and columns that nothing uses are named once, with the setting that would use them."""

from pathlib import Path
from typing import Any

import pytest

from hanse.errors import UserError
from hanse.experiment.assembly.assemble import simulate
from hanse.experiment.assembly.dataset.federated_dataset import divide
from hanse.experiment.assembly.resources import Resources
from hanse.experiment.schema import Experiment
from samples import write_lines

CASES = [
    {"text": f"case {n}", "label": "ab"[n % 2], "topic": "xyz"[n % 3], "id": n} for n in range(60)
]


def _remarks(path: Path | str, clients: dict[str, Any] | None = None, **data: Any) -> list[str]:
    """The remarks on a division, without the settings that they offer."""
    values = {"num_clients": 2, "objective": "classify", "clients": clients or {}}
    settings = {"path": str(path), "client_test": 0, "test": 0, "validation": 0, **data}
    remarks = divide(Experiment.model_validate({**values, "data": settings})).remarks
    return [remark.partition(" (data.columns")[0] for remark in remarks]


def test_columns_in_a_template_are_in_use(tmp_path: Path) -> None:
    path = write_lines(tmp_path / "a.jsonl", CASES)
    template = "{topic}: {text}\nLabel:"
    assert _remarks(path) == [f"{path}: not used: topic, id"]
    assert _remarks(path, template=template) == [f"{path}: not used: id"]
    own = {"silo-1": {"data": {"template": template}}}
    assert _remarks(path, own) == [f"{path}: not used: id"]
    own = {
        "a": {"data": {"path": str(path), "template": template}},
        "b": {"data": {"path": str(path)}},
    }
    assert _remarks("-", own) == [f"{path}: not used: id", f"{path}: not used: topic, id"]
    public = write_lines(tmp_path / "b.jsonl", CASES[:9])
    shared = {"path": str(public), "template": template}
    assert f"{public}: not used: id" in _remarks(path, public=shared)


def test_a_text_without_a_label_has_no_template(tmp_path: Path) -> None:
    texts = [{"text": f"case {n}", "topic": f"a topic of its own {n}"} for n in range(20)]
    path = write_lines(tmp_path / "a.jsonl", texts)
    assert _remarks(path, template="{topic}: {text}") == [f"{path}: not used: topic"]


def test_remarks_on_one_file_come_once(tmp_path: Path) -> None:
    home = tmp_path / "data"
    home.mkdir()
    for split in ("train", "test", "validation"):
        rows = [{**row, "text": f"{split} {row['text']}"} for row in CASES]
        write_lines(home / f"{split}.jsonl", rows)
    (home / "README.txt").write_text("read me")
    remarks = _remarks(home, test=str(home), validation=str(home), public=str(home))
    assert remarks == [
        f"{home}: not read: README.txt, named like files that describe data.",
        f"{home}: not used: topic, id",
    ]
    rows = [{**row, "split": ("train", "test", "dev")[n // 20]} for n, row in enumerate(CASES)]
    path = write_lines(tmp_path / "all.jsonl", rows)
    remarks = _remarks(path, test=str(path), validation=str(path))
    assert remarks == [f"{path}: not used: topic, id"]


def test_files_of_a_test_folder_that_are_not_read_are_said(tmp_path: Path) -> None:
    path = write_lines(tmp_path / "a.jsonl", CASES)
    home = tmp_path / "held"
    home.mkdir()
    write_lines(home / "one.jsonl", [{**row, "text": f"held {row['text']}"} for row in CASES])
    (home / "two.xlsx").write_text("x")
    assert f"{home}: not read: two.xlsx; data are read from" in " ".join(
        _remarks(path, test=str(home))
    )


@pytest.mark.parametrize("named", [False, True])
def test_files_beside_a_clients_own_file_are_said(tmp_path: Path, named: bool) -> None:
    own = {}
    for name in ("north", "south"):
        (tmp_path / name).mkdir()
        rows = [{"text": f"{name} {n}", "label": "ab"[n % 2]} for n in range(20)]
        write_lines(tmp_path / name / "train.jsonl", rows)
        own[name] = {"data": {"path": str(tmp_path / name / "train.jsonl")}}
    test = tmp_path / "north" / "test.jsonl"
    write_lines(test, [{"text": f"test {n}", "label": "ab"[n % 2]} for n in range(9)])
    remarks = _remarks("-", own, test=str(test) if named else 0)
    assert remarks == ([] if named else [
        f"{tmp_path}/north/train.jsonl: test.jsonl beside it is not read; a client's own test rows "
        "are held out of its training file (data.client_test)."
    ])  # fmt: skip


def test_a_filter_without_rows_names_the_values(tmp_path: Path) -> None:
    path = write_lines(tmp_path / "a.jsonl", CASES)
    with pytest.raises(UserError, match=r"has topic 'w'; it has 'x', 'y', 'z'\."):
        _remarks(path, filter={"topic": "w"})


def test_an_experiment_with_the_numbers_of_classes_reads_numbers(tmp_path: Path) -> None:
    datasets = pytest.importorskip("datasets")
    label = datasets.ClassLabel(names=["neg", "pos"])
    features = datasets.Features({"text": datasets.Value("string"), "label": label})
    table = {"text": [f"case {n}" for n in range(40)], "label": [n % 2 for n in range(40)]}
    path = tmp_path / "a.parquet"
    datasets.Dataset.from_dict(table, features=features).to_parquet(path)

    def labels(**data: Any) -> tuple[dict[str, str], set[str | None]]:
        settings = {"path": str(path), "client_test": 0, **data}
        division = divide(Experiment.model_validate({"data": settings, "num_clients": 2}))
        return division.labels, {row.label for row in division.test}

    words = {"0": "negative", "1": "positive"}
    assert labels() == ({"neg": "neg", "pos": "pos"}, {"neg", "pos"})
    assert labels(labels=words) == (words, {"0", "1"})
    assert labels(filter={"label": "1"})[1] == {"1"}


def test_an_encoder_leaves_out_columns_of_the_template(
    tmp_path: Path, tiny_bert: Path, tiny_llama: Path
) -> None:
    path = write_lines(tmp_path / "a.jsonl", CASES)
    sentences = {}
    for model in (tiny_bert, tiny_llama):
        values = {
            "objective": "classify",
            "num_clients": 2,
            "model": {"model_name_or_path": str(model), "bf16": False},
            "data": {"path": str(path), "template": "{topic} {id}: {text}\nLabel:"},
        }
        remarks = simulate(Experiment.model_validate(values), Resources()).dataset.remarks
        sentences[model] = [remark for remark in remarks if "data.template" in remark]
    assert sentences[tiny_llama] == []
    assert sentences[tiny_bert] == [
        "not used: id, topic of data.template, since this model reads texts without a prompt; a "
        "causal model reads the whole template."
    ]
