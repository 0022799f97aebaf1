"""Combinations that cannot work: `hanse check` refuses them in one sentence with a way out."""

from collections.abc import Callable
from pathlib import Path
from unittest import mock

import pytest

from samples import ROOT, Outcome

PARTS = ROOT / "tests" / "parts"
RULES = f"aggregator={PARTS}/plain_rules.py"
SUMS, MEDIAN = f"{RULES}:Sums", f"{RULES}:Median"
SGD = ("train.optim=sgd", "train.momentum=0")
REFUSED = {
    "FedNova under sums of tensors": (
        [SUMS, "algorithm=fednova", *SGD],
        "Sums sees only sums, but FedNova needs the means of the numbers that clients report",
        "choose the aggregator mean, or another algorithm",
    ),
    "HetLoRA under a coordinate rule": (
        [MEDIAN, "algorithm=hetlora"],
        "HetLoRA needs each client's update, which Median does not give",
        "choose the aggregator mean, or another algorithm",
    ),
    "a lossy codec under sums": (
        [SUMS, f"compression={PARTS}/squeezed.py:Squeezed"],
        "Sums sees only sums, but Squeezed needs each client's update",
        "choose the aggregator mean",
    ),
}


@pytest.mark.parametrize("case", REFUSED)
def test_parts_that_do_not_fit_are_refused_before_a_model_is_loaded(
    case: str, hanse: Callable[..., Outcome], experiment_file: Path
) -> None:
    words, reason, advice = REFUSED[case]
    with mock.patch("hanse.experiment.assembly.resources.load") as load:
        done = hanse("check", experiment_file, *words)
    assert done.code == 2 and not load.called
    assert reason in done.err and advice in done.err
    assert len(done.err.strip().splitlines()) <= 4 and "Traceback" not in done.err


def test_a_codec_that_a_silo_forbids_is_refused(
    hanse: Callable[..., Outcome], experiment_file: Path, review_file: Path, tmp_path: Path
) -> None:
    silo = tmp_path / "silo.yaml"
    silo.write_text(
        f"name: silo-1\nserver: 127.0.0.1:8000\ndata: {{path: {review_file}}}\nstate: state\n"
        "policy: {compression: [identity], data_settings: [template, labels]}\n"
    )
    words = ["check", experiment_file, "--silo", silo]
    done = hanse(*words, "compression=bf16")
    assert done.code == 2 and "bf16 is not among identity" in done.err
    assert "Traceback" not in done.err
    assert hanse(*words, "compression=identity").code == 0
