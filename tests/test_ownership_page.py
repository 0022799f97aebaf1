"""docs/prove-ownership.md says what is so: settings, policies, figures and refusals."""

import re
from dataclasses import fields
from typing import get_args

from hanse.audit.ownership.chance import LARGEST_P, detection_bound, least_right, p_value
from hanse.audit.ownership.key import LEAST_BITS, PLACES, OwnershipKey
from hanse.audit.ownership.settings import OwnershipSettings
from hanse.audit.ownership.triggers import ANSWERS
from hanse.deployment.silo.policy import Policy
from samples import ROOT

PAGE = (ROOT / "docs" / "prove-ownership.md").read_text(encoding="utf-8")
TEXT = " ".join(PAGE.split())


def test_its_tables_have_every_setting_place_and_policy() -> None:
    rows = re.findall(r"^\| `(\w+)`(?: \((\S+)\))? \|", PAGE, re.M)
    defaults = {f.name: f.default for f in fields(OwnershipSettings)}
    for name, default in defaults.items():
        assert dict(rows)[name] == ("" if name == "key" else f"{default:g}")
    names = [name for name, _ in rows]
    policies = get_args(Policy.model_fields["marks"].annotation)
    assert names == [*defaults, *PLACES, *policies]


def test_its_defaults_are_those_of_a_key() -> None:
    key = OwnershipKey("a", "ab" * 32)
    assert (key.bits, key.place, key.triggers) == (64, "product", 0)
    assert f"Fewer than {LEAST_BITS} bits are refused" in TEXT and "Keep to 64 bits" in TEXT


def test_its_figures() -> None:
    assert LARGEST_P == 1e-9 and "p ≤ 10⁻⁹" in TEXT
    assert least_right(30) == 30 and least_right(40) == 38
    assert "all of 30 prompts must be right, or 38 of 40" in TEXT
    assert ANSWERS == 2**36 and p_value(1, 40, ANSWERS) <= LARGEST_P
    assert "by a single one of 40 answers of 36 bits" in TEXT
    assert detection_bound(512, 128) == (512 + 128) / (2 * 512)
