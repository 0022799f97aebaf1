"""Models that do not fit are refused by their configurations, before any of them is loaded."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from transformers import AutoModelForCausalLM

from hanse.errors import UserError
from hanse.experiment.assembly import resources
from hanse.experiment.assembly.assemble import simulate
from hanse.experiment.assembly.unfit_models import model_facts
from hanse.experiment.loading import load
from samples import reviews, write_lines

ADAPTER = "bf16: false, adapter: {lora: {r: 2}}"


@pytest.fixture
def nothing_loads(monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(*_: Any) -> None:
        raise AssertionError("a model was loaded")

    monkeypatch.setattr(resources, "load", refused)


def refused(file: Path, *words: str) -> str:
    with pytest.raises(UserError) as error:
        simulate(load(file, words))
    return str(error.value)


def public(folder: Path) -> str:
    return f"data.public={write_lines(folder / 'public.jsonl', reviews(8, seed=5))}"


def with_heads(model: Path, folder: Path, heads: int) -> Path:
    """A copy of a model whose configuration has another number of heads."""
    shutil.copytree(model, folder)
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, "num_attention_heads": heads}))
    return folder


@pytest.mark.usefixtures("nothing_loads")
@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["algorithm={feddistill: {k: 3}}"], r"k is 3, but .*tiny-llama has 2 classes; set"),
        (["algorithm={feddistill: {k: 999}}", "objective=sft"], r"has 361 classes; .* 361 at most"),
        (["algorithm={fedmkt: {k: 999}}", "objective=sft"], r"has 361 tokens; .* 361 at most, or"),
    ],
)
def test_more_classes_than_a_model_has(
    experiment_file: Path, tmp_path: Path, words: list[str], said: str
) -> None:
    with pytest.raises(UserError, match=said):
        simulate(load(experiment_file, [public(tmp_path), *words]))


@pytest.mark.usefixtures("nothing_loads")
def test_a_client_with_fewer_tokens_is_named(
    experiment_file: Path, tmp_path: Path, tiny_llama: Path
) -> None:
    small = tmp_path / "small"
    shutil.copytree(tiny_llama, small)
    config = json.loads((small / "config.json").read_text())
    (small / "config.json").write_text(json.dumps({**config, "vocab_size": 50}))
    own = f"clients={{silo-2: {{model: {{model_name_or_path: {small}}}}}}}"
    algorithm = "algorithm={fedmkt: {k: 60}}"
    message = refused(experiment_file, public(tmp_path), algorithm, "objective=sft", own)
    assert message.startswith("clients.silo-2: fedmkt.k is 60, but ")
    assert f"{small} has 50 tokens" in message


def test_fedmkt_refuses_label_words_where_the_settings_are_read(
    experiment_file: Path, tmp_path: Path
) -> None:
    with pytest.raises(UserError, match=r"objective classify makes label_words .* sft, .* feddis"):
        load(experiment_file, [public(tmp_path), "algorithm=fedmkt"])


@pytest.mark.usefixtures("nothing_loads")
def test_attention_of_unequal_numbers_of_heads(
    experiment_file: Path, tmp_path: Path, tiny_llama: Path
) -> None:
    other = with_heads(tiny_llama, tmp_path / "other", 8)
    maps = "algorithm={fedkd: {attention_maps: true}}"
    same = f"models={{mentor: {{model_name_or_path: {tiny_llama}, {ADAPTER}}}}}"
    message = refused(experiment_file, maps, same.replace(str(tiny_llama), str(other)))
    assert message.startswith("clients.silo-1: the mentor") or message.startswith("the mentor")
    assert "8 and 4 heads of attention" in message and "attention_maps to false" in message
    own = f"clients={{silo-2: {{models: {{mentor: {{model_name_or_path: {other}}}}}}}}}"
    message = refused(experiment_file, maps, same, own)
    assert message.startswith("clients.silo-2: the mentor and the model that travels have 8 and 4")


@pytest.mark.usefixtures("nothing_loads")
def test_a_client_of_another_architecture_where_tensors_are_averaged(
    experiment_file: Path, tiny_gpt2: Path, tiny_llama: Path
) -> None:
    own = f"clients={{silo-2: {{model: {{model_name_or_path: {tiny_gpt2}}}}}}}"
    message = refused(experiment_file, own)
    assert message.startswith(f"clients.silo-2: its model {tiny_gpt2} (gpt2, 32 wide) has other")
    assert f"the server's {tiny_llama} (llama, 32 wide)" in message and "fedmkt" in message


def test_a_client_of_fewer_layers_where_tensors_are_averaged(
    experiment_file: Path, tiny_llama: Path, tmp_path: Path
) -> None:
    """Its configuration alone does not tell: adapters may lie in layers that both have."""
    lower = tmp_path / "lower"
    shutil.copytree(tiny_llama, lower)
    model = AutoModelForCausalLM.from_pretrained(tiny_llama)
    model.model.layers = model.model.layers[:1]
    model.config.num_hidden_layers = 1
    model.save_pretrained(lower)
    own = f"clients={{silo-2: {{model: {{model_name_or_path: {lower}}}}}}}"
    message = refused(experiment_file, own)
    assert message.startswith(f"clients.silo-2: its model {lower} trains other tensors than")
    assert f"{tiny_llama}: only the other of them has" in message and "feddistill or fed" in message
    simulate(load(experiment_file, [own, "adapter.lora.layers_to_transform=[0]"]))


def test_facts_of_models_that_are_not_here_are_unknown(tiny_gpt2: Path, tiny_t5: Path) -> None:
    assert model_facts("nowhere/at-all").heads is model_facts("missing").classes is None
    facts = model_facts(str(tiny_gpt2))
    assert (facts.heads, facts.kind, facts.width) == (4, "gpt2", 32)
    assert model_facts(str(tiny_gpt2), 2).classes == 2
    assert model_facts(str(tiny_t5)).heads is None
