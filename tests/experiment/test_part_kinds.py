"""The table of part kinds agrees with the folders, the schema and a silo's policy."""

import pkgutil
from pathlib import Path
from typing import get_args, get_type_hints

import pytest

from hanse.deployment.silo.policy import OUTSIDE, Policy
from hanse.errors import UserError
from hanse.experiment.overrides import CHOICES
from hanse.experiment.part_kinds import (
    ADAPTER,
    AGGREGATOR,
    ALGORITHM,
    AT_SILOS,
    ATTACK,
    NAMED,
    PART_KINDS,
    PARTITIONER,
    TASK,
    TRACKER,
    PartKind,
    changed_at,
)
from hanse.experiment.schema import Experiment
from hanse.experiment.validation import keys
from hanse.security import trusted_code

MINE = """
from dataclasses import dataclass

@dataclass(frozen=True)
class Mine:
    pull: int = 1
"""


@pytest.mark.parametrize("kind", PART_KINDS, ids=lambda kind: kind.setting)
def test_every_part_of_a_folder_has_the_role(kind: PartKind) -> None:
    role = pkgutil.resolve_name(kind.role)
    assert kind.names()
    assert all(issubclass(kind.find(name), role) for name in kind.names())


@pytest.mark.parametrize("kind", PART_KINDS, ids=lambda kind: kind.setting)
def test_the_schema_has_the_setting_of_a_kind(kind: PartKind) -> None:
    assert kind.place[-1] in keys(Experiment, kind.place[:-1])
    if kind.in_schema:
        assert {*kind.names(), "from"} == set(keys(Experiment, kind.place))


def test_a_policy_has_the_settings_that_the_kinds_name() -> None:
    named = {kind.policy for kind in PART_KINDS if kind.policy}
    hints = get_type_hints(Policy)
    assert named == {
        *("adapters", "algorithms", "aggregators", "objectives", "tasks"),
        *("compression", "mechanisms"),
    }
    assert all(tuple[str, ...] in (hints[name], *get_args(hints[name])) for name in named)
    assert {*OUTSIDE} == named - {"adapters"}


def test_which_kinds_a_silo_builds_and_which_are_chosen_once() -> None:
    assert {*PART_KINDS} - {*AT_SILOS} == {ATTACK, TRACKER}
    assert {*PART_KINDS} - {*NAMED} == {ADAPTER}
    assert {kind.place for kind in PART_KINDS} - CHOICES == {
        ("evaluation", "tasks"),
        ("report_to",),
        ("compression", "upload"),
        ("compression", "download"),
    }


def test_specs_of_settings_and_of_plain_values() -> None:
    values = {"algorithm": {"fedprox": {"mu": 0.5}}, "evaluation": {"tasks": ["perplexity"]}}
    experiment = Experiment.model_validate(values)
    for where in (values, experiment):
        assert ALGORITHM.specs(where) == [{"fedprox": {"mu": 0.5}}]
        assert TASK.specs(where) == ["perplexity"]
        assert TRACKER.specs(where) == []
    assert PARTITIONER.specs({"data": "nonsense"}) == PARTITIONER.specs({}) == []
    assert ALGORITHM.resolved("fedprox") == {"fedprox": {"mu": 0.01}}
    assert TASK.resolved(["perplexity"])[0].keys() == {"perplexity"}


def test_a_part_of_another_kind_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "mine.py"
    file.write_text(MINE)
    trusted_code.grant(file)
    assert type(AGGREGATOR.build("mean")).__name__ == "Mean"
    with pytest.raises(UserError, match=r"mine\.py:Mine is no aggregator; derive it"):
        AGGREGATOR.build(f"{file}:Mine")


def test_a_value_deep_inside_is_changed_where_there_is_one() -> None:
    values = {"data": {"partition": "iid", "path": "x"}, "seed": 1}
    changed = changed_at(values, ("data", "partition"), str.upper)
    assert changed == {"data": {"partition": "IID", "path": "x"}, "seed": 1}
    assert values["data"] == {"partition": "iid", "path": "x"}
    for place in (("data", "other"), ("seed", "more"), ("report_to",)):
        assert changed_at(values, place, str.upper) == values
