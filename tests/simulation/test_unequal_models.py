"""Clients with base models, adapters and tokenizers of their own, in whole runs on tiny models."""

from collections.abc import Sequence
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from folders import learned_digest
from hanse.errors import UserError
from hanse.experiment.assembly import client_adapters
from hanse.experiment.assembly.assemble import Simulation, simulate
from hanse.experiment.loading import load
from hanse.journal import run_folder
from hanse.simulation import run as simulation
from hanse.tensors.named import shapes
from samples import reviews, write_experiment, write_lines
from stopping import ctrl_c

Words = Sequence[str]


@pytest.fixture(scope="module")
def words(
    tmp_path_factory: pytest.TempPathFactory, tiny_gpt2: Path, tiny_bert: Path, other_llama: Path
) -> Words:
    """A causal model of another architecture, an encoder, and one with another tokenizer."""
    public = write_lines(tmp_path_factory.mktemp("public") / "rows.jsonl", reviews(24, seed=5))
    return [
        "algorithm={feddistill: {k: 1}}",
        f"data.public={public}",
        "rounds=2",
        f"clients={{silo-1: {{model: {{model_name_or_path: {tiny_gpt2}}}}}, "
        f"silo-2: {{model: {{model_name_or_path: {tiny_bert}}}, adapter: {{lora: {{r: 2}}}}}}, "
        f"silo-3: {{model: {{model_name_or_path: {other_llama}}}, "
        "adapter: {ia3: {}, lora: null}}}",
    ]


def prepared(file: Path, *words: str) -> Simulation:
    return simulate(load(file, words))


@pytest.fixture(scope="module")
def finished(
    tmp_path_factory: pytest.TempPathFactory, tiny_llama: Path, review_file: Path, words: Words
) -> Path:
    """The folder of a whole run."""
    file = write_experiment(tmp_path_factory.mktemp("finished"), tiny_llama, review_file)
    return simulation.run(load(file, words))


def test_server_and_three_unlike_clients_learn_together(finished: Path) -> None:
    records = run_folder.read_rounds(finished)
    assert [record.clients for record in records[1:]] == [("silo-1", "silo-2", "silo-3")] * 2
    assert records[-1].client_test.keys() == {"silo-1", "silo-2", "silo-3"}
    assert records[-1].test["loss"] < records[0].test["loss"]
    rows = [row for row in run_folder.read_ledger(finished) if row.kind == "train"]
    # 24 public rows, one logit of two: value, class and rest, of 4 bytes each.
    assert all(24 * 3 * 4 < row.up < 24 * 3 * 4 + 1_500 for row in rows)


def test_a_run_of_unequal_models_resumes_as_if_it_had_not_stopped(
    experiment_file: Path, words: Words, finished: Path
) -> None:
    with ctrl_c("round 2: ", 2), pytest.raises(UserError, match="after round 1 was"):
        simulation.run(load(experiment_file, words))
    assert learned_digest(simulation.resume(experiment_file.parent / "run")) == learned_digest(
        finished
    )


def test_the_server_expects_the_layouts_of_its_own_model_only(
    experiment_file: Path, words: Words
) -> None:
    lora = "clients.silo-3={adapter: {lora: {r: 2, target_modules: [up_proj]}}}"
    parts = prepared(experiment_file, *words, lora)
    expected = client_adapters.expected(parts.learner, parts.experiment)
    assert expected is not None
    assert expected["silo-1"] is expected["silo-2"] is None
    declared = parts.clients["silo-3"].layout
    assert declared is not None and shapes(expected["silo-3"] or {}) == shapes(declared)
    assert {name.split(".")[-3] for name in declared} == {"up_proj"}


def test_a_client_begins_with_an_adapter_of_its_own(
    experiment_file: Path, words: Words, finished: Path
) -> None:
    source = f"clients={{silo-2: {{adapter: {{from: {finished}}}}}}}"
    parts = prepared(experiment_file, *[w for w in words if "clients" not in w], source)
    saved = load_file(finished / "adapter" / "adapter_model.safetensors")
    silo = parts.clients["silo-2"].learner
    assert all(torch.equal(tensor, saved[name]) for name, tensor in silo.initial().items())
    others = [parts.learner, parts.clients["silo-1"].learner]
    assert not any(tensor.any() for o in others for n, tensor in o.initial().items() if "_B" in n)


def test_clients_of_one_model_have_adapters_of_one_kind(
    experiment_file: Path, words: Words
) -> None:
    kinds = "clients={silo-2: {adapter: {ia3: {}, lora: null}}}"
    with pytest.raises(UserError, match="this one has lora and would get ia3; choose the same"):
        prepared(experiment_file, *[w for w in words if "clients" not in w], kinds)
    parts = prepared(experiment_file, *words)
    experiment = load(experiment_file, [*[w for w in words if "clients" not in w], kinds])
    expected = client_adapters.expected(parts.learner, experiment)
    assert expected is not None and expected["silo-2"] is None


def test_a_mean_of_parameters_takes_no_other_model(
    experiment_file: Path, words: Words, review_file: Path
) -> None:
    clients = next(word for word in words if word.startswith("clients"))
    with pytest.raises(UserError, match=r"clients\.silo-2\.adapter trains another adapter"):
        prepared(experiment_file, clients)
    gpt2 = clients.partition(", silo-2")[0] + "}"
    with pytest.raises(UserError, match=r"clients\.silo-1: its model .* \(gpt2, 32 wide\) has oth"):
        prepared(experiment_file, gpt2)
