"""A tokenizer with more tokens than the model has embeddings: refused where one of them is used."""

import json
import re
import shutil
from pathlib import Path
from typing import Any

import pytest
from transformers import AutoTokenizer

from hanse.errors import UserError
from hanse.experiment import loading
from hanse.experiment.assembly.assemble import simulate
from hanse.learners.generation import Decoding, generate
from hanse.learners.load import load
from hanse.learners.models import sentence_encoder
from hanse.learners.models.settings import BaseModelSettings

MESSAGE = (
    r"the tokenizer makes token (\d+) '<patient>' of .*, but the model has \1 embeddings; "
    "resize them"
)


def _beyond(folder: Path, to: Path, **special: str) -> Path:
    """A copy of a model with a token of which it has no embedding."""
    shutil.copytree(folder, to)
    tokenizer = AutoTokenizer.from_pretrained(to)
    tokenizer.add_tokens(["<patient>"])
    tokenizer.add_special_tokens(special)
    tokenizer.save_pretrained(to)
    return to


def _written(file: Path, rows: list[dict[str, Any]]) -> Path:
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return file


CHAT = [{"instruction": f"case {n}", "output": "red"} for n in range(40)]
ODD = [*CHAT[:20], {"instruction": "<patient> has", "output": "red"}, *CHAT[20:]]
TAGGED = [{"tokens": ["case", f"{n}"], "ner_tags": ["O", "B-x"]} for n in range(40)]
LABELLED = [{"text": f"{n} case", "label": "ab"[n % 2]} for n in range(40)]


@pytest.mark.parametrize(
    ("folder", "objective", "rows"),
    [
        ("tiny_llama", "sft", ODD),
        ("tiny_llama", "sft", [*CHAT, {"instruction": "who", "output": "<patient>"}]),
        ("tiny_llama", "classify", [*LABELLED, {"text": "the <patient>", "label": "a"}]),
        ("tiny_llama", "classify", [*LABELLED, {"text": "it", "label": "<patient>"}]),
        ("tiny_t5", "sft", ODD),
        ("tiny_bert", "classify", [*LABELLED, {"text": "the <patient>", "label": "a"}]),
        ("tiny_bert", "tag", [*TAGGED, {"tokens": ["<patient>"], "ner_tags": ["O"]}]),
    ],
)
@pytest.mark.parametrize("command", ["run", "check"])
def test_a_row_with_it_is_refused_before_training(
    request: pytest.FixtureRequest,
    hanse: Any,
    tmp_path: Path,
    folder: str,
    objective: str,
    rows: list[dict[str, Any]],
    command: str,
) -> None:
    model = _beyond(request.getfixturevalue(folder), tmp_path / "model")
    data = _written(tmp_path / "rows.jsonl", rows)
    file = tmp_path / "e.yaml"
    file.write_text(
        f"rounds: 1\nnum_clients: 2\nmodel: {{model_name_or_path: {model}, bf16: false}}\n"
        f"data: {{path: {data}, template: '{{text}}:', test: 5, validation: 5}}\n"
        f"objective: {objective}\noutput_dir: {tmp_path / 'run'}\n"
    )
    done = hanse(command, file)
    assert done.code == 2
    (sentence,) = [line for line in done.err.splitlines() if line.startswith("hanse: ")]
    assert re.search(MESSAGE, sentence), sentence
    assert not (tmp_path / "run").exists()


def test_one_that_stands_nowhere_does_no_harm(
    experiment_file: Path, tiny_llama: Path, tmp_path: Path
) -> None:
    """Many models have a token for padding that they never read, or more rows than tokens."""
    model = _beyond(tiny_llama, tmp_path / "model", pad_token="<pad>", unk_token="<unk>")
    made = simulate(loading.load(experiment_file, [f"model.model_name_or_path={model}"]))
    assert made.learner.examples("test")


def test_a_prompt_that_is_typed_is_refused(tiny_llama: Path, tmp_path: Path) -> None:
    backbone = load(BaseModelSettings(str(_beyond(tiny_llama, tmp_path / "model")), bf16=False))
    ids = backbone.tokenizer("the <patient>")["input_ids"]
    with pytest.raises(UserError, match=MESSAGE):
        generate(backbone, None, [ids], Decoding(3))


def test_so_is_a_text_that_is_to_be_embedded(
    tiny_bert: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HANSE_CACHE", str(tmp_path / "cache"))
    model = _beyond(tiny_bert, tmp_path / "model", pad_token="<pad>")
    assert len(sentence_encoder.embeddings(str(model), ["a text", "a longer text of words"])) == 2
    with pytest.raises(UserError, match=MESSAGE):
        sentence_encoder.embeddings(str(model), ["the <patient>"])
