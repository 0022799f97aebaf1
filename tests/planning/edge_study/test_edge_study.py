"""The edge study: a step here, published devices and links, on random models of two families."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from hanse.errors import UserError
from hanse.experiment.devices.published import PUBLISHED
from hanse.journal import record_files
from hanse.learners.models.random_models import build
from hanse.planning.edge_study import study as edge_study
from hanse.planning.edge_study import study_text
from hanse.planning.edge_study.records import THIS, EdgeStudy
from samples import Outcome

FAST = ("--max-length", "16", "--batch", "2,1", "--steps", "3")


@pytest.mark.parametrize("model", ["llama-tiny", "t5-tiny"])
def test_a_study_measures_predicts_and_writes(
    hanse: Callable[..., Outcome], tmp_path: Path, model: str
) -> None:
    ended = hanse("profile", model, *FAST, "--link", "0.001/1", "--plot", "rounds.svg")
    assert ended.code == 0, ended.err
    study = record_files.parse((tmp_path / "edge-study.json").read_bytes(), EdgeStudy)
    assert [own.rows for own in study.batches] == [1, 2]
    one, two = study.batches
    assert two.flops == pytest.approx(2 * one.flops) and two.tokens == 2 * one.tokens
    for own in study.batches:
        assert own.measured.forward > 0 < own.measured.backward and own.measured.optimizer > 0
        assert own.mfu == pytest.approx(own.flops / own.measured.total / study.peak)
    assert {own.device for own in study.devices} == {*PUBLISHED}
    assert study.update == 4 * study.trained
    here = [own for own in study.rounds if own.device == THIS]
    assert [own.training for own in here] == pytest.approx(
        [3 * own.measured.total for own in study.batches]
    )
    expected = 8 * study.update * (1 / 1e3 + 1 / 1e6)  # 0.001 Mb/s up, 1 down
    assert here[0].network == pytest.approx(expected)
    assert all(own.objection == "mostly network" for own in here)
    assert here[0].granularity == pytest.approx(here[0].training / expected)
    assert (tmp_path / "rounds.svg").read_bytes().lstrip().startswith(b"<?xml")
    single = "\n".join(study_text.lines(replace(study, batches=study.batches[:1])))
    assert "meets exactly: give several by --batch" in single  # two passes have two unknowns
    for words in (model, "raspberry-pi-5", "0.001/1", "mostly network", "MFU", "off by"):
        assert words in ended.out


def test_bfloat16_is_measured_and_devices_without_it_are_named(
    hanse: Callable[..., Outcome], tmp_path: Path
) -> None:
    ended = hanse("profile", "llama-tiny", *FAST, "--precision", "bfloat16")
    assert ended.code == 0, ended.err
    study = record_files.parse((tmp_path / "edge-study.json").read_bytes(), EdgeStudy)
    assert study.precision == "bfloat16" and "in bfloat16 products" in ended.out
    precisions = {own.device: own.precision for own in study.devices}
    assert precisions["a100"] == "bfloat16" and precisions["t4"] == "float32"
    assert "in float32, since no peak in bfloat16 is known: laptop, raspberry-pi-5, t4" in ended.out
    model = build.build("llama-tiny", build.config_of("llama-tiny"), 4, torch.device("cpu"), True)
    assert {p.dtype for p in model.trained} == {torch.float32}
    assert torch.bfloat16 in {p.dtype for p in model.weights}


def test_files_that_exist_are_left_as_they_are(
    hanse: Callable[..., Outcome], tmp_path: Path
) -> None:
    (tmp_path / "edge-study.json").write_text("mine")
    for words in ((), ("--output", "new.json", "--plot", "edge-study.json")):
        ended = hanse("profile", "llama-tiny", *words)
        assert ended.code == 2 and "edge-study.json exists already" in ended.err
    assert (tmp_path / "edge-study.json").read_text() == "mine"


def test_a_deadline_is_an_objection(hanse: Callable[..., Outcome], tmp_path: Path) -> None:
    ended = hanse("profile", "llama-tiny", *FAST, "--link", "10/50", "--deadline", "0")
    assert ended.code == 0
    study = record_files.parse((tmp_path / "edge-study.json").read_bytes(), EdgeStudy)
    assert all("past the deadline" in own.objection for own in study.rounds)


def test_an_encoder_decoder_writes_a_quarter_of_what_it_reads() -> None:
    model = build.build("t5-tiny", build.config_of("t5-tiny"), 4, torch.device("cpu"))
    loss, tokens = model.loss(2, 16)
    assert tokens == 2 * (16 + 4) and loss().item() > 0
    assert build.size(model.model.config) == model.parameters


def test_a_model_on_disk_gives_its_shape(tiny_llama: Path, tiny_t5: Path) -> None:
    for folder in (tiny_llama, tiny_t5):
        config = build.config_of(str(folder))
        assert build.size(config) > 0


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["lama-tiny"], "did you mean 'llama-tiny'?"),
        (["llama-tiny", "--batch", "0,1"], "--batch is '0,1'"),
        (["llama-tiny", "--batch", "many"], "with commas, such as 1,2,4"),
        (["llama-tiny", "--link", "10"], "--link is '10'"),
        (["llama-tiny", "--link", "0/5"], "such as 10/50"),
        (["llama-tiny", "--link", "nan/5"], "such as 10/50"),
        (["llama-tiny", "--output", "nowhere/found.json"], "nowhere is no folder"),
        (["llama-tiny", "--output", "."], ". is a folder"),
        (["llama-tiny", "--plot", "."], ". is a folder"),
        (["llama-tiny", "--output", "new", "--plot", "./new"], "--output and --plot both name new"),
        (["llama-tiny", "--deadline", "nan"], "--deadline came as nan"),
    ],
)
def test_mistakes_are_one_sentence(
    hanse: Callable[..., Outcome], words: list[str], sentence: str
) -> None:
    ended = hanse("profile", *words)
    assert ended.code == 2 and sentence in ended.err and ended.err.count("\n") == 1


def test_models_that_write_no_text_or_do_not_fit_are_refused(
    hanse: Callable[..., Outcome], tiny_bert: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    refused = hanse("profile", tiny_bert)
    assert refused.code == 2 and "which writes no text" in refused.err
    monkeypatch.setattr("hanse.planning.edge_study.study.available_memory", lambda: 1000)
    large = hanse("profile", "llama-tiny")
    assert (
        large.code == 2 and "a step takes about as much again; 1e-06 GB are free here" in large.err
    )


def test_the_memory_of_a_gpu_counts_where_one_trains(monkeypatch: pytest.MonkeyPatch) -> None:
    """The weights pass through the processor's memory, and the steps are on the GPU."""
    cuda = torch.device("cuda")
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (1500, 10**9))
    monkeypatch.setattr(edge_study, "available_memory", lambda: 900)
    with pytest.raises(UserError, match=r"as much again; 1\.5e-06 GB are free on the GPU"):
        edge_study._refuse_large("m", 400, torch.bfloat16, cuda)
    edge_study._refuse_large("m", 300, torch.bfloat16, cuda)
    monkeypatch.setattr(edge_study, "available_memory", lambda: 500)
    with pytest.raises(UserError, match="take 6e-07 GB; 5e-07 GB are free here"):
        edge_study._refuse_large("m", 300, torch.bfloat16, cuda)


def test_a_batch_that_memory_does_not_hold_is_one_sentence(
    hanse: Callable[..., Outcome], monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> None:
        raise RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried 8 bytes")

    monkeypatch.setattr("hanse.planning.edge_study.study.measured_step", full)
    ended = hanse("profile", "llama-tiny", *FAST)
    assert ended.code == 2 and "a step of 1 rows of 16 tokens needs more memory" in ended.err
