"""All keys of a file that are no settings are named in one sentence, with their lines."""

from pathlib import Path

import pytest
import yaml
from pydantic import ValidationError

from hanse.errors import UserError
from hanse.experiment.loading import load
from hanse.experiment.schema import Experiment
from hanse.experiment.validation import SEARCHES, explain
from hanse.journal.yaml_text import Place, parse

# examples/train_lora/llama3_lora_sft.yaml of LLaMA-Factory, with files and a model of ours.
LLAMA_FACTORY = """\
model_name_or_path: smollm2-135m
stage: sft
do_train: true
finetuning_type: lora
lora_rank: 8
lora_target: q_proj,v_proj
dataset: mine.jsonl
template: default
logging_steps: 10
learning_rate: 1.0e-4
num_train_epochs: 3.0
optim: adamw_torch
max_steps: -1
warmup_steps: 20
bf16: true
ddp_timeout: 180000000
"""


def refusal(folder: Path, text: str) -> str:
    (folder / "sft.yaml").write_text(text)
    with pytest.raises(UserError) as caught:
        load(folder / "sft.yaml")
    return str(caught.value).removeprefix(f"{folder}/")


def test_keys_of_another_tool_are_named_as_ones_to_delete(tmp_path: Path) -> None:
    assert refusal(tmp_path, LLAMA_FACTORY) == (
        "sft.yaml: delete what other tools need and hanse does not, 'stage' (line 2), 'do_train' "
        "(line 3), 'finetuning_type' (line 4), 'template' (line 8), 'logging_steps' (line 9), "
        f"'ddp_timeout' (line 16); `hanse convert {tmp_path}/sft.yaml` writes an experiment "
        "without them."
    )


def test_a_file_without_these_keys_is_read_as_that_tool_means_it(tmp_path: Path) -> None:
    foreign = ("stage", "do_train", "finetuning_type", "template", "logging_steps", "ddp_timeout")
    lines = [line for line in LLAMA_FACTORY.splitlines() if not line.startswith(foreign)]
    (tmp_path / "sft.yaml").write_text("\n".join(lines))
    experiment = load(tmp_path / "sft.yaml")
    assert experiment.adapter.fresh.target_modules == ("q_proj", "v_proj")  # type: ignore[union-attr]
    train = experiment.train
    assert (train.optim, train.max_steps, train.num_train_epochs) == ("adamw", None, 3)
    assert train.warmup_steps == 20


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        (  # ours, mistyped, come first
            "lora_rnk: 3\nrouns: 3\nreally_new: 1\nfp16: true\ntrain: {optim: 7}\n",
            "sft.yaml: there are no settings 'lora_rnk' (line 1), 'rouns' (line 2, did you mean "
            "'rounds'?), 'really_new' (line 3); delete what other tools need and hanse does not, "
            "'fp16' (line 4); `hanse convert",
        ),
        (
            "alpha_beta: 3\ntrain: {rat: 3}\n",
            "sft.yaml: there are no settings 'alpha_beta' (line 1), 'train.rat' (line 2); correct "
            "or delete them.",
        ),
        (  # the keys in another tool's section
            "federate:\n  client_num: 3\n  save_freq: 9\n  zzz: x\n",
            "there are no settings 'federate.zzz' (line 4); delete what other tools need and "
            "hanse does not, 'federate.save_freq' (line 3); ",
        ),
        ("trust_remote_code: true\n", "code that comes with a model is never run; `hanse convert"),
        ("stage: dpo\nuse_peft: false\n", "no settings 'stage' (line 1), 'use_peft' (line 2)"),
        (
            "clients: {silo-1: {train: {fp16: true, lr_: 1}}}\n",
            "clients.silo-1.train.fp16' (line 1)",
        ),
    ],
)
def test_unknown_keys(tmp_path: Path, text: str, sentence: str) -> None:
    assert sentence in refusal(tmp_path, text)


@pytest.mark.parametrize(
    "text",
    [
        "".join(f"part_{n}: {{inner: {{deeper: {n}}}}}\n" for n in range(3000)),
        "federate:\n" + "".join(f"  part_{n}: {n}\n" for n in range(3000)),
        "federate:\n" + "".join(f"  part_{n}: {{a: {{b: {n}}}}}\n" for n in range(3000)),
    ],
)
def test_few_likely_settings_are_looked_for(monkeypatch: pytest.MonkeyPatch, text: str) -> None:
    searches: list[Place] = []
    monkeypatch.setattr(
        "hanse.experiment.validation._hint", lambda _, place: searches.append(place) or ""
    )
    with pytest.raises(ValidationError) as caught:
        Experiment.model_validate(parse(text, "a job"))
    assert " and 2940 more" in str(explain(caught.value, Experiment))
    assert len(searches) == SEARCHES


def test_a_template_with_places_for_columns_is_ours(tmp_path: Path) -> None:
    sentence = refusal(tmp_path, 'template: "{text}\\nMood:"\n')
    assert "there is no setting 'template' (did you mean 'data.template'?)" in sentence


def test_the_lines_of_many_keys_are_looked_up_in_one_go(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    composed: list[str] = []
    compose = yaml.compose
    monkeypatch.setattr(yaml, "compose", lambda text: composed.append(text) or compose(text))
    sentence = refusal(tmp_path, "".join(f"part_{n}: {n}\n" for n in range(300)))
    assert "'part_59' (line 60) and 240 more" in sentence and len(composed) == 1
