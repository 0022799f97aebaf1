"""The change of the scores on a run's last line never claims more than its rows can say."""

import json
import math
from pathlib import Path

from folders import record, run_folder
from hanse.cli.summary import _outcome, difference


def test_no_change_on_twelve_rows_has_the_width_of_tangos_interval() -> None:
    items = [1.0, 0.0] * 6
    assert difference(items, items) == "+0.0000 (paired 95 % interval -0.2425 to +0.2425)"


def test_a_change_without_spread_and_one_row_have_no_interval() -> None:
    assert difference([0.5, 0.75], [0.25, 0.5]) == (
        "+0.2500 (without an interval: it is the same for every row)"
    )
    assert difference([1.0], [0.0]) == "+1.0000 (without an interval: one row is too few)"
    assert difference([math.nan, 1.0], [0.0, 0.5]).endswith("not all are numbers)")


def test_a_narrow_interval_is_not_rounded_to_one_number() -> None:
    found = difference([2.000010, 2.000011, 2.000012], [2.0, 2.0, 2.0])
    assert found == "+0.0000110 (paired 95 % interval +0.0000085 to +0.0000135)"


def test_scores_of_two_versions_have_no_difference(tmp_path: Path) -> None:
    items = {0: [2.0, 2.2, 1.8], 2: [1.5, 1.6, 1.4]}
    folder = run_folder(tmp_path / "run", [record(0), record(2)], items, task="perplexity")
    assert _outcome(folder, "perplexity", 2).startswith("loss of 3 held-out rows: 2.0000 → 1.5000")
    file = folder / "scores" / "test-perplexity-00000.json"
    earlier = json.loads(file.read_text()) | {"metrics": {"loss": 1.9}}  # of tokens, not of rows
    file.write_text(json.dumps(earlier))
    assert _outcome(folder, "perplexity", 2) == (
        "loss of 3 held-out rows: 1.5000 "
        "(another version of hanse computed the scores before training)"
    )
