"""`hanse check` and `hanse run` with differential privacy: figures, warnings, refusals, records."""

from collections.abc import Callable
from pathlib import Path
from unittest import mock

import pytest

from hanse.journal import record_files
from hanse.journal.privacy_record import PRIVACY, PrivacyRecord
from hanse.reports.run.page import write_report
from samples import Outcome

pytestmark = pytest.mark.extras
pytest.importorskip("dp_accounting")

REFUSED = {
    "no clip": (["privacy={client_dp: {clip: null}}"], "without a bound on updates no noise hides"),
    "no noise for a budget": (
        ["privacy={client_dp: {noise_multiplier: 0}}"],
        "noise_multiplier is 0, which keeps no epsilon, and privacy.client_dp.epsilon is 8; leave "
        "noise_multiplier out to have it computed.",
    ),
    "a budget for fewer rounds": (
        ["privacy={client_dp: {epsilon: 4, noise_multiplier: 1.6}}"],
        "noise_multiplier 1.6 does not keep an epsilon of 4 in 3 rounds; it pays for 2 rounds: set "
        "rounds=2, or raise epsilon, or leave noise_multiplier out.",
    ),
    "a budget that no noise keeps": (
        ["privacy={client_dp: {epsilon: 1e-7, delta: 1e-12}}"],
        "cannot be kept in 3 rounds by a noise multiplier up to 10,000; it does not pay for a "
        "single round: raise epsilon.",
    ),
    "sums alone": (
        ["privacy=client_dp", "aggregator=secagg"],
        "SecAgg sees only sums, but ClientDp needs each client's update",
    ),
    **{
        f"the rule {rule}": (
            ["privacy=client_dp", f"aggregator={rule}", "num_clients=7"],
            "ClientDp adds noise to the mean of the updates' tensors, and ",
        )
        for rule in ("coordinate_median", "trimmed_mean", "krum", "norm_bounding", "bulyan")
    },
    "numbers beside the tensors": (
        ["privacy=client_dp", "algorithm=fednova", "train.optim=sgd"],
        "FedNova uses the numbers that clients report, which would be without protection",
    ),
}


@pytest.mark.parametrize("case", REFUSED)
def test_a_promise_that_cannot_be_kept_is_refused_before_a_model_is_loaded(
    case: str, hanse: Callable[..., Outcome], experiment_file: Path
) -> None:
    words, reason = REFUSED[case]
    with mock.patch("hanse.experiment.assembly.resources.load") as load:
        done = hanse("run", experiment_file, *words)
    error = " ".join(done.err.split())
    assert done.code == 2 and not load.called
    assert reason in error and "Traceback" not in error


def test_check_run_report_and_card_say_what_is_promised(
    hanse: Callable[..., Outcome], experiment_file: Path, tmp_path: Path
) -> None:
    words = ["privacy={client_dp: {epsilon: 8, delta: 0.5}}", "rounds=2"]
    shown = " ".join(hanse("check", experiment_file, *words).out.split())
    assert (
        "privacy client_dp promise ε = 7.9" in shown
        and "at δ = 0.5 for a silo, in 2 releases" in shown
    )
    assert "noise multiplier 0." in shown and "clip norm 1 " in shown
    assert "clip norm 1 The server is trusted" in shown
    assert "delta is 0.5, and one of 3 silos could be given away" in shown
    assert "times as long as the mean can be" in shown
    folder = tmp_path / "run"
    done = hanse("run", experiment_file, *words, f"output_dir={folder}")
    record = record_files.read(folder / PRIVACY, PrivacyRecord)
    assert done.code == 0 and record is not None and record.releases == 2
    assert f"privacy {record.sentence()}" in " ".join(done.out.split())
    for file in (write_report(folder), folder / "adapter" / "README.md"):
        text = " ".join(file.read_text(encoding="utf-8").split())
        assert f"Differential privacy by client_dp: {record.sentence()}" in text, file
        assert "The budget is ε = 8." in text and "The server is trusted" in text
