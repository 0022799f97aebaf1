"""Clients that train other matrices and ranks than the server, in whole runs on a tiny model."""

import hashlib
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from hanse.errors import UserError
from hanse.experiment.assembly import client_adapters
from hanse.experiment.assembly.assemble import Simulation, simulate
from hanse.experiment.loading import load
from hanse.simulation import run as simulation
from hanse.tensors.named import shapes
from samples import ROOT, write_experiment
from stopping import ctrl_c

PLAN = f"algorithm={ROOT}/tests/parts/layout_plan.py:LayoutPlan"
WHOLE = "adapter={lora: {r: 4, target_modules: [q_proj, v_proj, up_proj]}}"
CLIENTS = (
    "clients={silo-1: {adapter: {lora: {rank_pattern: {v_proj: 2}}}}, "
    "silo-2: {adapter: {lora: {rank_pattern: {q_proj: 1, layers.1.mlp.up_proj: 3}}}}, "
    "silo-3: {adapter: {lora: {layers_to_transform: [1], target_modules: [v_proj, up_proj], r: 2, "
    "lora_alpha: 8}}}}"
)


def prepared(file: Path, *words: str) -> Simulation:
    return simulate(load(file, [PLAN, WHOLE, *words]))


def ranks(simulation: Simulation, client: str) -> dict[str, int]:
    """The rank of each matrix that a client declares, by the end of its name."""
    layout = simulation.clients[client].profile(client).layout
    assert layout is not None and all(form.device.type == "meta" for form in layout.values())
    return {
        ".".join(name.split(".")[-5:-2]): len(form)
        for name, form in layout.items()
        if "lora_A" in name
    }


def weights(folder: Path) -> dict[str, torch.Tensor]:
    return load_file(folder / "adapter" / "adapter_model.safetensors")


def digest(folder: Path) -> str:
    file = folder / "adapter" / "adapter_model.safetensors"
    return hashlib.sha256(file.read_bytes()).hexdigest()


def test_a_client_declares_what_it_trains_and_the_server_expects_it(experiment_file: Path) -> None:
    parts = prepared(experiment_file, CLIENTS)
    assert ranks(parts, "silo-1") == {
        **{"0.self_attn.q_proj": 4, "0.self_attn.v_proj": 2, "0.mlp.up_proj": 4},
        **{"1.self_attn.q_proj": 4, "1.self_attn.v_proj": 2, "1.mlp.up_proj": 4},
    }
    assert ranks(parts, "silo-2") == {
        **{"0.self_attn.q_proj": 1, "0.self_attn.v_proj": 4, "0.mlp.up_proj": 4},
        **{"1.self_attn.q_proj": 1, "1.self_attn.v_proj": 4, "1.mlp.up_proj": 3},
    }
    assert ranks(parts, "silo-3") == {"1.self_attn.v_proj": 2, "1.mlp.up_proj": 2}
    before = parts.learner.tensors()
    expected = client_adapters.expected(parts.learner, parts.experiment)
    assert expected is not None
    for name, client in parts.clients.items():
        layout, profile = expected[name], client.profile(name)
        assert layout is not None and profile.layout is not None
        assert shapes(layout) == shapes(profile.layout)
        assert profile.numbers["scaling"] == pytest.approx(4.0)
    assert all(torch.equal(t, before[n]) for n, t in parts.learner.tensors().items())


def test_a_layout_is_declared_only_if_the_algorithm_asks(experiment_file: Path) -> None:
    parts = simulate(load(experiment_file, ["algorithm=fedavg"]))
    assert parts.profiles[0].layout is None
    assert client_adapters.expected(parts.learner, parts.experiment) is None


@pytest.mark.parametrize(
    ("clients", "sentence"),
    [
        ("{silo-2: {adapter: {lora: {r: 8, lora_alpha: 32}}}}", r"clients\.silo-2: it trains .*8"),
        ("{silo-2: {adapter: {lora: {target_modules: [k_proj]}}}}", r"k_proj.* is not in the serv"),
        ("{silo-2: {adapter: {lora: {use_rslora: true}}}}", "trains another adapter"),
        ("{silo-2: {adapter: {ia3: {}, lora: null}}}", "trains another adapter"),
    ],
)
def test_a_client_with_more_than_the_server_is_refused(
    experiment_file: Path, clients: str, sentence: str
) -> None:
    with pytest.raises(UserError, match=sentence):
        prepared(experiment_file, f"clients={clients}")
    with pytest.raises(UserError, match=sentence):  # as a server that has no clients here
        experiment = load(experiment_file, [PLAN, WHOLE, f"clients={clients}"])
        client_adapters.expected(prepared(experiment_file).learner, experiment)


RUN = [PLAN, WHOLE, CLIENTS, "rounds=2", "train.optimizer_state=keep", "clients_per_pass=3"]


@pytest.fixture(scope="module")
def together(tmp_path_factory: pytest.TempPathFactory, tiny_llama: Path, review_file: Path) -> Path:
    """The finished run. Two clients train the same matrices, and therefore in one pass."""
    file = write_experiment(tmp_path_factory.mktemp("together"), tiny_llama, review_file)
    return simulation.run(load(file, RUN))


def test_clients_of_unequal_layouts_train_together_as_alone(
    experiment_file: Path, together: Path
) -> None:
    alone = simulation.run(load(experiment_file, [*RUN, "clients_per_pass=off"]))
    for name, tensor in weights(alone).items():
        torch.testing.assert_close(weights(together)[name], tensor, atol=1e-5, rtol=0)


def test_a_run_of_unequal_layouts_resumes_as_if_it_had_not_stopped(
    experiment_file: Path, together: Path
) -> None:
    with ctrl_c("round 2: ", 2), pytest.raises(UserError, match="after round 1 was"):
        simulation.run(load(experiment_file, RUN))
    assert digest(simulation.resume(experiment_file.parent / "run")) == digest(together)


@pytest.mark.parametrize("algorithm", ["hetlora", "flexlora", "flora"])
def test_an_algorithm_of_one_rank_a_client_refuses_ranks_by_matrix(
    experiment_file: Path, algorithm: str
) -> None:
    words = [f"algorithm={algorithm}", "adapter.lora.rank_pattern={q_proj: 2}"]
    with pytest.raises(UserError, match=r"but the adapter has ranks from 2 to 4; leave adapter"):
        simulation.run(load(experiment_file, words))
