"""Runs with codecs: their bytes, and that they resume to the same adapter."""

import hashlib
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from safetensors.torch import load_file

from hanse.errors import UserError
from hanse.experiment.loading import load
from hanse.journal.run_folder import read_ledger, read_rounds
from hanse.planning.preview.estimate import preview
from hanse.simulation import run as simulation
from samples import ROOT
from stopping import ctrl_c, die_at_write, killed

CODEC = ROOT / "examples" / "my_codec.py"
SUMS = ROOT / "tests" / "parts" / "plain_rules.py"
EVERYTHING = (
    "compression={upload: [bf16], download: [bf16], error_feedback: true}",
    f"clients.silo-2.compression.upload=[{CODEC}:Grid]",
    "clients.silo-3.compression.upload=[{top_k: {share: 0.1}}, int8, zstd]",
)


def run(file: Path, folder: Path, *words: str) -> Path:
    return simulation.run(load(file, [f"output_dir={folder}", *words]))


def adapter(folder: Path) -> str:
    file = folder / "adapter" / "adapter_model.safetensors"
    return hashlib.sha256(file.read_bytes()).hexdigest()


def test_the_bytes_of_tensors_are_halved(experiment_file: Path, tmp_path: Path) -> None:
    words = ["adapter.lora.r=32", "rounds=1", "evaluation.test=false"]  # little else is sent
    plain = run(experiment_file, tmp_path / "plain", *words)
    coded = run(experiment_file, tmp_path / "coded", *words, "compression=bf16")
    sizes = [
        {record.client: record for record in read_ledger(folder) if record.kind == "train"}
        for folder in (plain, coded)
    ]
    for client, size in sizes[0].items():
        assert 0.5 < sizes[1][client].up / size.up < 0.58
        assert sizes[1][client].down == pytest.approx(size.down, abs=100)
    foreseen = preview(load(experiment_file, [*words, "compression=bf16"])).traffic["train"]
    assert {name: t.up for name, t in foreseen.items()} == {
        name: record.up for name, record in sizes[1].items()
    }


def test_check_parts_and_model_card_name_the_codecs(
    hanse: Callable[..., Any], experiment_file: Path, tmp_path: Path
) -> None:
    words = ["compression=bf16", "clients.silo-1.compression=identity"]
    done = hanse("check", experiment_file, *words, "compression.collect=true")
    assert "\ncollected  the update of each client in each round is written to the" in done.out
    assert "\nencoded    updates by bf16, 1 of the clients by their own settings\n" in done.out
    assert "encoded" not in hanse("check", experiment_file).out
    card = run(experiment_file, tmp_path / "run", "rounds=1", *words) / "adapter" / "README.md"
    assert "What travelled was encoded: updates by bf16, 1 of the" in card.read_text()
    listed = hanse("parts").out
    assert listed.count("\ncompression\n") == 1
    assert "\nprivacy\n  client_dp  " in listed


def test_it_learns_and_resumes_bit_identically(experiment_file: Path, tmp_path: Path) -> None:
    whole = run(experiment_file, tmp_path / "whole", *EVERYTHING)
    first, *_, last = read_rounds(whole)
    assert last.test["accuracy"] > first.test["accuracy"]
    with ctrl_c("round 2: ", 2), pytest.raises(UserError, match="after round 1 was"):
        run(experiment_file, tmp_path / "stopped", *EVERYTHING)
    assert not (tmp_path / "stopped" / "adapter").exists()
    assert adapter(simulation.resume(tmp_path / "stopped")) == adapter(whole)


def test_a_killed_run_pays_what_its_codecs_owe(experiment_file: Path, tmp_path: Path) -> None:
    words = ["evaluation.test=false", "evaluation.clients=false"]
    words.append("compression={upload: [{top_k: {share: 0.05}}, int8, zstd], error_feedback: true}")
    whole = run(experiment_file, tmp_path / "whole", *words)
    rounds = len(read_rounds(whole))
    folder = tmp_path / "killed"

    def dies(write: int) -> Path:
        die_at_write(write, folder / "clients", folder / "ledger.jsonl")
        if folder.exists():
            return simulation.resume(folder)
        return run(experiment_file, folder, *words)

    assert killed(partial(dies, 9)) and 0 < len(read_rounds(folder)) < rounds
    assert killed(partial(dies, 3))
    assert adapter(simulation.resume(folder)) == adapter(whole)


def test_random_places_give_the_same_under_a_rule_that_sees_sums_only(
    experiment_file: Path, tmp_path: Path
) -> None:
    words = ["rounds=2", "evaluation.test=false", "evaluation.clients=false"]
    words.append("compression={upload: [{rand_k: {share: 0.2}}], error_feedback: true}")
    seen = run(experiment_file, tmp_path / "seen", *words)
    summed = run(experiment_file, tmp_path / "summed", *words, f"aggregator={SUMS}:Sums")
    pairs = [load_file(f / "adapter" / "adapter_model.safetensors") for f in (seen, summed)]
    changed = total = 0
    for name, tensor in pairs[0].items():
        assert torch.allclose(tensor, pairs[1][name], atol=1e-6)
        if name.endswith("lora_B.weight"):  # it starts at zero
            changed, total = changed + int(tensor.count_nonzero()), total + tensor.numel()
    assert 0.3 < changed / total < 0.42, "two draws of a fifth"


def test_a_client_with_the_common_codecs_as_its_own_changes_nothing(
    experiment_file: Path, tmp_path: Path
) -> None:
    common = run(experiment_file, tmp_path / "common", "compression=bf16")
    own = run(
        experiment_file,
        tmp_path / "own",
        *(f"clients.silo-{number}.compression=bf16" for number in (1, 2, 3)),
    )
    assert adapter(common) == adapter(own)


def test_a_folder_from_before_there_was_compression_is_resumed(
    experiment_file: Path, tmp_path: Path
) -> None:
    folder = run(experiment_file, tmp_path / "run")
    before = adapter(folder)
    settings = yaml.safe_load((folder / "experiment.yaml").read_text())
    for later in ("compression", "privacy"):
        del settings[later]
    (folder / "experiment.yaml").write_text(yaml.safe_dump(settings))
    (folder / "adapter" / "adapter_model.safetensors").unlink()
    assert adapter(simulation.resume(folder)) == before
