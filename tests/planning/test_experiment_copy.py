"""Copies of an experiment's text with other settings: what is not changed stays as it was."""

from pathlib import Path

import pytest
import yaml

from hanse.errors import UserError
from hanse.experiment.loading import load
from hanse.planning.experiment_copy import lost_comments, with_settings, write

BLOCK = """# mine
name: a

model:
  model_name_or_path: some   # the small one
  bf16: auto            # whatever is fast
data: {path: rows}
"""


def test_comments_that_are_lost_are_named_and_no_others() -> None:
    assert lost_comments(BLOCK, ("name", "data", "devices")) == ""
    assert lost_comments(BLOCK, ("name", "model")) == "comments in `model` are not kept"


def test_values_change_and_comments_stay() -> None:
    text = with_settings(BLOCK, "model", {"bf16": True, "products": "torch"})
    assert yaml.safe_load(text)["model"] == {
        "model_name_or_path": "some",
        "bf16": True,
        "products": "torch",
    }
    assert text == BLOCK.replace("bf16: auto", "bf16: true").replace(
        "  model_name", "  products: torch\n  model_name"
    )


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ("model: {bf16: auto, path: x}\n", "model: {products: torch, bf16: false, path: x}\n"),
        ("model: {path: x}\n", "model: {bf16: false, products: torch, path: x}\n"),
        ("a: 1\nmodel: {}\nb: 2\n", "a: 1\nb: 2\nmodel: {bf16: false, products: torch}\n"),
        ("a: 1\nmodel:\n", "a: 1\nmodel: {bf16: false, products: torch}\n"),
        ("", "\nmodel: {bf16: false, products: torch}\n"),
    ],
)
def test_sections_of_any_style(before: str, after: str) -> None:
    text = with_settings(before, "model", {"bf16": False, "products": "torch"})
    wanted, made = yaml.safe_load(after), yaml.safe_load(text)
    assert made == wanted and text.count("\n") <= after.count("\n") + 1


@pytest.mark.parametrize(
    ("changed", "anew", "seed"),
    [("seed: 3", False, 3), ("seed: 3", True, 4), ("rounds: no", False, 4), ("seed: 5", False, 4)],
)
def test_a_copy_that_is_another_experiment_is_written_anew(
    experiment_file: Path, changed: str, anew: bool, seed: int
) -> None:
    text, out = experiment_file.read_text(encoding="utf-8"), experiment_file.with_name("out.yaml")
    pages = {False: f"{text}{changed}\n", True: f"{text}seed: 4\n"}
    write(out, pages.__getitem__, load(experiment_file, [f"seed={seed}"]), anew)
    assert load(out).seed == seed


def test_no_file_is_left_of_a_copy_that_says_something_else(experiment_file: Path) -> None:
    text, out = experiment_file.read_text(encoding="utf-8"), experiment_file.with_name("out.yaml")
    with pytest.raises(
        UserError, match=r"cannot be written: .* is read as another experiment; write"
    ):
        write(out, lambda anew: text, load(experiment_file, ["train.max_steps=9"]), anew=False)
    assert not out.exists()
