"""Certificates: their fields, what they keep secret, and wrong records that are signed."""

from pathlib import Path
from typing import Any

import pytest

from hanse.audit.ownership.certificate import refuse_other, statement, summary
from hanse.audit.ownership.chance import p_value
from hanse.audit.ownership.key import OwnershipKey
from hanse.errors import UserError

KEY = OwnershipKey("silo-a", "ab" * 32, tensors="*.layers.7.*")
FILE = Path("ownership.json")
OF_ADAPTER = {"files": {}, "right_bits": 60, "p_value": p_value(60, 64)}


def test_a_certificate_does_not_say_where_the_mark_lies() -> None:
    record = statement(KEY)
    assert sorted(record) == ["bits", "commitment", "format", "owner", "time"]
    assert "layers" not in str(record) and "product" not in str(record)
    refuse_other(record, FILE, key=KEY)


def test_an_earlier_certificate_is_named_by_its_hash(tmp_path: Path) -> None:
    (early := tmp_path / "early.json").write_text("signed")
    record = statement(KEY, early=early)
    assert len(record["early"]) == 64
    refuse_other(record, FILE, key=KEY)


WRONG: dict[str, dict[str, Any]] = {
    "right_bits": {"right_bits": None},
    "p_value": {"p_value": 1e-30},
    "files": {"files": [1]},
    "a hash": {"files": {"adapter_model.safetensors": 5}},
    "bits": {"right_bits": 65},
    "owner": {"owner": "silo\x1b[2J"},
    "time": {"time": "yesterday"},
    "commitment": {"commitment": 5},
    "place": {"place": "product"},
}


@pytest.mark.parametrize("field", WRONG)
def test_a_signed_record_with_a_wrong_field_is_refused(field: str) -> None:
    record = {**statement(KEY), **OF_ADAPTER}
    refuse_other(record, FILE)
    assert summary(record).startswith("60 of 64 bits of the key of silo-a are in these files, p = ")
    with pytest.raises(UserError, match=f"no certificate that .* makes \\('{field}'\\)"):
        refuse_other({**record, **WRONG[field]}, FILE)


@pytest.mark.parametrize("field", sorted({*statement(KEY), *OF_ADAPTER} - {"format"}))
def test_a_signed_record_that_lacks_a_field_is_refused(field: str) -> None:
    record = {**statement(KEY), **OF_ADAPTER}
    del record[field]
    with pytest.raises(UserError, match=f"\\('{field}'\\)"):
        refuse_other(record, FILE)


@pytest.mark.parametrize("change", [{"owner": "silo-b"}, {"bits": 32}])
def test_a_certificate_with_other_words_about_the_key_is_refused(change: dict[str, Any]) -> None:
    with pytest.raises(UserError, match=r"states a key of .* and this one is of silo-a with 64"):
        refuse_other({**statement(KEY), **change}, FILE, key=KEY)
