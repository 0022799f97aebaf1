"""Silos tune an emulator: equalities with ordinary training, the plugged-in model, what crosses."""

import hashlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import torch
from peft import PeftModel
from transformers import AutoModelForCausalLM, AutoTokenizer

from hanse.errors import UserError
from hanse.experiment.assembly.assemble import simulate
from hanse.experiment.loading import load
from hanse.federation.client import respond
from hanse.federation.server_state import ServerState
from hanse.journal.checkpoints import latest
from hanse.journal.run_folder import read_rounds
from hanse.planning import emulator as planning
from hanse.simulation import in_process
from hanse.simulation import run as simulation
from samples import Outcome
from stopping import ctrl_c
from tiny_models import save_llama

LAYERS = 7
LORA = "{{lora: {{r: 4, layers_to_transform: {}}}}}"
FULL = "{{full: {{layers_to_transform: {}}}}}"
IA3 = "{{ia3: {{layers_to_transform: {}}}}}"
BOTTLENECK = "{{pfeiffer: {{layers_to_transform: {}}}}}"
SCORES = "evaluation.validate_every=1"


@pytest.fixture(scope="module")
def deep(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("models") / "deep"
    save_llama(folder, layers=LAYERS)
    return folder


@pytest.fixture
def made(deep: Path, tmp_path: Path) -> Callable[..., Path]:
    """Make an emulator by a compressor, distilled on texts if there are some."""

    def make(spec: Any, texts: Path | None = None, **settings: Any) -> Path:
        folder = tmp_path / "emulator"
        rows = None if texts is None else planning.Texts(str(texts), None, settings)
        planning.make(str(deep), folder, 2, 2, spec, rows)
        return folder

    return make


def words(emulator: Path, whole: Path, layers: list[int], adapter: str = LORA) -> list[str]:
    return [
        f"model.model_name_or_path={emulator}",
        f"models={{whole: {{model_name_or_path: {whole}, bf16: false}}}}",
        "algorithm=fedot",
        f"adapter={adapter.format(layers)}",
    ]


def run(file: Path, settings: list[str], *more: str) -> Path:
    return simulation.run(load(file, [*settings, *more]))


def weights(folder: Path) -> dict[str, torch.Tensor]:
    return safetensors.torch.load_file(folder / "adapter_model.safetensors")


def equal(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> bool:
    return one.keys() == other.keys() and all(torch.equal(one[n], other[n]) for n in one)


def scores(folder: Path, prefix: str) -> list[dict[str, float]]:
    """The scores of each round whose names begin so, without that beginning."""
    rounds = [{**record.validation, **record.test} for record in read_rounds(folder)]
    own = [{n: v for n, v in by.items() if ("whole." in n) == bool(prefix)} for by in rounds]
    return [{name.removeprefix(prefix): value for name, value in by.items()} for by in own]


@pytest.mark.parametrize("adapter", [LORA, FULL, IA3, BOTTLENECK], ids=lambda text: text[2:6])
def test_with_all_layers_it_is_ordinary_training_of_some_layers(
    experiment_file: Path, deep: Path, made: Callable[..., Path], tmp_path: Path, adapter: str
) -> None:
    layers = [0, 1, 5, 6]
    emulator = made({"layer_drop": {"drop": 0.0}})
    ours = run(experiment_file, words(emulator, deep, layers, adapter))
    plain = [f"model.model_name_or_path={deep}", f"adapter={adapter.format(layers)}"]
    plain = run(experiment_file, [*plain, "algorithm=fedavg"], f"output_dir={tmp_path / 'plain'}")
    trained = weights(plain / "adapter")
    assert equal(weights(ours / "adapter"), trained)
    assert equal(weights(ours / "models" / "whole"), trained)
    assert scores(ours, "whole.") == scores(ours, "") == scores(plain, "") != []


@pytest.mark.filterwarnings("ignore::FutureWarning")  # of PEFT about transformers
def test_trained_layers_are_plugged_into_their_places(
    experiment_file: Path, deep: Path, made: Callable[..., Path]
) -> None:
    """PEFT and transformers compute by the saved plug-in what the run has scored."""
    emulator = made({"layer_drop": {"drop": 0.6}})
    folder = run(experiment_file, words(emulator, deep, [0, 1, 3, 4]))
    own, whole = weights(folder / "adapter"), weights(folder / "models" / "whole")
    places = {0: 0, 1: 1, 3: 5, 4: 6}
    for number, place in places.items():
        for end in ("q_proj.lora_A", "v_proj.lora_B"):
            layer = "base_model.model.model.layers.{}.self_attn." + end + ".weight"
            assert torch.equal(own[layer.format(number)], whole[layer.format(place)])
    assert len(own) == len(whole) == 16
    model = PeftModel.from_pretrained(
        AutoModelForCausalLM.from_pretrained(deep), str(folder / "models" / "whole")
    ).eval()
    ids = torch.arange(1, 12)[None]
    assembled = simulate(load(experiment_file, words(emulator, deep, [0, 1, 3, 4])))
    learner = assembled.learner.models["whole"]
    checkpoint = latest(folder)
    assert checkpoint is not None
    state = ServerState.restored(checkpoint).algorithm_state
    learner.load(assembled.method.algorithm.beside(state)["whole"])
    with torch.no_grad():
        expected = learner.backbone.logits(ids, torch.arange(11))
        torch.testing.assert_close(model(ids).logits[0], expected, atol=1e-5, rtol=1e-4)
        bare = AutoModelForCausalLM.from_pretrained(deep)(ids).logits[0]
    assert not torch.allclose(bare, expected, atol=1e-3)
    AutoTokenizer.from_pretrained(folder / "models" / "whole")


def test_adapters_of_a_distilled_emulator_help_the_whole_model(
    experiment_file: Path, deep: Path, made: Callable[..., Path], review_file: Path
) -> None:
    emulator = made({"layer_drop": {"drop": 0.5}}, review_file, steps=40, learning_rate=3e-3)
    folder = run(experiment_file, words(emulator, deep, [0, 1, 4, 5]), "train.max_steps=8")
    first, *_, last = scores(folder, "whole.")
    assert last["loss"] < 0.8 * first["loss"]


@pytest.mark.parametrize("spec", [{"quantized": {"bits": "nf4"}}, {"low_rank": {"energy": 0.5}}])
def test_a_middle_of_another_form_is_trained_around(
    experiment_file: Path, deep: Path, made: Callable[..., Path], spec: Any
) -> None:
    folder = run(experiment_file, words(made(spec), deep, [0, 1, 5, 6], FULL), SCORES)
    own, whole = weights(folder / "adapter"), weights(folder / "models" / "whole")
    assert equal(own, whole)
    assert scores(folder, "whole.")[-1]["loss"] < scores(folder, "whole.")[0]["loss"]


def test_a_stopped_run_goes_on_bit_for_bit(
    experiment_file: Path, deep: Path, made: Callable[..., Path], tmp_path: Path
) -> None:
    settings = words(made("layer_drop"), deep, [0, 1, 4, 5])
    whole, stopped = run(experiment_file, settings), tmp_path / "stopped"
    with ctrl_c("round 2: ", 2), pytest.raises(UserError, match="after round 1 was"):
        run(experiment_file, settings, f"output_dir={stopped}")
    simulation.resume(stopped, trusted=True)
    for part in ("adapter", "models/whole"):
        assert equal(weights(stopped / part), weights(whole / part))
    assert scores(stopped, "whole.") == scores(whole, "whole.")


def test_secure_sums_come_near_the_plain_mean(
    experiment_file: Path, deep: Path, made: Callable[..., Path], tmp_path: Path
) -> None:
    settings = [*words(made("layer_drop"), deep, [0, 1, 4, 5]), "data.client_test=0", "rounds=1"]
    plain = run(experiment_file, settings)
    summed = run(experiment_file, settings, "aggregator=secagg", f"output_dir={tmp_path / 's'}")
    ours, theirs = (weights(folder / "models" / "whole") for folder in (summed, plain))
    assert ours.keys() == theirs.keys()
    for name, tensor in ours.items():
        torch.testing.assert_close(tensor, theirs[name], atol=1e-6, rtol=1e-5)


def test_no_weight_of_the_whole_model_crosses(
    experiment_file: Path, deep: Path, made: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    messages: list[bytes] = []

    def tapped(endpoint: Any, message: bytes) -> bytes:
        messages.extend([message, respond(endpoint, message)])
        return messages[-1]

    monkeypatch.setattr(in_process, "respond", tapped)
    run(experiment_file, words(made("layer_drop"), deep, [0, 1, 4, 5], FULL))
    sent = [safetensors.torch.load(bytes(message[:])) for message in messages]
    names = {name for message in sent for name in message}
    numbers = {name.split("layers.")[1].split(".")[0] for name in names if "layers." in name}
    assert numbers == {"0", "1", "4", "5"} and not [n for n in names if "whole" in n]
    middle = safetensors.torch.load_file(deep / "model.safetensors")
    matrices = [
        n for n, t in middle.items() if any(f".{k}." in n for k in (2, 3, 4)) and t.dim() > 1
    ]
    hidden = {content(middle[name]) for name in matrices}  # norms are alike in all layers
    assert len(hidden) > 10 and not hidden & {content(t) for m in sent for t in m.values()}


def content(tensor: torch.Tensor) -> str:
    return hashlib.sha256(tensor.contiguous().numpy().tobytes()).hexdigest()


def test_check_says_who_has_which_model(
    hanse: Callable[..., Outcome], experiment_file: Path, deep: Path, made: Callable[..., Path]
) -> None:
    outcome = hanse("check", experiment_file, *words(made("layer_drop"), deep, [0, 1, 4, 5]))
    text = " ".join(outcome.out.split())
    assert outcome.code == 0, outcome.err
    assert "an emulator whose middle has 2 of 3 layers (layer_drop)" in text
    assert f"only the server has models.whole ({deep})" in text
    assert "as they are, which every client sees" in text
    assert "at the server: " in text and "trained, in float32" in text
