"""Runs deployed on a server and three silos that stay up, beside the same runs in one process."""

import json
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest

from hanse.journal.run_folder import read_rounds
from patience import patience
from real_federation import digest, simulated
from standing_federation import PARTS, THREE, StandingFederation, standing_federation
from zoo import words

# What these send or keep differs: memory of clients, one factor alone, layers that stay at home, a
# residual of the base model, another adapter, a second adapter of each client.
ALGORITHMS = ["scaffold", "rolora", "fedper", "fedex_lora", "fed_sb", "ditto"]

pytestmark = pytest.mark.end_to_end


@pytest.fixture(scope="session")
def standing(
    tmp_path_factory: pytest.TempPathFactory, review_file: Path
) -> Iterator[StandingFederation]:
    with standing_federation(tmp_path_factory.mktemp("standing"), review_file) as parts:
        yield parts


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_deployed_run_ends_in_the_adapter_of_the_simulated_one(
    standing: StandingFederation, experiment_file: Path, tmp_path: Path, algorithm: str
) -> None:
    own = words(algorithm, "rounds=2", "train.optimizer_state=keep")
    expected = simulated(experiment_file, tmp_path / "simulated", *own, "num_clients=3")
    standing.begin(experiment_file, tmp_path / "deployed", *own)
    standing.done()
    assert digest(tmp_path / "deployed") == expected


# Parts from outside the package, each run with two or three of them.
SQUEEZED = f"[{{{PARTS}/squeezed.py:Squeezed: {{grid: 0.001}}}}]"
NOISED = "{noise_multiplier: 0.01, test_noise: true}"
STRAINS: dict[str, list[str]] = {
    "noise at clients, error feedback with blobs on both ways, and mentors that stay": [
        f"compression={{upload: {SQUEEZED}, download: {SQUEEZED}, error_feedback: true}}",
        f"privacy={{{PARTS}/noised_mean.py:NoisedUpdates: {NOISED}}}",
        *(f"algorithm={PARTS}/mentors.py:Mentored", f"objective={PARTS}/mentors.py:Taught"),
        "models={mentor: {model_name_or_path: GPT2, bf16: false, adapter: {lora: {r: 2}}}}",
        "train.optimizer_state=keep",
    ],
    "noise at the server, and adapters on an emulator that is sent once": [
        f"privacy={{{PARTS}/noised_mean.py:NoisedMean: {NOISED}}}",
        f"algorithm={PARTS}/owner_emulator.py:OwnerEmulator",
    ],
    "plans of other matrices and ranks, and signatures of clients for each other": [
        f"algorithm={PARTS}/layout_plan.py:LayoutPlan",
        f"aggregator={PARTS}/signed_greetings.py:SignedGreetings",
        "adapter={lora: {r: 4, target_modules: [q_proj, v_proj, up_proj]}}",
        "clients={silo-1: {adapter: {lora: {target_modules: [q_proj], r: 2, lora_alpha: 8}}}, "
        "silo-2: {adapter: {lora: {rank_pattern: {q_proj: 1, layers.1.mlp.up_proj: 3}}}}, "
        "silo-3: {adapter: {lora: {layers_to_transform: [1], target_modules: [v_proj, up_proj]}}}}",
    ],
    "distillation by logits on public rows between unequal models": [
        f"algorithm={PARTS}/logit_distillation.py:LogitDistillation",
        "objective=classify",
        "data.public=DATA",
        "clients={silo-1: {model: {model_name_or_path: GPT2}}, "
        "silo-2: {model: {model_name_or_path: BERT}, adapter: {lora: {r: 2}}}, "
        "silo-3: {adapter: {lora: {r: 1, target_modules: [up_proj]}}}}",
    ],
    "secure sums of tensors and numbers": [
        f"aggregator={PARTS}/secure_sum.py:SecureSum",
        *("algorithm=fednova", "train.optim=sgd", "train.momentum=0"),
    ],
}


@pytest.mark.parametrize("strain", STRAINS)
def test_deployed_toy_ends_in_the_adapter_of_the_simulated_one(
    standing: StandingFederation,
    experiment_file: Path,
    tmp_path: Path,
    tiny_gpt2: Path,
    tiny_bert: Path,
    strain: str,
) -> None:
    places = {"DATA": standing.parts.data, "GPT2": tiny_gpt2, "BERT": tiny_bert}
    own = [*STRAINS[strain], "rounds=2"]
    for name, place in places.items():
        own = [word.replace(name, str(place)) for word in own]
    expected = simulated(experiment_file, tmp_path / "simulated", *own, "num_clients=3")
    standing.begin(experiment_file, tmp_path / "deployed", *own)
    standing.done()
    assert digest(tmp_path / "deployed") == expected


def test_what_silos_and_the_server_say_of_a_run(
    standing: StandingFederation, experiment_file: Path, tmp_path: Path
) -> None:
    loads = _figures(standing.status_ports["silo-1"]).get("hanse_loads_total", 0)
    said = len(standing.parts.said("server"))
    standing.begin(experiment_file, tmp_path / "run", "rounds=3")
    end = time.monotonic() + patience(600)
    while not (tmp_path / "run").exists() or len(read_rounds(tmp_path / "run")) < 2:
        assert time.monotonic() < end, standing.parts.said("server")
        time.sleep(0.1)
    seen = {name: _figures(port) for name, port in standing.status_ports.items()}
    standing.done()
    assert seen["server"]["hanse_silo_connected"] == 3 and seen["server"]["hanse_rounds"] == 3
    assert seen["silo-1"]["hanse_loads_total"] == loads + 1  # whatever the number of rounds
    text = standing.parts.said("server")[said:]
    lines = [json.loads(line) for line in text.splitlines() if line.startswith("{")]
    told = {(line["round"], line["silo"]) for line in lines if "answered train" in line["message"]}
    assert told == {(number, name) for number in (1, 2, 3) for name in THREE}
    assert len({line["run"] for line in lines} - {""}) == 1  # none while the server starts


def _figures(port: int) -> dict[str, float]:
    """The sums of metrics by name."""
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=patience(30)) as answer:
        lines = answer.read().decode().splitlines()
    found: dict[str, float] = {}
    for line in lines:
        if not line.startswith("#"):
            name, value = line.partition("{")[0].split()[0], float(line.rsplit(maxsplit=1)[1])
            found[name] = found.get(name, 0.0) + value
    return found
