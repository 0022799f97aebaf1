"""Runs whose clients mark the model: detection after secure sums, strangers, and refusals."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from statistics import mean

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

from hanse.audit.ownership import key as owners
from hanse.audit.ownership.key import OwnershipKey
from hanse.audit.ownership.places import place_of
from hanse.errors import StoppedError, UserError
from hanse.experiment.assembly.marks import pin_keys
from hanse.experiment.loading import load
from hanse.journal.run_folder import read_rounds
from hanse.learners.injection import adapter_files
from hanse.simulation import run as simulation
from learner_checks import resumed_ends_in_the_same_adapter
from samples import Outcome
from stopping import ctrl_c

LONG = (
    *("adapter={lora: {r: 8, target_modules: [q_proj, v_proj, o_proj]}}", "train.max_steps=8"),
    *("data.partition=iid", "rounds=8"),
)
SUMMED = ("aggregator=secagg", "data.client_test=0")


@pytest.fixture
def keys(tmp_path: Path) -> list[Path]:
    files = [tmp_path / f"silo-{n}.key" for n in (1, 2, 3)]
    for n, file in enumerate(files, 1):
        owners.write(file, OwnershipKey(f"silo-{n}", f"{n:064x}"))
    return files


def marked(keys: Sequence[Path], more: str = "") -> list[str]:
    return [f"clients.{file.stem}.ownership={{key: {file}{more}}}" for file in keys]


def rates(folder: Path, keys: Sequence[OwnershipKey]) -> list[float]:
    tensors = adapter_files.read(folder / "adapter")[1]
    return [_rate(key, tensors) for key in keys]


def _rate(key: OwnershipKey, tensors: dict[str, Tensor]) -> float:
    measured, _ = place_of(key, tensors).measured(tensors)
    return float((measured.sign() == torch.tensor(key.signs())).float().mean())


def test_all_marks_are_there_after_secure_sums(experiment_file: Path, keys: list[Path]) -> None:
    plain, folder = experiment_file.parent / "plain", experiment_file.parent / "run"
    simulation.run(load(experiment_file, [*SUMMED, *LONG, f"output_dir={plain}"]))
    simulation.run(load(experiment_file, [*SUMMED, *LONG, *marked(keys)]))
    own = [owners.read(file) for file in keys]
    assert rates(folder, own) == [1.0, 1.0, 1.0]
    strangers = [replace(own[0], seed=f"{n:064x}") for n in range(100, 116)]
    assert mean(rates(folder, strangers)) == pytest.approx(0.5, abs=0.06)
    assert max(*rates(folder, strangers), *rates(plain, own)) < 0.75
    unmarked, scored = (read_rounds(place)[-1].test["accuracy"] for place in (plain, folder))
    assert scored >= unmarked - 0.04, "one of 30 rows"


def test_a_client_that_trains_nothing_has_no_mark(experiment_file: Path, keys: list[Path]) -> None:
    """A free rider takes part and returns what it received: its key is right by chance."""
    words = [*LONG, *marked(keys[1:]), "compression.collect=true"]
    rides = "clients.silo-1.train={learning_rate: 1e-30}"
    simulation.run(load(experiment_file, [*words, rides]))
    folder = experiment_file.parent / "run"
    sent = sorted((folder / "updates").rglob("*.safetensors"))
    moved = {file: max(float(t.abs().max()) for t in load_file(file).values()) for file in sent}
    assert len(sent) == 24
    idle = [file for file in sent if moved[file] < 1e-20]
    assert len(idle) == 8 and all("silo-1" in str(file) for file in idle)
    rider, *others = rates(folder, [owners.read(file) for file in keys])
    assert rider < 0.75 < min(others)


def test_a_marked_run_resumes_to_the_same_bits(experiment_file: Path, tmp_path: Path) -> None:
    owners.write(file := tmp_path / "answers.key", OwnershipKey("silo-1", f"{1:064x}", triggers=4))
    own = f"clients.silo-1.ownership={{key: {file}, share: 0.2}}"
    resumed_ends_in_the_same_adapter(experiment_file, own)


def test_a_run_goes_on_with_the_keys_that_it_began_with(
    experiment_file: Path, keys: list[Path], review_file: Path, hanse: Callable[..., Outcome]
) -> None:
    """The server's key and a client's; nothing is loaded before the refusal."""
    words = ["rounds=3", "train.max_steps=1", "algorithm={feddistill: {k: 1}}"]
    words += [f"data.public={{path: {review_file}}}", f"ownership={{key: {keys[1]}}}"]
    with ctrl_c("round 2", 1), pytest.raises(StoppedError):
        simulation.run(load(experiment_file, [*words, *marked(keys[:1])]))
    folder = experiment_file.parent / "run"
    for file in keys[:2]:
        content = file.read_bytes()
        file.unlink()
        owners.write(file, OwnershipKey("another", "9" * 64))
        refused = hanse("resume", folder)
        assert refused.code == 2 and "ownership now names another one of another" in refused.err
        file.unlink()
        file.write_bytes(content)
        file.chmod(0o600)
    assert simulation.resume(folder) == folder


def test_a_silo_goes_on_with_its_key_and_hears_that_its_mark_fades(
    experiment_file: Path, keys: list[Path], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    first, other = (
        load(experiment_file, [f"clients.silo-1.ownership={{key: {file}}}"]) for file in keys[:2]
    )
    for _ in range(2):
        pin_keys(first, tmp_path, ["silo-1"])
    with pytest.raises(UserError, match=r"begun with the key .* and ownership now names another"):
        pin_keys(other, tmp_path, ["silo-1"])
    pin_keys(other, tmp_path, ["silo-2"])
    assert not caplog.messages
    pin_keys(load(experiment_file), tmp_path, ["silo-1"])
    assert "silo-1 marked what it trained in earlier rounds" in caplog.text


def test_a_key_changes_nothing_for_the_other_clients(
    experiment_file: Path, keys: list[Path]
) -> None:
    """Only the updates of the client that marks are others."""
    words = ["rounds=1", "compression.collect=true"]
    updates = []
    for name, more in (("plain", []), ("marked", marked(keys[:1]))):
        folder = experiment_file.parent / name
        simulation.run(load(experiment_file, [*words, *more, f"output_dir={folder}"]))
        updates.append(folder / "updates")
    files = sorted(file.relative_to(updates[0]) for file in updates[0].rglob("*.safetensors"))
    same = [(updates[0] / file).read_bytes() == (updates[1] / file).read_bytes() for file in files]
    assert len(files) == 3 and same == [False, True, True]


def test_a_server_that_trains_lays_its_own_mark(
    experiment_file: Path, keys: list[Path], review_file: Path
) -> None:
    public = f"data.public={{path: {review_file}}}"
    words = [*LONG[:2], "algorithm={feddistill: {k: 1}}", public, "rounds=3"]
    simulation.run(load(experiment_file, [*words, f"ownership={{key: {keys[0]}}}"]))
    own, stranger = rates(experiment_file.parent / "run", [owners.read(file) for file in keys[:2]])
    assert own == 1.0 and stranger < 0.75


REFUSED = {
    "the server's with fedavg": ("ownership={{key: {key}}}", "with fedavg the server trains"),
    "without LoRA": (
        "adapter=ia3 | clients.silo-1.ownership={{key: {key}}}",
        "the key marks LoRA's products, and IA3 has none",
    ),
    "in place": (
        "adapter=none | algorithm=fedkseed | train.optim=sgd"
        " | clients.silo-1.ownership={{key: {key}}}",
        "without an adapter there are none",
    ),
    "clients that keep B": (
        "algorithm=fedsa_lora | clients.silo-1.ownership={{key: {key}}}",
        "with FedSALoRA clients keep trained tensors for themselves",
    ),
    "clients that keep layers": (
        "algorithm={{fedper: {{share: [q_proj]}}}} | clients.silo-1.ownership={{key: {key}}}",
        "with FedPer clients keep trained tensors for themselves",
    ),
    "factors that begin anew": (
        "algorithm=flora | clients.silo-1.ownership={{key: {key}}}",
        "FLoRA begins each round with other factors",
    ),
    "parts that grow": (
        "algorithm=fedadapter | clients.silo-1.ownership={{key: {key}}}",
        "with FedAdapter silos train parts of the adapter that grow",
    ),
    "factors of another product": (
        "algorithm=flexlora | clients.silo-1.ownership={{key: {a}}}",
        "FlexLoRA delivers other factors of the product than silos train",
    ),
    "factors of a higher rank": (
        "algorithm=fedex_lora | clients.silo-1.ownership={{key: {a}}}",
        "FedExLoRA delivers other factors of the product than silos train",
    ),
    "a frozen A": (
        "algorithm=ffa_lora | clients.silo-1.ownership={{key: {a}}}",
        "the key marks LoRA's A, which FFALoRA never trains",
    ),
    "tensors that are saved as others": (
        "adapter=lora_xs | clients.silo-1.ownership={{key: {weights}}}",
        "LoraXS is delivered as LoRA's factors",
    ),
    "an encoder that is not saved": (
        "adapter=p_tuning | clients.silo-1.ownership={{key: {weights}}}",
        "PTuning is delivered as what its encoder computes",
    ),
    "too strong": ("clients.silo-1.ownership={{key: {key}, strength: 11}}", "less than or equal"),
    "too far": ("clients.silo-1.ownership={{key: {key}, margin: 11}}", "less than or equal"),
    "a missing key": ("clients.silo-1.ownership={{key: {key}.lost}}", "cannot be read"),
    "an unknown setting": ("clients.silo-1.ownership={{key: {key}, alpha: 1}}", "alpha"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_marks_that_cannot_be_laid_are_refused_before_a_model_is_loaded(
    hanse: Callable[..., Outcome], experiment_file: Path, keys: list[Path], case: str
) -> None:
    words, sentence = REFUSED[case]
    files = {"key": keys[0], "a": keys[0].with_name("a.key")}
    files["weights"] = keys[0].with_name("weights.key")
    for name, pattern in (("a", "*.lora_A.weight"), ("weights", "*")):
        key = OwnershipKey("o", "ab" * 32, place="weights", tensors=pattern)
        owners.write(files[name], key)
    lost = "model.model_name_or_path=/nowhere"
    outcome = hanse("run", experiment_file, lost, *words.format(**files).split(" | "))
    assert outcome.code == 2 and sentence in outcome.err, outcome.err


def test_a_pattern_that_names_factors_which_are_replaced_is_refused(
    experiment_file: Path, tmp_path: Path
) -> None:
    key = OwnershipKey("silo-1", "ab" * 32, place="weights", tensors="*layers.0.*_A.w?ight")
    owners.write(file := tmp_path / "some.key", key)
    own = f"clients.silo-1.ownership={{key: {file}}}"
    with pytest.raises(UserError, match="silo-1: the key marks LoRA's A or B, and FlexLoRA"):
        simulation.run(load(experiment_file, ["algorithm=flexlora", own]))


def test_a_pattern_that_also_names_constants_is_refused(
    experiment_file: Path, tmp_path: Path
) -> None:
    """They are saved, so that a key would be asked of more tensors than it has marked."""
    key = OwnershipKey("silo-1", "ab" * 32, place="weights")
    owners.write(file := tmp_path / "all.key", key)
    own = f"clients.silo-1.ownership={{key: {file}}}"
    adapter = "adapter={peft: {method: vera, settings: {r: 4}}}"
    with pytest.raises(UserError, match=r"also names .*vera_[AB].* never trained"):
        simulation.run(load(experiment_file, [adapter, own]))
