"""Algorithms in whole runs on a real model's shape: cohorts, resume, PEFT, refusals."""

import hashlib
import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from peft import PeftModel
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM

from hanse import registry
from hanse.errors import UserError
from hanse.experiment.assembly.assemble import simulate
from hanse.experiment.assembly.resources import Resources
from hanse.experiment.loading import load
from hanse.experiment.schema import Experiment
from hanse.federation.messages import Reply, Request
from hanse.journal import run_folder
from hanse.planning.preview import estimate
from hanse.serving.trained_adapter import find
from hanse.simulation import run as simulation
from hanse.tensors.low_rank import layers
from stopping import ctrl_c
from zoo import RANKS, ZOO, words


def run(file: Path, *words: str) -> Path:
    return simulation.run(load(file, words))


def weights(folder: Path) -> dict[str, torch.Tensor]:
    return load_file(folder / "adapter" / "adapter_model.safetensors")


def products(folder: Path) -> dict[str, torch.Tensor]:
    """What the adapter adds to each layer's weights; its factors may be turned against others."""
    config = json.loads((folder / "adapter" / "adapter_config.json").read_text())
    scaling = config["lora_alpha"] / config["r"]
    return {name: scaling * own.product() for name, own in layers(weights(folder)).items()}


def digest(folder: Path) -> str:
    return hashlib.sha256(
        (folder / "adapter" / "adapter_model.safetensors").read_bytes()
    ).hexdigest()


@pytest.mark.parametrize("algorithm", ZOO)
def test_a_run_in_cohorts_ends_as_one_by_one_and_as_if_stopped(
    algorithm: str, experiment_file: Path, tmp_path: Path
) -> None:
    own = words(algorithm, "rounds=2", "train.optimizer_state=keep")
    together = run(experiment_file, *own)
    single = run(experiment_file, *own, "clients_per_pass=off", f"output_dir={tmp_path / 'single'}")
    for name, tensor in products(single).items():
        torch.testing.assert_close(products(together)[name], tensor, atol=1e-5, rtol=0)
    scores = [run_folder.read_rounds(folder)[-1].client_test for folder in (together, single)]
    for name, metrics in scores[0].items():
        assert metrics["loss"] == pytest.approx(scores[1][name]["loss"], abs=1e-4)
    stopped = tmp_path / "stopped"
    with ctrl_c("round 2: ", 2), pytest.raises(UserError, match="after round 1 was"):
        run(experiment_file, *own, f"output_dir={stopped}")
    assert digest(simulation.resume(stopped)) == digest(together)


@pytest.mark.filterwarnings("ignore:.*is_gradient_checkpointing:FutureWarning")  # PEFT's
@pytest.mark.parametrize("algorithm", ["ffa_lora", "flexlora", "flora", "fedex_lora"])
def test_what_is_left_is_a_peft_adapter_that_scores_the_same(
    algorithm: str, experiment_file: Path, tiny_llama: Path
) -> None:
    folder = run(experiment_file, *words(algorithm))
    base = AutoModelForCausalLM.from_pretrained(tiny_llama)
    ids = torch.arange(20, 40)[None]
    plain = base(ids).logits
    loaded = PeftModel.from_pretrained(base, str(folder / "adapter")).eval()
    assert not torch.allclose(loaded(ids).logits, plain, atol=1e-3)
    learner = find(folder).learner(Resources(), {})
    learner.backbone.activate(learner.adapter)
    own = learner.backbone.logits(ids, torch.arange(20))
    torch.testing.assert_close(own, loaded(ids).logits[0], atol=1e-5, rtol=0)


def test_ffa_halves_what_is_sent(experiment_file: Path, tmp_path: Path) -> None:
    """The tiny model's factors are of nearly one size, and the rest of a message is small."""
    sent = {}
    for algorithm in ("fedit", "ffa_lora"):
        folder = run(
            experiment_file,
            f"algorithm={algorithm}",
            "adapter.lora.r=32",
            "adapter.lora.target_modules=[q_proj, o_proj]",
            f"output_dir={tmp_path / algorithm}",
        )
        sent[algorithm] = run_folder.read_rounds(folder)[1].bytes
    for way in ("up", "down"):
        assert getattr(sent["ffa_lora"], way) / getattr(sent["fedit"], way) == pytest.approx(
            0.5, abs=0.05
        )


def test_unequal_ranks_want_an_algorithm_for_them(experiment_file: Path) -> None:
    with pytest.raises(UserError, match=r"r and lora_alpha with an algorithm for that: .*flexlora"):
        run(experiment_file, RANKS)


FORGETFUL = [
    n
    for n in registry.names("federation/algorithms")
    if n in ZOO and registry.find("federation/algorithms", n).resets_optimizer
]


@pytest.mark.parametrize("algorithm", FORGETFUL)
def test_some_want_optimizers_that_begin_anew(algorithm: str, experiment_file: Path) -> None:
    with pytest.raises(UserError, match=r"means nothing .* set train.optimizer_state=reset"):
        run(experiment_file, *words(algorithm), "train.optimizer_state=keep")


KEEPING = [
    n
    for n in registry.names("federation/algorithms")
    if registry.find("federation/algorithms", n).keeps_optimizer
]


@pytest.mark.parametrize("algorithm", KEEPING)
def test_others_want_optimizers_that_go_on(algorithm: str, experiment_file: Path) -> None:
    with pytest.raises(UserError, match=r"goes on from its .* set train.optimizer_state=keep"):
        run(experiment_file, *words(algorithm), "train.optimizer_state=reset")


RULE = """
from dataclasses import dataclass
from hanse.federation.interfaces.aggregator import Aggregator

@dataclass(frozen=True)
class Rule(Aggregator):
    sums_only = {sums}

    def aggregate(self, exchange):
        raise AssertionError("clients were asked")
"""


@pytest.mark.parametrize("command", [estimate.preview, simulation.run])
@pytest.mark.parametrize("sums", [True, False])
@pytest.mark.parametrize("algorithm", ["fednova", "hetlora"])
def test_what_an_aggregator_does_not_give_is_refused_before_rows_are_read(
    algorithm: str, sums: bool, command: Callable[[Experiment], object], experiment_file: Path
) -> None:
    rule = experiment_file.with_name("rule.py")
    rule.write_text(RULE.format(sums=sums))
    unread = experiment_file.with_name("nowhere.jsonl")
    changes = [f"algorithm={algorithm}", f"aggregator={rule}:Rule", f"data.path={unread}"]
    with pytest.raises(UserError, match=r"needs .*; choose the aggregator mean, or another"):
        command(load(experiment_file, changes))


def test_a_rank_above_the_matrices_is_refused(experiment_file: Path) -> None:
    with pytest.raises(UserError, match=r"adapter.lora.r is 40, .* set it to 32 or less"):
        run(experiment_file, "adapter.lora.r=40")


def test_a_share_that_matches_nothing_is_refused(experiment_file: Path) -> None:
    with pytest.raises(UserError, match="'nowhere' is in no tensor's name; there are"):
        run(experiment_file, "algorithm.fedper.share=[nowhere]")


def test_a_client_with_a_model_of_its_own_begins_with_the_same_adapter(
    experiment_file: Path,
) -> None:
    before = run(experiment_file, "rounds=1")
    own = "clients={silo-1: {model: {gradient_checkpointing: true}}}"
    prepared = simulate(load(experiment_file, ["adapter.lora=null", f"adapter.from={before}", own]))
    silo = prepared.clients["silo-1"].learner
    assert silo.backbone is not prepared.learner.backbone
    for name, tensor in weights(before).items():
        assert torch.equal(silo.initial()[name], tensor)


def test_pftt_sends_bottlenecks_and_never_lora(
    experiment_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[bytes] = []
    told = Request.pack, Reply.pack
    monkeypatch.setattr(Request, "pack", lambda self: _noted(seen, told[0](self)))
    monkeypatch.setattr(Reply, "pack", lambda self: _noted(seen, told[1](self)))
    adapter = "adapter={houlsby: {reduction_factor: 4}, lora: {r: 2, target_modules: [q_proj]}}"
    words = ["algorithm=pftt", adapter, f"output_dir={tmp_path / 'run'}"]
    folder = run(experiment_file, *words)
    assert seen and all(b"lora_" not in message for message in seen)
    assert any(b"bottleneck_down" in message for message in seen)
    kept = [load_file(file) for file in sorted((folder / "clients").glob("*/*.safetensors"))]
    lora = [t for own in kept for name, t in own.items() if "lora_B" in name]
    assert lora and any(t.any() for t in lora)
    assert not torch.equal(lora[0], lora[-1])  # each client its own
    left = load_file(folder / "adapter" / "adapter_model.safetensors")
    assert all("bottleneck_" in name for name in left)
    stopped = tmp_path / "stopped"
    with ctrl_c("round 2: ", 2), pytest.raises(UserError, match="after round 1 was"):
        run(experiment_file, "algorithm=pftt", adapter, f"output_dir={stopped}")
    assert digest(simulation.resume(stopped)) == digest(folder)


def _noted(seen: list[bytes], message: bytes) -> bytes:
    seen.append(message)
    return message


def test_pftt_wants_both(experiment_file: Path) -> None:
    with pytest.raises(UserError, match="PFTT keeps LoRA at each client, but the adapter has none"):
        run(experiment_file, "algorithm=pftt", "adapter=houlsby")


@pytest.mark.parametrize(
    ("adapter", "said"),
    [
        ("{houlsby: {}, pfeiffer: {}}", "would be in the same layers; use one"),
        ("{lora: {}, prompt_tuning: {}}", "PromptTuning cannot be combined with others"),
        ("{lora: {target_modules: all-linear}, houlsby: {}}", "cannot have target_modules"),
    ],
)
def test_adapters_that_do_not_go_together(experiment_file: Path, adapter: str, said: str) -> None:
    with pytest.raises(UserError, match=said):
        run(experiment_file, f"adapter={adapter}")
