"""docs/poison.md says what is so: attacks with their settings, and what is refused."""

import re
from dataclasses import fields

import pytest

from hanse.errors import UserError
from hanse.experiment.loading import load
from hanse.experiment.part_kinds import AGGREGATOR, ATTACK
from samples import ROOT

PAGE = (ROOT / "docs" / "poison.md").read_text(encoding="utf-8")
TEXT = " ".join(PAGE.split())


def test_its_table_has_every_attack_with_its_settings() -> None:
    rows = dict(re.findall(r"^\| `(\w+)` \| .*? \| (.*?) \|$", PAGE, re.M))
    assert list(sorted(rows)) == ATTACK.names()
    for name, settings in rows.items():
        own = {f.name: f.default for f in fields(ATTACK.find(name)) if f.name != "attackers"}
        assert re.findall(r"`(\w+)`", settings) == list(own)
        said = re.findall(r"\((.*?)\)", settings)
        for default, words in zip(own.values(), said, strict=True):
            if default is not None:
                assert words == (default if isinstance(default, str) else f"{default:g}")


@pytest.mark.parametrize(
    ("rule", "needs"), [("bulyan", "4f + 3"), ("krum", "2f + 3"), ("trimmed_mean", "2f + 1")]
)
def test_its_numbers_of_silos_are_those_of_the_rules(rule: str, needs: str) -> None:
    assert needs in TEXT
    each, least = map(int, re.findall(r"\d", needs))
    for attackers in (1, 2, 3):
        part = AGGREGATOR.build({rule: {"attackers": attackers}})
        part.require_clients(each * attackers + least)
        with pytest.raises(UserError):
            part.require_clients(each * attackers + least - 1)


def test_its_experiment_is_that_of_the_benchmark() -> None:
    experiment = load(ROOT / "experiments" / "poison.yaml")
    assert experiment.num_clients == 11 and "11 silos train the head" in TEXT
    assert experiment.attack is not None
