"""Runs whose silos hide their rows: what they write, that they resume, and what is refused."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from hanse.errors import UserError
from hanse.experiment.assembly import resources
from hanse.experiment.assembly.assemble import simulate
from hanse.experiment.loading import load
from hanse.federation.accounting.epsilon import GaussianReleases, epsilon
from hanse.federation.privacy.example_dp import ExampleDp
from hanse.journal import record_files
from hanse.journal.privacy_record import PRIVACY, PrivacyRecord
from hanse.journal.run_folder import read_ledger, read_rounds
from hanse.simulation import run as simulation

pytestmark = pytest.mark.extras
pytest.importorskip("dp_accounting")
pytest.importorskip("opacus")
# All rows are in a batch: the account is then known at once.
PRIVATE = (
    "privacy={example_dp: {epsilon: null, noise_multiplier: 2.0}}",
    "train.per_device_train_batch_size=20",
    "train.gradient_accumulation_steps=10",
    "train.max_steps=2",
    "rounds=2",
)


def account(folder: Path) -> PrivacyRecord:
    record = record_files.read(folder / PRIVACY, PrivacyRecord)
    assert record is not None
    return record


def test_a_run_and_what_it_writes(
    experiment_file: Path, tmp_path: Path, hanse: Callable[..., Any]
) -> None:
    done = hanse("run", experiment_file, f"output_dir={tmp_path / 'run'}", *PRIVATE)
    assert done.code == 0, done.err
    folder = tmp_path / "run"
    expected = epsilon([GaussianReleases(2.0, 1.0, 4)], 1e-5)
    assert account(folder).epsilon == expected and account(folder).unit == "row"
    silos = [*(folder / "clients").glob("silo-*/privacy.json")]
    assert len(silos) == 3
    assert all(account(file.parent).epsilon == expected for file in silos)
    for record in read_rounds(folder)[1:]:
        assert "loss" not in record.train and not record.client_test
    assert all(not {"loss", "examples", "tokens"} & {*r.numbers} for r in read_ledger(folder))


REFUSED = {
    "train.packing=true": "set train.packing: false",
    "model.gradient_checkpointing=true": "set model.gradient_checkpointing: false",
    "adapter=ia3": "not known for the adapter IA3",
    "adapter={lora: {r: 2, use_dora: true}}": "not known for the adapter Lora with these settings",
    "algorithm=ditto": "Ditto may read rows beside it",
    "clients={silo-2: {train: {packing: true}}}": "clients.silo-2: ExampleDp limits",
    "privacy={example_dp: {epsilon: 1, noise_multiplier: 0.5}}": "does not keep an epsilon of 1",
    "privacy={example_dp: {clip: null}}": "privacy.example_dp.clip is none",
}


@pytest.mark.parametrize("setting", REFUSED)
def test_what_cannot_be_hidden_is_refused_before_a_model_is_loaded(
    setting: str, experiment_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def loaded(*_: object, **__: object) -> None:
        raise AssertionError("a model is loaded")

    monkeypatch.setattr(resources, "load", loaded)
    words = [word for word in PRIVATE if word.partition("=")[0] != setting.partition("=")[0]]
    if "packing" in setting:
        words.append("objective=sft")
    with pytest.raises(UserError) as refused:
        simulate(load(experiment_file, [*words, setting]))
    assert REFUSED[setting] in str(refused.value)


def test_a_part_of_the_rows_and_a_budget(experiment_file: Path, tmp_path: Path) -> None:
    """Noise by hand at first, since that of a budget takes seconds to find."""
    words = ["rounds=1", "train.max_steps=2", "data.partition=iid"]
    part = "privacy={example_dp: {epsilon: 50, noise_multiplier: 1.0}}"
    file = load(experiment_file, [f"output_dir={tmp_path / 'run'}", *words, part])
    folder = simulation.run(file)
    largest = account(folder)
    own = [account(silo.parent) for silo in (folder / "clients").glob("silo-*/privacy.json")]
    assert largest.epsilon == max(record.epsilon or 0.0 for record in own)
    assert 0 < (largest.epsilon or 0.0) < epsilon([GaussianReleases(1.0, 1.0, 2)], 1e-5)


def test_a_setting_that_does_nothing_is_named(experiment_file: Path) -> None:
    remarks = simulate(load(experiment_file, PRIVATE)).dataset.remarks
    assert any("train.max_grad_norm does nothing here: ExampleDp" in text for text in remarks)
    remarks = simulate(load(experiment_file, [*PRIVATE, "train.max_grad_norm=0"])).dataset.remarks
    assert not any("max_grad_norm" in text for text in remarks)


def test_defaults() -> None:
    assert (ExampleDp().epsilon, ExampleDp().clip, ExampleDp().delta) == (8.0, 1.0, 1e-5)
