"""docs/security.md says what is so: its silo.yaml loads, and its table has every setting."""

import re
import shutil
from pathlib import Path

from hanse.deployment.silo.policy import Policy
from hanse.deployment.silo.settings import load
from hanse.security.signatures import SKEW
from samples import ROOT

PAGE = (ROOT / "docs" / "security.md").read_text(encoding="utf-8")


def test_its_silo_loads(tmp_path: Path) -> None:
    [example] = re.findall(r"^```yaml\n(.*?)^```", PAGE, re.M | re.S)
    (tmp_path / "silo.yaml").write_text(example)
    shutil.copy(ROOT / "examples" / "tickets.jsonl", tmp_path)
    assert load(tmp_path / "silo.yaml").policy.max_steps == 200


def test_its_table_has_every_setting_with_its_default() -> None:
    rows = dict(re.findall(r"^\| (`.*?) \| (.*?) \|", PAGE, re.M))
    named = {name for row in rows for name in re.findall(r"`(\w+)`", row)} - {"policy"}
    assert named == set(Policy.model_fields)
    policy = Policy()
    for name in (
        *("max_steps", "max_examples", "max_rounds", "max_tries", "min_cohort", "min_examples"),
        *("max_batch_size", "count_rounding", "max_requests_per_day", "max_runs_per_day"),
    ):
        assert rows[f"`{name}`"] == f"{getattr(policy, name):,}"
    assert rows["`max_file_gb`"] == f"{policy.max_file_gb:g}"
    assert rows["`max_model_gb`"] == f"{policy.max_model_gb:g}"
    assert rows["`marks`"] == f"`{policy.marks}`"
    assert rows["`delivered_models`"] == f"`{policy.delivered_models}`"
    assert rows["`agreement`"] == f"`{policy.agreement}`"
    assert rows["`tasks`"] == ", ".join(f"`{task}`" for task in policy.tasks)
    assert policy.metrics is None and not policy.share_error_texts and not policy.models
    assert f"more than {SKEW:.0f} seconds off" in PAGE


def test_the_tests_that_it_names_exist() -> None:
    rows = [line for line in PAGE.splitlines() if "`tests/" in line]
    named = [name for row in rows for name in re.findall(r"`((?:tests/|::)[\w/.:]+)`", row)]
    assert len(named) > 40
    file = ""
    for name in named:
        place, _, test = name.partition("::")
        file = place or file
        text = (ROOT / file).read_text(encoding="utf-8")
        assert not test or f"\ndef {test}(" in text, name
