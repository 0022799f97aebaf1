"""Copies of an experiment's text with other settings: what is not changed stays as it was."""

import pytest
import yaml

from hanse.planning.experiment_copy import with_settings

BLOCK = """# mine
name: a

model:
  model_name_or_path: some   # the small one
  bf16: auto            # whatever is fast
data: {path: rows}
"""


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
