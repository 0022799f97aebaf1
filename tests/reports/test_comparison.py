"""Compared runs: paired where the items are the same, with a note where they are not."""

import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest

from folders import EVIL, baselines_folder, finished, record, run_folder
from hanse.errors import UserError
from hanse.evaluation.metrics.confidence import paired
from hanse.experiment.named_model import NamedModel
from hanse.reports.comparison.comparison import compare
from hanse.reports.comparison.page import table, write_comparison
from reports.test_run_page import Page, words

OLD = [1.0, 0.0, 1.0, 0.0, 1.0, 1.0, 0.0, 0.0]
NEW = [1.0, 1.0, 1.0, 0.0, 1.0, 0.0, 1.0, 1.0]


def run(home: Path, items: list[float], digest: str | None = "ab", **settings: Any) -> Path:
    """A finished run with these items of the test after training."""
    folder = finished(home, [0.0] * len(items), items, **settings)
    if digest is not None:
        (folder / "machine.json").write_text(json.dumps({"data": digest}))
    return folder


def test_the_same_items_are_paired(tmp_path: Path) -> None:
    found = compare([run(tmp_path / "a", OLD), run(tmp_path / "b", NEW)])
    assert (found.metric, found.split) == ("accuracy", "test")
    assert [one.score for one in found.runs] == [0.5, 0.75]
    assert found.runs[0].difference is None
    gain = found.runs[1].difference
    assert gain == paired(NEW, OLD) and gain is not None
    assert (gain.value, gain.low < 0 < gain.high) == (0.25, True)
    assert found.remarks == ()


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"data": {"test": 9}}, "its test rows are others"),
        ({"data": {"split_seed": 1}}, "its test rows are others"),
    ],
)
def test_other_test_rows_are_not_paired(
    tmp_path: Path, change: dict[str, Any], reason: str
) -> None:
    found = compare([run(tmp_path / "a", OLD), run(tmp_path / "b", NEW, **change)])
    assert found.runs[1].difference is None and found.runs[1].score == 0.75
    assert found.remarks == (f"b has no paired difference: {reason}.",)


def test_other_data_are_not_paired(tmp_path: Path) -> None:
    runs = [
        run(tmp_path / "a", OLD),
        run(tmp_path / "b", NEW, "cd"),
        run(tmp_path / "c", NEW, None),
    ]
    found = compare(runs)
    assert "its test rows are others" in found.remarks[0]
    assert "not known" in found.remarks[1]


def losses(home: Path, items: list[float], remark: str = "", **settings: Any) -> Path:
    """A finished run with these parts of the test loss, and a remark on its rows."""
    mean = sum(items) / len(items)
    rounds = [record(0), record(2, test={"loss": mean})]
    folder = run_folder(home, rounds, {2: items}, task="perplexity", **settings)
    (folder / "machine.json").write_text(json.dumps({"data": "ab"}))
    content = {"labels": [], "clients": {}, "remarks": [remark] if remark else []}
    (folder / "division.json").write_text(json.dumps(content))
    return folder


@pytest.mark.parametrize(
    ("change", "remark", "reason"),
    [
        ({"model": {"max_length": 64}}, "", ""),
        (
            {"model": {"max_length": 64}},
            "model.max_length (64) cuts 2 of 8 held-out rows.",
            "its loss is of other tokens of the rows, since model.max_length differs",
        ),
        (
            {"model": {"max_length": 32}, "data": {"mask_history": True}},
            "",
            "its loss is of other tokens of the rows, since data.mask_history differs",
        ),
    ],
)
def test_losses_of_other_tokens_are_not_paired(
    tmp_path: Path, change: dict[str, Any], remark: str, reason: str
) -> None:
    first = {"model": {"max_length": 32}, "data": {"mask_history": False}}
    runs = [
        losses(tmp_path / "a", [2.0, 2.5, 3.0], **first),
        losses(tmp_path / "b", [1.0, 2.0, 2.0], remark, **(first | change)),
    ]
    found = compare(runs)
    assert (found.runs[1].difference is None) == bool(reason)
    assert found.remarks == ((f"b has no paired difference: {reason}.",) if reason else ())


def test_other_measures_of_the_same_rows_are_not_paired(tmp_path: Path) -> None:
    runs = [losses(tmp_path / "a", [2.0, 2.5]), losses(tmp_path / "b", [1.0, 2.0])]
    file = tmp_path / "b" / "scores" / "test-perplexity-00002.json"
    file.write_text(json.dumps({"round": 2, "metrics": {"loss": 1.4}, "items": [1.0, 2.0]}))
    assert compare(runs).remarks == (
        "b has no paired difference: its rows have a row_mean_loss, those of the first run a loss.",
    )


def test_settings_that_differ(tmp_path: Path) -> None:
    found = compare(
        [
            run(tmp_path / "a", OLD, seed=1, train={"optim": "sgd", "max_steps": None}),
            run(
                tmp_path / "b",
                NEW,
                seed=1,
                train={"optim": "sgd", "max_steps": 3},
                algorithm={"fedprox": {"mu": 0.1}},
                output_dir="elsewhere",
            ),
        ]
    )
    assert found.settings == {
        "algorithm": ("fedavg", "fedprox(mu=0.1)"),
        "train.max_steps": ("null", "3"),
    }


def test_a_model_that_one_run_lacks_is_shown_by_what_was_chosen(tmp_path: Path) -> None:
    usual = NamedModel(model_name_or_path="big").resolved(asdict(NamedModel()))
    lora = {"lora": {"r": 4, "lora_alpha": 8}}
    mentor = {**usual, "model_name_or_path": "big", "max_length": 64, "adapter": lora}
    plain = run(tmp_path / "a", OLD, models={})
    found = compare([plain, run(tmp_path / "b", NEW, models={"mentor": mentor})])
    assert found.settings == {
        "models.mentor.model_name_or_path": ("–", "big"),
        "models.mentor.max_length": ("–", "64"),
        "models.mentor.adapter": ("–", "lora"),
    }
    other = {**mentor, "adapter": {"lora": {"r": 8, "lora_alpha": 8}}}
    runs = [run(tmp_path / n, OLD, models={"mentor": m}) for n, m in (("c", mentor), ("d", other))]
    assert compare(runs).settings == {"models.mentor.adapter.lora.r": ("4", "8")}


def test_codecs_that_differ_are_called_by_their_names(tmp_path: Path) -> None:
    found = compare(
        [
            run(tmp_path / "a", OLD, compression={"upload": [], "download": []}, privacy=None),
            run(
                tmp_path / "b",
                NEW,
                compression={"upload": [{"topk": {"k": 0.1}}, {"bf16": {}}], "download": ["bf16"]},
                privacy={"clip": {"norm": 2}},
            ),
        ]
    )
    assert found.settings == {
        "compression.upload": ("none", "topk(k=0.1), bf16"),
        "compression.download": ("none", "bf16"),
        "privacy": ("none", "clip(norm=2)"),
    }


def test_unfinished_runs_show_what_there_is(tmp_path: Path) -> None:
    whole = run(tmp_path / "whole", OLD)
    begun = run_folder(tmp_path / "begun", [record(0), record(1, validation={"accuracy": 0.4})])
    found = compare([whole, begun])
    assert (found.metric, found.split) == ("accuracy", "validation")
    assert [one.score for one in found.runs] == [0.7, 0.4]
    other = run(tmp_path / "other", NEW)
    found = compare([whole, other, begun])
    assert found.split == "test" and found.runs[2].score is None
    assert found.remarks == ("begun has no test score to show: 1 of 2 rounds are done.",)


def test_without_a_common_metric_the_costs_are_shown(tmp_path: Path) -> None:
    rounds = [record(0, test={"loss": 3.0}), record(2, test={"loss": 2.0})]
    other = run_folder(tmp_path / "b", rounds, {2: [2.0, 2.0]}, task="perplexity")
    found = compare([run(tmp_path / "a", OLD), other])
    assert found.metric == ""
    assert "a has accuracy; b has loss" in found.remarks[0]
    shown = table(found)
    assert shown["sent"] == ["5.4\N{NO-BREAK SPACE}MB", "2.7\N{NO-BREAK SPACE}MB"]
    assert "accuracy" not in " ".join(shown)
    assert "a has accuracy" in words(write_comparison(found, tmp_path / "page.html"))


def test_runs_of_one_name_are_told_apart_by_their_folders(tmp_path: Path) -> None:
    runs = [run(tmp_path / "x" / "run", OLD), run(tmp_path / "y" / "run", NEW)]
    assert [one.name for one in compare(runs).runs] == [str(folder) for folder in runs]


def test_the_page_needs_nothing_else(tmp_path: Path) -> None:
    runs = [run(tmp_path / EVIL[:8], OLD, name=EVIL), run(tmp_path / "b", NEW, objective=EVIL)]
    file = write_comparison(compare(runs), tmp_path / "new" / "compare.html")
    tags = [tag for tag, _ in Page(file.read_text()).tags]
    assert tags.count("svg") == 2 and not {"script", "link", "img"} & set(tags)
    text = words(file)
    assert "+25.0 points" in text and "test accuracy 50.0 % 75.0 %" in text


@pytest.mark.parametrize("count", [0, 1])
def test_two_runs_or_more(tmp_path: Path, count: int) -> None:
    with pytest.raises(UserError, match="two different runs"):
        compare([run(tmp_path / "a", OLD)] * (count + 1))


def test_a_ladder_is_no_run(tmp_path: Path) -> None:
    baselines = baselines_folder(tmp_path / "baselines", {})
    with pytest.raises(UserError, match="is a baseline comparison"):
        compare([run(tmp_path / "a", OLD), baselines])
