"""Names of other tools' settings are read as ours, with a note, and never beside ours."""

import logging
from pathlib import Path
from typing import Any

import pytest
import yaml

from hanse.errors import UserError
from hanse.experiment.aliases import ALIASES
from hanse.experiment.loading import load
from hanse.experiment.overrides import parse_change
from hanse.experiment.renaming import changed, line, settled
from hanse.experiment.schema import Experiment
from hanse.experiment.validation import keys
from hanse.journal.yaml_text import dump
from hanse.learners.adapters.peft import Peft


def at(place: str, value: Any) -> dict[str, Any]:
    """One value deep inside, "a.b" being {"a": {"b": value}}."""
    for key in reversed(place.split(".")):
        value = {key: value}
    return value


@pytest.mark.parametrize("name", ALIASES)
def test_every_alias_means_a_setting_that_there_is(name: str) -> None:
    alias, *section = name.split(".")[::-1]
    target = ALIASES[name].setting
    assert settled(at(name, 7)) == at(target, 7)
    *above, last = target.split(".")
    if above[:2] != ["data", "partition"] and above[:1] != ["algorithm"]:
        assert last in keys(Experiment, tuple(above))
    if name != target:
        assert alias not in keys(Experiment, tuple(reversed(section))), "it hides a setting"


@pytest.mark.parametrize(
    ("came", "meant"),
    [
        # As a whole file of each tool has them.
        ("{lora_r: 4, lora_alpha: 8, base_model: m, sequence_len: 9, micro_batch_size: 2, lr: 0.1}",
         "{adapter: {lora: {r: 4, lora_alpha: 8}}, train: {per_device_train_batch_size: 2, "
         "learning_rate: 0.1}, model: {model_name_or_path: m, max_length: 9}}"),
        ("{num-server-rounds: 9, strategy: {fraction-fit: 0.2}, model: {name: m, lora: "
         "{peft-lora-r: 2}}, train: {seq-length: 7, training-arguments: {learning-rate: 1}}}",
         "{rounds: 9, fraction_train: 0.2, model: {model_name_or_path: m, max_length: 7}, "
         "adapter: {lora: {r: 2}}, train: {learning_rate: 1}}"),
        ("{federate: {client_num: 3, total_round_num: 5}, llm: {tok_len: 8}, train: "
         "{local_update_steps: 30, optimizer: {lr: 0.1}}}",
         "{num_clients: 3, rounds: 5, model: {max_length: 8}, train: {max_steps: 30, "
         "learning_rate: 0.1}}"),
        ("{train_args: {comm_round: 5, client_num_in_total: 2}, common_args: {random_seed: 3}}",
         "{rounds: 5, num_clients: 2, seed: 3}"),
        # In the section that the setting is in.
        ("{train: {lr: 1}, adapter: {lora_r: 2, lora: {alpha: 3}}, data: {val_set_size: 4}}",
         "{train: {learning_rate: 1}, adapter: {lora: {r: 2, lora_alpha: 3}}, "
         "data: {validation: 4}}"),
        ("{clients: {a-b: {lr: 1, train: {max-steps: 2}, data: {dataset: x}}}}",
         "{clients: {a-b: {train: {max_steps: 2, learning_rate: 1}, data: {path: x}}}}"),
        # Values that other tools spell otherwise.
        ("{lora_target: all}", "{adapter: {lora: {target_modules: all-linear}}}"),
        ("{lora_target: [q, v]}", "{adapter: {lora: {target_modules: [q, v]}}}"),
        ("{load_in_4bit: true}", "{model: {quantization: nf4}}"),
        ("{load_in_8bit: false}", "{model: {quantization: none}}"),
        ("{model: {quantization_bit: 8}}", "{model: {quantization: int8}}"),
        ("{train: {gradient-checkpointing: true}}", "{model: {gradient_checkpointing: true}}"),
        ("{lora_target_linear: true}", "{adapter: {lora: {target_modules: all-linear}}}"),
        ("{prox_mu: 1, algorithm: fedprox}", "{algorithm: {fedprox: {mu: 1}}}"),
        ("{prox_mu: 1, algorithm: {fedprox: }}", "{algorithm: {fedprox: {mu: 1}}}"),
        ("{partition_alpha: 1}", "{data: {partition: {dirichlet: {alpha: 1}}}}"),
        ("{optim: paged_adamw_8bit}", "{train: {optim: adamw}}"),
        ("{train: {optim: AdamW}}", "{train: {optim: adamw}}"),
        ("{clients: {a: {optim: adamw_torch_fused}}}", "{clients: {a: {train: {optim: adamw}}}}"),
        ("{max_steps: -1, lr_scheduler_type: constant_with_warmup}",
         "{train: {max_steps: null, lr_scheduler_type: constant}}"),
        *((f"{{model: {{quantization: {value}}}}}", f"{{model: {{quantization: {name}}}}}")
          for name, values in {"nf4": ("4", "4bit", "4-bit"), "int8": ("8", "8bit", "'8'"),
                               "none": ("null", "false", "0", "none")}.items()
          for value in values),
        ("{models: {m: {quantization: 4}}}", "{models: {m: {quantization: nf4}}}"),
        ('{lora_target: "q_proj,v_proj"}', "{adapter: {lora: {target_modules: [q_proj, v_proj]}}}"),
        ("{adapter: {ia3: {feedforward_modules: 'a, b'}, vera: {target_modules: q}}}",
         "{adapter: {ia3: {feedforward_modules: [a, b]}, vera: {target_modules: [q]}}}"),
        ("{adapter: qlora, lora_r: 4, load_in_4bit: true}",
         "{adapter: {lora: {r: 4}}, model: {quantization: nf4}}"),
        # Switches that are off, names without a value, and one value under two names.
        ("{load_in_8bit: false, load_in_4bit: false}", "{model: {quantization: none}}"),
        ("{load_in_8bit: false, load_in_4bit: true}", "{model: {quantization: nf4}}"),
        ("{load_in_4bit: true, load_in_8bit: false}", "{model: {quantization: nf4}}"),
        ("{load_in_4bit: false, model: {quantization: int8}}", "{model: {quantization: int8}}"),
        ("{load_in_4bit: true, quantization_bit: 4}", "{model: {quantization: nf4}}"),
        ("{lora_target_linear: false, lora_target_modules: [q]}",
         "{adapter: {lora: {target_modules: [q]}}}"),
        ("{lora_target_linear: true, lora_target_modules: }",
         "{adapter: {lora: {target_modules: all-linear}}}"),
        ("{val_set_size: , num_epochs: 2}", "{train: {num_train_epochs: 2}}"),
        ("{model: {gradient-checkpointing: true}, train: {args: {gradient-checkpointing: true}}}",
         "{model: {gradient_checkpointing: true}}"),
        # Names of parts in any case, and those of variants.
        ("{algorithm: FedAvg}", "{algorithm: fedavg}"),
        ("{federated_optimizer: FedProx, fedprox_mu: 1}", "{algorithm: {fedprox: {mu: 1}}}"),
        ("{algorithm: {FedProx: {proximal-mu: 1}}}", "{algorithm: {fedprox: {mu: 1}}}"),
        ("{algorithm: SCAFFOLD, data: {partition: IID}, objective: SFT}",
         "{algorithm: scaffold, data: {partition: iid}, objective: sft}"),
        ("{algorithm: FedSA-LoRA}", "{algorithm: fedsa_lora}"),
        ("{algorithm: fedadam}", "{algorithm: {fedopt: {optimizer: adam}}}"),
        ("{fed_alg: FedAvgM}", "{algorithm: {fedopt: {optimizer: momentum}}}"),
        ("{algorithm: {FedYogi: {eta: 0.1, beta_1: 0}}}",
         "{algorithm: {fedopt: {optimizer: yogi, learning_rate: 0.1, beta_1: 0}}}"),
        ("{fed_alg: fedadagrad, fedopt_tau: 1}",
         "{algorithm: {fedopt: {optimizer: adagrad, tau: 1}}}"),
        # Dashes.
        ("{num-clients: 3, train: {learning-rate: 1}}",
         "{num_clients: 3, train: {learning_rate: 1}}"),
        ("{algorithm: {fedopt: {beta-1: 0}}, evaluation: {tasks: [perplexity, {classification: "
         "{batch-size: 3}}]}}",
         "{algorithm: {fedopt: {beta_1: 0}}, evaluation: {tasks: [perplexity, {classification: "
         "{batch_size: 3}}]}}"),
        # What is left alone: ours, the user's own words, and what nobody knows.
        *((same, same) for same in (
            "{rounds: 3, adapter: {from: x}, data: {labels: {lr: a, num-rounds: b}}}",
            "{data: {filter: {dataset: x, lora-r: y}, partition: {key: {column: lr}}}}",
            "{algorithm: {my-file.py:Mine: {lr: 3, my-own: 4}}, 7: 8, null: {a: b}}",
            "{rounds: {lr: 3}, seed: {num_rounds: 4}, unknown-name: 3, data: {labels: {}}}",
            "{algorithm: {fedopt: {lr: 3}}, model: {lr: 3}, train: {lora_r: 3}}",
            "{trian: {lr: 3}, Data: {dataset: x}}",  # ours, mistyped
            "{data: {filter: {optim: adamw_torch, max_steps: -1}}}",  # columns of that name
            "{adapter: {lora: {target_modules: '.*(q|v)_proj'}}, algorithm: NoneOfOurs}",
            # Settings of another adapter that are called as LoRA's are.
            "{adapter: {vera: {r: 16, target_modules: [q]}}}",
            "{adapter: {oft: {r: 8, lora_alpha: 3}, my-own: {r: 2}}, vera: {r: 3}, ia3: {r: 5}}",
            "{clients: {a: {adapter: {loha: {r: 2}}}}}",
        )),
    ],
)  # fmt: skip
def test_a_file_of_another_tool(came: str, meant: str) -> None:
    assert settled(yaml.safe_load(came)) == yaml.safe_load(meant)


@pytest.mark.parametrize(
    ("word", "place", "value"),
    [
        ("lora_r=4", "adapter.lora.r", 4),
        ("rounds=4", "rounds", 4),
        ("strategy.fraction-train=0.5", "fraction_train", 0.5),
        ("train.training-arguments.max-steps=3", "train.max_steps", 3),
        ("clients.a.lr=1", "clients.a.train.learning_rate", 1),
        ("data.labels={}", "data.labels", {}),
        ("data.labels.a-b=x", "data.labels.a-b", "x"),
        ("train={lr: 1}", "train", {"learning_rate": 1}),
        ("federate={client_num: 3}", "num_clients", 3),
        ("name=", "name", None),
        ("algorithm=FedAvg", "algorithm", "fedavg"),
        ("algorithm.FedProx.mu=1", "algorithm.fedprox.mu", 1),
        ("algorithm.fedyogi.tau=1", "algorithm.fedopt", {"optimizer": "yogi", "tau": 1}),
        ("load_in_4bit=false", "model.quantization", "none"),
        ("train.max_steps=-1", "train.max_steps", None),
    ],
)
def test_an_override(word: str, place: str, value: Any) -> None:
    [found] = changed(parse_change(word))
    assert found.place == tuple(place.split(".")) and found.value == value and found.word == word


@pytest.mark.parametrize("written", ["{lora: {r: 4}}", "{vera: {r: 4, d_initial: 0.2}}", "null"])
@pytest.mark.parametrize("word", ["adapter={vera: {r: 16}}", "adapter.vera.r=16"])
def test_a_method_of_peft_replaces_another_adapter(tmp_path: Path, written: str, word: str) -> None:
    file = tmp_path / "e.yaml"
    lines = "data: {path: reasoning}\n" + f"adapter: {written}\n" * (written != "null")
    file.write_text(lines, encoding="utf-8")
    experiment = load(file, [word])
    laid = "vera" in written and "." in word.partition("=")[0]  # upon the settings in the file
    wanted = {"d_initial": 0.2, "r": 16} if laid else {"r": 16}
    assert experiment.adapter.fresh == Peft("vera", wanted)
    assert experiment.resolved()["adapter"] == {"vera": wanted}
    again = tmp_path / "again.yaml"
    again.write_text(dump(experiment.resolved()), encoding="utf-8")
    assert load(again).adapter == experiment.adapter
    assert load(again, ["adapter.vera.d_initial=0.5"]).adapter.fresh == Peft(
        "vera", {**wanted, "d_initial": 0.5}
    )


@pytest.mark.parametrize("name", ["veraa", "VERA", "other"])
def test_an_adapter_that_nobody_knows_is_refused(tmp_path: Path, name: str) -> None:
    file = tmp_path / "e.yaml"
    file.write_text("data: {path: reasoning}\n", encoding="utf-8")
    with pytest.raises(UserError, match=f"there is no setting '{name}'"):
        load(file, [f"adapter.{name}.r=16"])


def test_every_other_value_is_noted(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO, "hanse"):
        settled({"train": {"optim": "paged_adamw_8bit", "max_steps": 3}})
    assert caplog.messages == ["train.optim: paged_adamw_8bit is read as adamw"]


def test_every_other_name_is_noted(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO, "hanse"):
        settled(
            {"lora_r": 4, "rounds": 3, "train": {"max-steps": 2}, "federate": {"client_num": 3}}
        )
    assert caplog.messages == [
        "lora_r is read as adapter.lora.r",
        "train.max-steps is read as train.max_steps",
        "federate.client_num is read as num_clients",
    ]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("lora_r: 4\nadapter:\n  lora:\n    r: 8\n", "lora_r means adapter.lora.r, but adapter"),
        ("lora_r: 4\nlora_rank: 8\n", r"lora_rank means adapter\.lora\.r, but "),
        ("num-clients: 4\nnum_clients: 4\n", "num_clients is given twice, once as num_clients"),
        ("prox_mu: 1\nalgorithm: fedavg\n", "prox_mu means .*, but algorithm is given too"),
        ("prox_mu: 1\nalgorithm: {fedopt: {}}\n", "prox_mu means .*, but algorithm is given too"),
        ("lr: 1\ntrain: 3\n", r"lr means train\.learning_rate, but train is given too"),
        ("epochs: 1\nmax_steps: 1\n", "train has both max_steps and num_train_epochs"),
    ],
)
def test_two_names_of_one_setting_are_refused(tmp_path: Path, text: str, said: str) -> None:
    (tmp_path / "a.yaml").write_text(text)
    with pytest.raises(UserError, match=r"a\.yaml(:[12])?: " + said):
        load(tmp_path / "a.yaml")


def test_two_names_in_overrides_are_refused(tmp_path: Path) -> None:
    (tmp_path / "a.yaml").write_text("rounds: 3\nlora_r: 2\n")
    with pytest.raises(UserError, match=r"'lora_r=4' and 'adapter\.lora\.r=8' set the same"):
        load(tmp_path / "a.yaml", ["lora_r=4", "adapter.lora.r=8"])
    with pytest.raises(UserError, match=r"'train=\{lr: 1, learning_rate: 2\}': train.* twice"):
        load(tmp_path / "a.yaml", ["train={lr: 1, learning_rate: 2}"])
    # An override changes what the file has, whatever either calls it.
    found = load(tmp_path / "a.yaml", ["num-server-rounds=4", "adapter.lora.r=8"])
    assert found.rounds == 4 and found.adapter.lora is not None and found.adapter.lora.r == 8


def test_a_wrong_value_is_named_with_the_line_of_its_alias(tmp_path: Path) -> None:
    (tmp_path / "a.yaml").write_text("rounds: 3\nfederate:\n  client_num: 0\n")
    with pytest.raises(UserError, match=r"a\.yaml:3: num_clients is 0"):
        load(tmp_path / "a.yaml")
    with pytest.raises(UserError, match=r"^the override 'client_num=-1': num_clients is -1"):
        load(tmp_path / "a.yaml", ["client_num=-1"])


def test_lines() -> None:
    text = "rounds: 3\nlr: 1\n\ndata:\n  path: x\n  labels: {a: b,\n    c: d}\n7: 8\n"
    for place, expected in {
        ("rounds",): 1,
        ("train", "learning_rate"): 2,
        ("train",): 2,  # the nearest
        ("data", "path", "deeper"): 5,
        ("data", "labels", "c"): 7,
        ("data", "nowhere"): 4,
        (7,): 8,
        ("nowhere",): None,
        (): None,
    }.items():
        assert line(text, place) == expected, place
