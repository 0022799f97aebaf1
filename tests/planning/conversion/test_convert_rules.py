"""What single keys of other tools become, and what is said of those that become nothing."""

from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from hanse.errors import UserError
from hanse.experiment.loading import load
from hanse.experiment.schema import Experiment
from hanse.planning.conversion.convert import Conversion, convert

CONFIGS = Path(__file__).parent / "configs"


def converted(text: str, folder: Path, name: str = "config.yaml") -> tuple[Conversion, Experiment]:
    """The conversion of a config's text, and the experiment that its file is."""
    (folder / name).write_text(text)
    done = convert(folder / name, folder / "out.yaml")
    return done, load(done.file)


@pytest.mark.parametrize(
    ("text", "setting", "value"),
    [
        (
            "base_model: a/b\ndatasets: [{path: json, data_files: x.jsonl}]\n",
            "data.path",
            "x.jsonl",
        ),
        ("base_model: a/b\ndatasets: [{path: a/b, name: c}]\n", "data.path", "a/b:c"),
        ("base_model: a/b\nmicro_batch_size: 2\n", "adapter.full", {}),
        ("base_model: a/b\nlora_model_dir: c/d\nadapter: lora\nlora_r: 4\n", "adapter.from", "c/d"),
        (
            "base_model: a/b\nadapter: lora\nlora_target_modules: [q]\nlora_target_linear: true\n",
            *("adapter.lora.target_modules", "all-linear"),
        ),
        (
            "base_model: a\ndatasets: [{path: b/c, type: {field_instruction: q, field_output: a}}]",
            *("data.columns", {"instruction": "q", "output": "a"}),
        ),
        ("base_model: a/b\nlr_scheduler: rex\n", "train.lr_scheduler_type", "cosine"),
        ("base_model: a/b\noptimizer: lion_8bit\n", "train.optim", "adamw"),
        ("model_name_or_path: a/b\ndataset_name: c/d\n", "adapter.full", {}),
        ("model_name_or_path: a/b\ndataset_name: c/d\ndataset_config: e\n", "data.path", "c/d:e"),
        ("model_name_or_path: a/b\nuse_peft: true\n", "adapter.lora.lora_alpha", 32),
        (
            "federate: {client_num: 4, sample_client_num: 2}\ndata: {splitter: iid}\n",
            *("fraction_train", 0.5),
        ),
        (
            "federate: {client_num: 4}\nfedprox: {use: true, mu: 0.2}\n",
            *("algorithm.fedprox.mu", 0.2),
        ),
        (
            "federate: {client_num: 4}\ntrain: {local_update_steps: 2, batch_or_epoch: epoch}\n",
            *("train.num_train_epochs", 2),
        ),
        # axolotl's blank adapter trains all weights, also where keys of LoRA are left in.
        ("base_model: a/b\nadapter:\nlora_r: 8\n", "adapter.full", {}),
        ("base_model: a/b\nadapter: lora\n", "adapter.lora", {}),
        ("base_model: a/b\n", "seed", 42),
        ("model_name_or_path: a/b\nuse_peft: false\nlora_r: 8\n", "adapter.full", {}),
        ("stage: sft\nfinetuning_type: full\nlora_rank: 8\n", "adapter.full", {}),
        ("stage: sft\nquantization_bit: '4'\n", "model.quantization", "nf4"),
        ("stage: sft\nlora_rank: '4'\n", "adapter.lora.lora_alpha", 8),
        ("stage: sft\nlearning_rate: 5e-5\n", "train.learning_rate", 5e-5),
        ("stage: sft\nval_size: 5e-2\n", "data.validation", 0.05),
        ("stage: sft\noutput_dir: '7'\n", "output_dir", "7"),
        ("stage: sft\nwarmup_steps: 100\n", "train.warmup_steps", 25),
        ("stage: sft\nwarmup_steps: 1\n", "train.warmup_steps", 1),
        ("stage: sft\nwarmup_steps: 30\nwarmup_ratio: 0.1\n", "train.warmup_ratio", None),
        # Every client takes all the steps.
        ("stage: sft\nwarmup_steps: 100\nmax_steps: 300\n", "train.warmup_steps", 100),
        ("federate: {client_num: 2}\n", "adapter.full", {}),
        (
            "federate: {client_num: 2}\nllm: {adapter: {use: false, args: [{r: 4}]}}\n",
            *("adapter.full", {}),
        ),
        ("federate: {client_num: 2}\nllm: {adapter: {use: true}}\n", "adapter.lora", {}),
        ("federate: {client_num: 2}\n", "rounds", 50),
        ("federate: {client_num: 2}\n", "model.max_length", 128),
        ("federate: {client_num: 2}\n", "train.max_steps", 1),
        ("federate: {client_num: 2}\n", "train.per_device_train_batch_size", 64),
        ("federate: {client_num: 2}\nexpname: mine\n", "name", "mine"),
        ("federate: {client_num: 2, method: global}\n", "data.pooled", True),
        ("federate: {client_num: 2, method: FedAdam}\n", "algorithm.fedopt.optimizer", "adam"),
        (
            "federate: {client_num: 2, method: FedAvg}\nfedopt: {use: true}\n",
            *("algorithm", "fedopt"),
        ),
        ("base_model: a/b\nsample_packing: true\n", "train.packing", True),
        ("stage: sft\nneat_packing: true\n", "train.packing", True),
        ("model_name_or_path: a/b\nuse_peft: true\npacking: true\n", "train.packing", True),
        (
            "federate: {client_num: 2}\ntrain: {optimizer: {type: Adam}}\n",
            *("train.optim", "adamw"),
        ),
        (
            "num_server_rounds: 2\nstrategy: {_target_: flwr.server.strategy.FedYogi}\n",
            *("algorithm.fedopt.optimizer", "yogi"),
        ),
        (
            "num_server_rounds: 2\nstrategy: {_target_: a.FedProx, proximal_mu: 1e-1}\n",
            *("algorithm.fedprox.mu", 0.1),
        ),
        (
            "num_server_rounds: 2\ntrain: {training_arguments: {optim: lion_8bit}}\n",
            *("train.optim", "adamw"),
        ),
    ],
)
def test_meanings(text: str, setting: str, value: Any, tmp_path: Path) -> None:
    done, _ = converted(text, tmp_path)
    assert done.draft.value(setting) == value


@pytest.mark.parametrize(
    ("text", "key", "reason"),
    [
        ("stage: sft\nfinetuning_type: full\nlora_rank: 8\n", "lora_rank", "all weights are"),
        ("base_model: a\nadapter:\nlora_r: 8\n", "lora_r", "all weights are trained"),
        ("model_name_or_path: a\nuse_peft: false\nlora_r: 8\n", "lora_r", "all weights are"),
        ("base_model: a\nmax_steps: -1\n", "max_steps", "it is switched off"),
        (
            "base_model: a\nload_in_8bit: false\nload_in_4bit: true\n",
            *("load_in_8bit", "it is switched off"),
        ),
        (
            "base_model: a\nload_in_8bit: false\nload_in_4bit: false\n",
            *("load_in_4bit", "load_in_8bit says the same"),
        ),
        (
            "base_model: a\ndatasets: [{path: json, data_files: [x.jsonl, y.jsonl]}]\n",
            *("datasets: y.jsonl", "hanse reads one path"),
        ),
        ("stage: sft\nwarmup_steps: 9\nwarmup_ratio: 0.1\n", "warmup_ratio", "the number of steps"),
        (
            "num_server_rounds: 2\nstrategy: {_target_: flwr.server.strategy.FedMedian}\n",
            *("strategy._target_", "hanse has no FedMedian; `hanse parts` lists its algorithms"),
        ),
        (
            "num_server_rounds: 2\nstrategy: {_target_: a.FedAvg, proximal_mu: 0.1}\n",
            *("strategy.proximal_mu", "algorithm is fedavg"),
        ),
        (
            "federate: {client_num: 2, method: local}\n",
            "federate.method: local",
            "`hanse baselines`",
        ),
        (
            "federate: {client_num: 2}\nfedopt: {optimizer: {lr: 0.5}}\n",
            *("fedopt.optimizer.lr", "set algorithm: {fedopt:"),
        ),
        (
            "federate: {client_num: 2}\nfinetune: {local_update_steps: 9}\n",
            *("finetune.local_update_steps", "hanse has no such setting"),
        ),
        (
            "federate: {client_num: 2}\npersonalization: {lr: 0.5}\n",
            *("personalization.lr", "hanse has no such setting"),
        ),
    ],
)
def test_reasons(text: str, key: str, reason: str, tmp_path: Path) -> None:
    done, experiment = converted(text, tmp_path)
    assert done.draft.left[key].startswith(reason)
    assert {entry.partition(":")[0] for entry in done.draft.left} <= {*done.draft.source}
    assert experiment.train.max_steps != 9 and experiment.train.learning_rate != 0.5


def test_a_config_named_by_a_date_keeps_its_name(tmp_path: Path) -> None:
    _, experiment = converted("stage: sft\n", tmp_path, "2024_01_15.yaml")
    assert experiment.name == "2024_01_15"


def test_a_file_with_a_space_is_quoted_in_the_commands(tmp_path: Path) -> None:
    (tmp_path / "my.yaml").write_text("stage: sft\n")
    done = convert(tmp_path / "my.yaml", tmp_path / "my out.yaml")
    assert f"#   hanse check '{done.file}'\n" in done.file.read_text()


@pytest.mark.parametrize("value", ["[[1]]", "{a: {b: 1}}", "-.inf", "'%'", "2024-01-15", "true"])
@pytest.mark.parametrize("name", ["llama_factory.yaml", "axolotl.yml", "trl.yaml"])
def test_a_value_of_a_wrong_form_is_no_defect(name: str, value: str, tmp_path: Path) -> None:
    lines = (CONFIGS / name).read_text().splitlines()
    for number, text in enumerate(lines):
        if text[:1].isalpha():
            changed = [*lines[:number], f"{text.partition(':')[0]}: {value}"]
            (tmp_path / "config.yaml").write_text("\n".join(changed))
            (tmp_path / "out.yaml").unlink(missing_ok=True)
            with suppress(UserError):
                convert(tmp_path / "config.yaml", tmp_path / "out.yaml")


def test_a_section_of_our_own_in_a_config_is_carried_over(tmp_path: Path) -> None:
    (tmp_path / "rows.jsonl").write_text('{"text": "a"}\n')
    text = "base_model: smollm2-135m\nadapter: lora\ndata: {path: rows.jsonl, test: 3}\n"
    done, experiment = converted(text, tmp_path)
    assert experiment.data.path.endswith("rows.jsonl") and experiment.data.test == 3
    assert not done.draft.left
