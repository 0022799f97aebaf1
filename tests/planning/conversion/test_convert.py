"""Configs of other tools, rebuilt from their published examples, become experiments."""

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml

from hanse.errors import UserError
from hanse.experiment.loading import load
from hanse.experiment.schema import Experiment
from hanse.planning.conversion.convert import Conversion, convert
from samples import Outcome

CONFIGS = Path(__file__).parent / "configs"
TOOLS = {
    "llama_factory.yaml": "LLaMA-Factory",
    "axolotl.yml": "axolotl",
    "trl.yaml": "TRL",
    "flowertune.toml": "FlowerTune",
    "flowertune.yaml": "FlowerTune",
    "federated_scope.yaml": "FederatedScope",
}
READ_BY_OTHERS = {  # keys that say nothing by themselves, or choose the section adapter
    "llama_factory.yaml": {"stage", "finetuning_type"},
    "axolotl.yml": {"adapter"},
    "trl.yaml": {"use_peft"},
    "federated_scope.yaml": {"data.root", "train.batch_or_epoch"},
}


def written(config: str | Path, folder: Path) -> tuple[Conversion, Experiment]:
    """The conversion of a config, and the experiment that its file is."""
    done = convert(CONFIGS / config, folder / "out.yaml")
    return done, load(done.file)


def config(folder: Path, text: str) -> Path:
    (folder / "config.yaml").write_text(text)
    return folder / "config.yaml"


@pytest.mark.parametrize("name", TOOLS)
def test_a_published_config_becomes_an_experiment(name: str, tmp_path: Path) -> None:
    done, experiment = written(name, tmp_path)
    assert done.tool == TOOLS[name]
    assert experiment.adapter.fresh is not None
    text = done.file.read_text()
    assert text.startswith(f"# {name}, a config of {TOOLS[name]}, as an experiment")
    comment = text.partition("# Not carried over:")[2]
    for key in done.draft.left:
        assert key in comment


@pytest.mark.parametrize("name", TOOLS)
def test_every_key_is_carried_over_or_left_with_a_reason(name: str, tmp_path: Path) -> None:
    done, _ = written(name, tmp_path)
    carried = {choice.key.partition(":")[0] for choice in done.draft.settings.values()} - {""}
    left = {entry.partition(":")[0] for entry in done.draft.left}
    source = {*done.draft.source}
    assert carried | left <= source
    assert source - carried - left == READ_BY_OTHERS.get(name, set())


def test_values_of_llama_factory(tmp_path: Path) -> None:
    done, experiment = written("llama_factory.yaml", tmp_path)
    train, model = experiment.train, experiment.model
    assert experiment.resolved()["adapter"]["lora"]["target_modules"] == "all-linear"
    assert (model.quantization, model.max_length, model.bf16) == ("nf4", 2048, True)
    assert (train.learning_rate, train.gradient_accumulation_steps) == (1e-4, 8)
    assert experiment.rounds * (train.num_train_epochs or 0) == 3
    assert done.draft.value("adapter.lora.lora_alpha") == 16  # twice the rank
    assert done.draft.left["dataset: identity"].startswith("no dataset_info.json here names")


def test_values_of_axolotl(tmp_path: Path) -> None:
    done, experiment = written("axolotl.yml", tmp_path)
    assert experiment.model.quantization == "int8"  # load_in_4bit is off
    assert experiment.data.path == "fozziethebeat/alpaca_messages_2k_test"
    assert experiment.data.columns == {"messages": "dialogue"}
    assert experiment.data.validation == 0.05
    # 10 steps of one machine; each of four clients has a quarter of the rows.
    assert (experiment.train.optim, experiment.train.warmup_steps) == ("adamw", 2)
    assert done.draft.left["load_in_4bit"] == "it is switched off"
    assert "datasets: mhenrichsen/alpaca_2k_test" in done.draft.left
    assert done.draft.left["fsdp"] == "no value is given"


def test_values_of_trl(tmp_path: Path) -> None:
    done, experiment = written("trl.yaml", tmp_path)
    lora = experiment.resolved()["adapter"]["lora"]
    assert (lora["r"], lora["lora_alpha"], lora["lora_dropout"]) == (16, 16, 0.05)
    assert list(lora["target_modules"]) == ["q_proj", "k_proj"]
    assert experiment.train.max_steps is None
    assert done.draft.left["max_steps"] == "it is switched off"
    assert experiment.rounds * (experiment.train.num_train_epochs or 0) == pytest.approx(1, 1e-3)
    assert experiment.report_to == ["tensorboard"]


@pytest.mark.parametrize("name", ["flowertune.toml", "flowertune.yaml"])
def test_values_of_flowertune(name: str, tmp_path: Path) -> None:
    _, experiment = written(name, tmp_path)
    assert (experiment.rounds, experiment.num_clients) == (100, 20)
    assert experiment.fraction_train == 0.1
    train = experiment.train
    assert (train.max_steps, train.num_train_epochs) == (10, None)  # of a round, as in hanse
    assert (train.learning_rate, train.lr_scheduler_type) == (5e-5, "cosine")
    assert experiment.model.quantization == "nf4"


def test_values_of_federated_scope(tmp_path: Path) -> None:
    _, experiment = written("federated_scope.yaml", tmp_path)
    assert (experiment.rounds, experiment.num_clients) == (500, 3)
    assert experiment.data.partition == {"dirichlet": {"alpha": 0.5, "partition_by": "category"}}
    assert (experiment.data.validation, experiment.data.test) == (0.001, 0.001)
    assert experiment.model.model_name_or_path == "decapoda-research/llama-7b-hf"
    assert (experiment.train.max_steps, experiment.train.optim) == (30, "sgd")


def test_steps_of_a_whole_training_are_divided_over_rounds(tmp_path: Path) -> None:
    text = "stage: sft\nlora_rank: 4\nmax_steps: 300\nnum_train_epochs: 2\n"
    done, experiment = written(config(tmp_path, text), tmp_path)
    assert (experiment.rounds, experiment.train.max_steps) == (3, 100)
    assert done.draft.left["num_train_epochs"] == "the number of steps precedes it"


def test_dataset_info_names_the_file_and_its_columns(tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "mine.json").write_text("[]")
    info = {"mine": {"file_name": "mine.json", "columns": {"prompt": "q", "response": "a"}}}
    (tmp_path / "data" / "dataset_info.json").write_text(json.dumps(info))
    text = "stage: sft\nfinetuning_type: full\ndataset: mine, other\n"
    done, experiment = written(config(tmp_path, text), tmp_path)
    assert experiment.data.path == str(tmp_path / "data" / "mine.json")
    assert yaml.safe_load(done.file.read_text())["data"]["path"] == "data/mine.json"
    assert experiment.data.columns == {"instruction": "q", "output": "a"}
    assert "full" in experiment.resolved()["adapter"]
    assert "dataset: other" in done.draft.left


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("stage: sft\ntrust_remote_code: true\n", r"config\.yaml:2: trust_remote_code: true lets"),
        (
            "stage: dpo\n",
            "stage: dpo cannot be converted, since no objective here learns from pref",
        ),
        ("base_model: x\nrl: dpo\n", "rl: dpo cannot be converted"),
        ("dataset_name: x/y\nbeta: 0.1\n", "beta: 0.1 cannot be converted"),
        ("base_model: x\nadapter: llama-adapter\n", "hanse has LoRA and full fine-tuning"),
        ("finetuning_type: freeze\n", "finetuning_type: freeze cannot be converted"),
        ("base_model: x\nlearning_rate: fast\n", "train.learning_rate is 'fast'"),
        ("base_model: x\nnum_epochs: [3]\n", r"num_epochs: \[3\] is no number; correct it"),
        ("base_model: x\nnum_epochs: .inf\n", "num_epochs: inf is no number; correct it"),
        ("stage: sft\nlora_rank: [8]\n", r"lora_rank: \[8\] is no number"),
        (
            "federate: {client_num: 2}\ndata: {splits: 3}\n",
            "data.splits: 3 has another form than FederatedScope reads",
        ),
        ("model_name_or_path: a\nuse_peft: true\nobjective: dpoo\n", "there is no 'dpoo' in"),
        ("rounds: 3\nmodel: {model_name_or_path: x}\n", "has no key by which a config of LLaMA-F"),
    ],
)
def test_refusals_are_one_sentence(
    text: str, sentence: str, tmp_path: Path, hanse: Callable[..., Outcome]
) -> None:
    with pytest.raises(UserError, match=sentence):
        convert(config(tmp_path, text), tmp_path / "out.yaml")
    done = hanse("convert", "config.yaml", "-o", "out.yaml")
    assert done.code == 2 and done.err.count("\n") == 1 and "Traceback" not in done.err
    assert not (tmp_path / "out.yaml").exists()


def test_a_toml_that_is_no_flower_app_is_refused(tmp_path: Path) -> None:
    for text in ("[project]\nname = 'x'\n", "[tool]\nflwr = 3\n", "a = [\n"):
        (tmp_path / "pyproject.toml").write_text(text)
        with pytest.raises(UserError, match=r"pyproject\.toml"):
            convert(tmp_path / "pyproject.toml", None)


def test_the_command_names_what_is_left(tmp_path: Path, hanse: Callable[..., Outcome]) -> None:
    done = hanse("convert", CONFIGS / "trl.yaml")
    assert done.code == 0, done.err
    assert "a config of TRL" in done.out and "written  trl-hanse.yaml" in done.out
    assert "hub_model_id, hub_strategy, push_to_hub: hanse uploads nothing to a hub" in done.out
    again = hanse("convert", CONFIGS / "trl.yaml")
    assert again.code == 2 and "trl-hanse.yaml exists already" in again.err


def test_a_conversion_imports_neither_torch_nor_numpy(tmp_path: Path) -> None:
    code = (
        "import sys; from hanse.cli.main import main; main(); "
        "assert not {'torch', 'numpy', 'transformers'} & {*sys.modules}"
    )
    words = ["convert", str(CONFIGS / "axolotl.yml"), "-o", str(tmp_path / "out.yaml")]
    subprocess.run([sys.executable, "-c", code, *words], check=True, capture_output=True)
