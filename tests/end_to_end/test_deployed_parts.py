"""Toys of methods to come, and secure sums, deployed and in one process."""

import time
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

from hanse.journal import record_files
from hanse.journal.privacy_record import PRIVACY, PrivacyRecord
from hanse.journal.run_folder import read_releases, read_rounds
from real_federation import PATIENCE, digest, simulated
from standing_federation import PARTS, StandingFederation

pytestmark = pytest.mark.end_to_end

# Parts from outside the package, two or three in each run, and secure sums.
SQUEEZED = f"[{{{PARTS}/squeezed.py:Squeezed: {{grid: 0.001}}}}]"
NOISED = "{noise_multiplier: 0.01, test_noise: true}"
OF_EXTRA = ("rows that each silo hides in its training",)  # hanse[privacy]
# Another architecture, and another tokenizer.
TEXTS = (
    *("objective=sft", "data.public=DATA", "evaluation.tasks=[perplexity]"),
    "clients={silo-1: {model: {model_name_or_path: GPT2}}, "
    "silo-2: {model: {model_name_or_path: OTHER}}}",
)
STRAINS: dict[str, list[str]] = {
    "noise at clients, error feedback with blobs on both ways, and mentors that stay": [
        f"compression={{upload: {SQUEEZED}, download: {SQUEEZED}, error_feedback: true}}",
        f"privacy={{{PARTS}/noised_mean.py:NoisedUpdates: {NOISED}}}",
        *(f"algorithm={PARTS}/mentors.py:Mentored", f"objective={PARTS}/mentors.py:Taught"),
        "models={mentor: {model_name_or_path: GPT2, bf16: false, adapter: {lora: {r: 2}}}}",
        *("train.optimizer_state=keep", "rounds=2"),
    ],
    OF_EXTRA[0]: [
        f"privacy={{{PARTS}/seeded_dp.py:SeededDp: {{epsilon: null, noise_multiplier: 1.0}}}}",
        *("algorithm={fedprox: {mu: 0.1}}", "compression=int8", "rounds=2"),
        *("train.per_device_train_batch_size=10", "train.gradient_accumulation_steps=10"),
    ],
    "noise at the server, and adapters on an emulator that is sent once": [
        f"privacy={{{PARTS}/noised_mean.py:NoisedMean: {NOISED}}}",
        f"algorithm={PARTS}/owner_emulator.py:OwnerEmulator",
    ],
    "plans of other matrices and ranks, signatures for each other, preferences and drawn answers": [
        f"algorithm={PARTS}/layout_plan.py:LayoutPlan",
        f"aggregator={PARTS}/signed_greetings.py:SignedGreetings",
        "adapter={lora: {r: 4, target_modules: [q_proj, v_proj, up_proj]}}",
        "clients={silo-1: {adapter: {lora: {target_modules: [q_proj], r: 2, lora_alpha: 8}}}, "
        "silo-2: {adapter: {lora: {rank_pattern: {q_proj: 1, layers.1.mlp.up_proj: 3}}}}, "
        "silo-3: {adapter: {lora: {layers_to_transform: [1], target_modules: [v_proj, up_proj]}}}}",
        f"objective={{{PARTS}/preference.py:Preference: {{drawn: 4}}}}",
        "data.columns={prompt: question, chosen: better, rejected: worse}",
    ],
    "distillation by logits on public rows between unequal models": [
        "algorithm={feddistill: {k: 1, dtype: float16, temperature: 2}}",
        *("objective=classify", "data.public=DATA", "rounds=2"),
        "clients={silo-1: {model: {model_name_or_path: GPT2}}, "
        "silo-2: {model: {model_name_or_path: BERT}, adapter: {lora: {r: 2}}}, "
        "silo-3: {adapter: {lora: {r: 1, target_modules: [up_proj]}}}}",
    ],
    "predictions of texts by three models, whose tokens a file has that is sent once": [
        *("algorithm={fedmkt: {k: 8, dtype: float16}}", "rounds=2"),
        *TEXTS,
    ],
    "parts of an adapter that grow by trials of groups of silos": [
        "algorithm={fedadapter: {width: 1, wider: 2, budget: 0.003, rate: 1000, "
        "step_seconds: 0.001, layer_seconds: 0.001}}",
        *("adapter={pfeiffer: {reduction_factor: 6.4}}", "rounds=4"),
    ],
    "secure sums of tensors and numbers": [
        "aggregator=secagg",
        *("algorithm=fednova", "train.optim=sgd", "train.momentum=0"),
    ],
    "a whole model that changes in place by scalars": [
        *("algorithm={fedkseed: {seeds: 64, pro: true}}", "adapter=none", "rounds=2"),
        *("train.optim=sgd", "train.max_steps=6", "train.lr_scheduler_type=constant"),
    ],
}


@pytest.fixture
def filled(
    standing: StandingFederation, tiny_gpt2: Path, tiny_bert: Path, other_llama: Path
) -> Callable[[Sequence[str]], list[str]]:
    """Puts the places of rows and models into words."""
    models = {"GPT2": tiny_gpt2, "BERT": tiny_bert, "OTHER": other_llama}
    places = {"DATA": standing.parts.data, **models}

    def fill(words: Sequence[str]) -> list[str]:
        own = ["evaluation.clients=false", "data.path=DATA", *words]
        for name, place in places.items():
            own = [word.replace(name, str(place)) for word in own]
        return own

    return fill


@pytest.mark.parametrize("strain", STRAINS)
def test_deployed_toy_ends_in_the_adapter_of_the_simulated_one(
    standing: StandingFederation,
    experiment_file: Path,
    tmp_path: Path,
    filled: Callable[[Sequence[str]], list[str]],
    strain: str,
) -> None:
    if strain in OF_EXTRA:
        pytest.importorskip("dp_accounting")
        pytest.importorskip("opacus")
    own = filled(["rounds=1", *STRAINS[strain]])
    expected = simulated(experiment_file, tmp_path / "simulated", *own, "num_clients=3")
    standing.begin(experiment_file, tmp_path / "deployed", *own)
    standing.done()
    assert digest(tmp_path / "deployed") == expected


def test_a_killed_silo_with_a_model_and_tokens_of_its_own_comes_back(
    standing: StandingFederation,
    experiment_file: Path,
    tmp_path: Path,
    filled: Callable[[Sequence[str]], list[str]],
) -> None:
    """What it has learned in earlier rounds, and the server's tokens, are on its disk."""
    own = filled(["algorithm={fedmkt: {k: 8}}", "rounds=4", *TEXTS])
    expected = simulated(experiment_file, tmp_path / "simulated", *own, "num_clients=3")
    folder = tmp_path / "deployed"
    standing.begin(experiment_file, folder, *own)
    end = time.monotonic() + PATIENCE
    while len(read_rounds(folder)) < 3:  # round 2 is counted
        assert time.monotonic() < end, standing.parts.said("server")
        time.sleep(0.02)
    standing.kill("silo-2")
    assert len(read_rounds(folder)) < 5
    standing.silo("silo-2")
    standing.done()
    assert digest(folder) == expected


@pytest.mark.extras
@pytest.mark.parametrize(
    "settings", ["{epsilon: 8}", "{epsilon: null, noise_multiplier: 0.2, quantile: 0.5}"]
)
def test_a_run_with_noise_that_was_stopped_ends_as_the_simulated_one(
    standing: StandingFederation, experiment_file: Path, tmp_path: Path, settings: str
) -> None:
    """It ends after its noise was drawn and before the step; the same draw is used then."""
    pytest.importorskip("dp_accounting")
    words = ["rounds=3", "evaluation.clients=false", f"data.path={standing.parts.data}"]
    words.append(f"privacy={{{PARTS}/repeatable_dp.py:RepeatableDp: {settings}}}")
    expected = simulated(experiment_file, tmp_path / "simulated", *words, "num_clients=3")
    folder = tmp_path / "deployed"
    standing.begin(experiment_file, folder, *words, falters=2)
    assert "the server falters" in (standing.trouble() or "")
    assert [release.round for release in read_releases(folder)] == [1, 2]
    standing.begin(experiment_file, folder, *words)
    standing.done()
    assert digest(folder) == expected
    assert [release.round for release in read_releases(folder)] == [1, 2, 3]
    accounts = [
        record_files.read(tmp_path / run / PRIVACY, PrivacyRecord)
        for run in ("simulated", "deployed")
    ]
    assert accounts[0] is not None and accounts[0] == accounts[1]
