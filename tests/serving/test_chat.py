"""Talks with trained adapters, in the format of the rows that they were trained on."""

import io
import json
import shutil
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest
import torch

from hanse.cli import main as cli
from hanse.errors import UserError, cleaned
from hanse.experiment.loading import load
from hanse.journal import checkpoints, run_folder
from hanse.learners.generation import Decoding
from hanse.learners.injection.adapter_layout import CONFIG
from hanse.serving.chat import Talk, open_talk
from hanse.simulation import run as simulation
from samples import reviews, write_lines

SHORT = Decoding(8)
Run = Callable[..., Path]


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory, tiny_llama: Path) -> Run:
    """A run on rows of one kind, made once."""
    home, made = tmp_path_factory.mktemp("runs"), {}

    def make(kind: str) -> Path:
        if kind not in made:
            rows = [ROWS[kind](review["text"], review["label"]) for review in reviews(60)]
            file = home / f"{kind}.yaml"
            data = write_lines(home / f"{kind}.jsonl", rows)
            file.write_text(
                f"rounds: 2\nnum_clients: 2\noutput_dir: {home / kind}\n"
                f"model: {{model_name_or_path: {tiny_llama}, bf16: false}}\n"
                f"data: {{path: {data}, template: 'Review: {{text}}\\nSentiment:'}}\n"
                f"objective: {'classify' if kind == 'labelled' else 'sft'}\n"
                "train: {learning_rate: 0.03, max_steps: 6}\n"
            )
            made[kind] = simulation.run(load(file))
        return made[kind]

    return make


ROWS: dict[str, Callable[[str, str], dict[str, object]]] = {
    "labelled": lambda text, label: {"text": text, "label": label},
    "completion": lambda text, label: {"prompt": text, "completion": f" {label}"},
    "messages": lambda text, label: {
        "messages": [{"role": "user", "content": text}, {"role": "assistant", "content": label}]
    },
}


def _naive(talk: Talk, text: str) -> str:
    """What follows a text, token by token, without padding or a cache."""
    backbone = talk.learner.backbone
    ids: list[int] = backbone.tokenizer(text, add_special_tokens=False)["input_ids"]
    start = len(ids)
    while len(ids) < start + SHORT.max_new_tokens:
        with torch.no_grad(), backbone.for_generation(talk.learner.active_adapter) as model:
            logits = model(input_ids=torch.tensor([ids])).logits
        token = int(logits[0, -1].argmax())
        if token == backbone.tokenizer.eos_token_id:
            break
        ids.append(token)
    return backbone.text(ids[start:])


def _turns(*said: str) -> str:
    """A conversation as the tiny models' chat template writes it, up to the answer."""
    roles = ("user", "assistant") * len(said)
    turns = [f"<|start|>{role}\n{text}<|end|>\n" for role, text in zip(roles, said, strict=False)]
    return "".join(turns) + "<|start|>assistant\n"


def test_a_conversation_remembers_and_forgets(run: Run) -> None:
    talk = open_talk(run("messages"))
    first = talk.answer("great film", SHORT)
    assert first == _naive(talk, _turns("great film"))
    second = talk.answer("dull plot", SHORT)
    assert second == _naive(talk, _turns("great film", first, "dull plot"))
    talk.forget()
    assert talk.answer("great film", SHORT) == first


def test_the_base_model_speaks_until_the_adapter_is_back(run: Run) -> None:
    talk = open_talk(run("messages"))
    adapted = talk.answer("great film", SHORT)
    for base in (True, False):
        talk.speak_as(base)
        talk.forget()
        said = talk.answer("great film", SHORT)
        assert said == _naive(talk, _turns("great film"))
        assert (said == adapted) == (not base)


def test_after_a_completion_nothing_is_said(run: Run) -> None:
    talk = open_talk(run("completion"))
    for prompt in ("great film", "dull plot"):
        assert talk.answer(prompt, SHORT) == _naive(talk, prompt)
    with pytest.raises(UserError, match="prompt is empty"):
        talk.answer("", SHORT)


def test_a_label_is_chosen_as_the_task_chooses_it(run: Run) -> None:
    folder = run("labelled")
    right = [*run_folder.read_evaluation(folder, "test-classification", 2).items]
    talk = open_talk(folder)
    rows = _held_out(folder)
    chosen = [talk.choose(text) for text, _ in rows]
    assert [float(c[0][0] == label) for c, (_, label) in zip(chosen, rows, strict=True)] == right
    for (likely, p), (other, q) in chosen:
        assert {likely, other} == {"positive", "negative"}
        assert p >= q
        assert p + q == pytest.approx(1.0)


def _held_out(folder: Path) -> Sequence[tuple[str, str | None]]:
    from hanse.experiment.assembly.dataset.federated_dataset import divide

    return [(row.text, row.label) for row in divide(load(folder / "experiment.yaml")).test]


def test_a_peft_folder_says_the_same_as_its_run(run: Run, tmp_path: Path) -> None:
    shutil.copytree(run("messages") / "adapter", tmp_path / "peft")
    talk = open_talk(run("messages"))
    mine, base = talk.answer("great film", SHORT), talk.trained.experiment.model.model_name_or_path
    for folder, *words in [
        (run("messages") / "adapter",),
        (tmp_path / "peft", f"model.model_name_or_path={base}"),
    ]:
        assert open_talk(folder, ["model.bf16=false", *words]).answer("great film", SHORT) == mine


def test_an_unfinished_run_speaks_by_its_newest_checkpoint(run: Run, tmp_path: Path) -> None:
    folder = tmp_path / "unfinished"
    shutil.copytree(run("messages"), folder)
    talk = open_talk(folder)
    finished = talk.answer("great film", SHORT)
    shutil.rmtree(folder / "adapter")
    talk = open_talk(folder)
    assert talk.trained.rounds == 2
    assert talk.answer("great film", SHORT) == finished
    max(checkpoints.checkpoints(folder)).unlink()
    assert open_talk(folder).trained.rounds == 1
    shutil.rmtree(folder / "state")
    with pytest.raises(UserError, match="no checkpoint yet; run `hanse resume"):
        open_talk(folder)


def test_a_run_without_its_data_can_still_be_talked_to(run: Run, tmp_path: Path) -> None:
    folder = tmp_path / "elsewhere"
    shutil.copytree(run("messages"), folder)
    file = folder / "experiment.yaml"
    file.write_text(file.read_text().replace("messages.jsonl", "gone.jsonl"))
    assert open_talk(folder).kind == "messages"


def test_what_cannot_be_talked_to(run: Run, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="holds neither a run"):
        open_talk(tmp_path)
    folder = tmp_path / "peft"
    shutil.copytree(run("messages") / "adapter", folder)
    config = json.loads((folder / CONFIG).read_text())
    for name, expected in [
        (None, "does not say which base model"),
        ("absent", "no model 'absent'"),
    ]:
        config["base_model_name_or_path"] = name
        (folder / CONFIG).write_text(json.dumps(config))
        with pytest.raises(UserError, match=expected):
            open_talk(folder)


def _call(monkeypatch: pytest.MonkeyPatch, *words: object, lines: str = "") -> int:
    monkeypatch.setattr(sys, "argv", ["hanse", "chat", *map(str, words), "--max-new-tokens", "8"])
    monkeypatch.setattr(sys, "stdin", io.StringIO(lines))
    try:
        cli.main()
    except SystemExit as stop:
        return int(stop.code or 0)
    return 0


def test_one_prompt_prints_the_answer_alone(
    run: Run, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    talk = open_talk(run("messages"))
    adapted = talk.answer("great film", SHORT)
    talk.speak_as(base=True)
    talk.forget()
    base = talk.answer("great film", SHORT)
    capsys.readouterr()
    words = [run("messages"), "--prompt", "great film"]
    assert _call(monkeypatch, *words) == 0
    assert capsys.readouterr().out == f"{adapted.strip()}\n"
    assert _call(monkeypatch, *words, "--base") == 0
    assert capsys.readouterr().out == f"{base.strip()}\n"
    assert _call(monkeypatch, *words, "--compare") == 0
    assert capsys.readouterr().out == (
        f"base model\n{base.strip()}\n\nadapter\n{adapted.strip()}\n"
    )
    assert _call(monkeypatch, run("labelled"), "--prompt", "great film") == 0
    lines = capsys.readouterr().out.splitlines()
    assert sorted(line.split()[0] for line in lines) == ["negative", "positive"]
    assert sum(float(line.split()[1]) for line in lines) == pytest.approx(1, abs=2e-4)


def test_a_conversation_line_by_line(
    run: Run, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    talk = open_talk(run("messages"))
    first = talk.answer("great film", SHORT)
    second = talk.answer("dull plot", SHORT)
    talk.forget()
    talk.speak_as(base=True)
    third = talk.answer("great film", SHORT)
    capsys.readouterr()
    lines = "great film\n\ndull plot\n/reset\n/base\ngreat film\n/what\n/quit\nnever read\n"
    assert _call(monkeypatch, run("messages"), lines=lines) == 0
    said = [first, second, "forgotten", "now the base model", third]
    printed = capsys.readouterr().out
    assert printed.startswith("".join(f"{text.strip()}\n" for text in said))
    assert printed.rstrip().endswith("/quit ends.")
    assert _call(monkeypatch, run("messages"), lines="great film") == 0, "the input just ends"
    assert capsys.readouterr().out == f"{first.strip()}\n"


def test_a_terminal_shows_words_as_they_come(
    run: Run, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    said = open_talk(run("messages")).answer("great film", SHORT)
    heard: list[int] = []
    write = sys.stdout.write
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
    monkeypatch.setattr(sys.stdout, "write", lambda text: heard.append(len(text)) or write(text))
    capsys.readouterr()
    assert _call(monkeypatch, run("messages"), "--prompt", "great film") == 0
    assert cleaned(said, lines=True) in capsys.readouterr().out
    assert len(heard) > 2, "in pieces"


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["--compare"], "--compare shows both"),
        (["--compare", "--base", "--prompt", "hi"], "--compare shows both"),
        (["--prompt", " "], "--prompt is empty"),
        (["--prompt", "caf\udce9"], "--prompt is not UTF-8 text"),
        (["nonsense", "--prompt", "hi"], "no override"),
        (["--prompt", "hi", "--max-new-tokens", "5000"], "reads at most 256 tokens"),
    ],
)
def test_wrong_words(
    run: Run,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    words: list[str],
    expected: str,
) -> None:
    folder = run("messages")
    monkeypatch.setattr(sys, "argv", ["hanse", "chat", str(folder), *words])
    with pytest.raises(SystemExit) as stop:
        cli.main()
    assert stop.value.code == 2
    assert expected in capsys.readouterr().err
