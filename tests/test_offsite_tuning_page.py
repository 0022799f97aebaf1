"""docs/offsite-tuning.md says what is so: compressors with their settings, and adapters."""

import re
from dataclasses import fields

import pytest

from hanse import registry
from hanse.experiment.part_kinds import ADAPTER
from hanse.learners.models.emulators.compressor import FOLDER
from samples import ROOT

PAGE = (ROOT / "docs" / "offsite-tuning.md").read_text(encoding="utf-8")
TEXT = " ".join(PAGE.split())
ROWS = {
    cells[0].strip(" `"): cells[-1]
    for line in PAGE.split("| `--compressor` |")[1].split("\n\n")[0].splitlines()[2:]
    if (cells := line.strip("|").split("|"))
}


def test_its_table_has_every_compressor() -> None:
    assert sorted(ROWS) == registry.names(FOLDER)


@pytest.mark.parametrize("name", sorted(ROWS))
def test_its_table_has_every_setting(name: str) -> None:
    known = {field.name for field in fields(registry.find(FOLDER, name))}
    assert known <= {*re.findall(r"`(\w+)`", ROWS[name])}


def test_it_names_every_adapter_that_can_be_kept_to_some_layers() -> None:
    kinds = [name for name in ADAPTER.names() if name not in ("peft", "in_place")]
    fitting = {
        name
        for name in kinds
        if "layers_to_transform" in {field.name for field in fields(ADAPTER.find(name))}
    }
    said = TEXT.split("* `full: {layers_to_transform: […]}` trains")[1].split("* ")[0]
    assert {"full", *re.findall(r"`(\w+)`", said)} == fitting
