"""Every command without any extra: it does what it can, or names the extra in one sentence."""

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

from hanse.cli.main import PLAIN, WATCHED
from samples import ROOT

CORE_ONLY = ROOT / "tests" / "core_only.py"
SILO = """name: silo-1
server: 127.0.0.1:9
state: {folder}/state
cache: {folder}/cache
data: {{path: {reviews}}}
"""


@pytest.fixture(scope="module")
def cases(
    tmp_path_factory: pytest.TempPathFactory, tiny_llama: Path, review_file: Path
) -> dict[str, list[str]]:
    """Commands that need an extra each, by what they then say that it does."""
    folder = tmp_path_factory.mktemp("cases")
    file = folder / "e.yaml"
    file.write_text(
        f"rounds: 1\nnum_clients: 2\noutput_dir: {folder / 'run'}\n"
        f"model: {{model_name_or_path: {tiny_llama}, bf16: false}}\n"
        f"data: {{path: {review_file}, template: '{{text}}:', test: 20, validation: 20}}\n"
    )
    (folder / "silo.yaml").write_text(SILO.format(folder=folder, reviews=review_file))
    (folder / "rows.parquet").write_bytes(b"PAR1")
    (folder / "model.gguf").write_bytes(b"GGUF")
    chrf = "evaluation.tasks=[{generation: {metrics: [chrf]}}]"
    return {
        "flower": ["server", f"{file}"],
        "flower ": ["join", f"{folder / 'silo.yaml'}"],
        "data": ["init", "--from", f"{folder / 'rows.parquet'}"],
        "data ": ["check", f"{file}", "data.path=owner/name"],
        "gguf": ["check", f"{file}", f"model.model_name_or_path={folder / 'model.gguf'}"],
        "quantized": ["check", f"{file}", "model.quantization=int8"],
        "quantized ": ["check", f"{file}", "model.quantization=nf4"],
        "privacy": ["run", f"{file}", "privacy={client_dp: {epsilon: 8}}"],
        "privacy ": ["check", f"{file}", "privacy={client_dp: {noise_multiplier: 2}}"],
        "search": ["plan", f"{file}", "--search"],
        "eval": ["run", f"{file}", "objective=sft", chrf],
        "eval ": ["check", f"{file}", "objective=sft", chrf],
        **{
            f"{name}{space}": [command, f"{file}", f"report_to=[{name}]"]
            for name in ("tensorboard", "mlflow", "wandb", "trackio")
            for command, space in (("run", ""), ("check", " "))
        },
    }


def _called(commands: list[list[str]]) -> list[tuple[int, str]]:
    """What each command says, one after another in a process without extras."""
    done = subprocess.run(
        [sys.executable, str(CORE_ONLY)], input=json.dumps(commands), capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    found: list[tuple[int, str]] = json.loads(done.stdout.splitlines()[-1])
    return found


def test_every_command_has_its_help() -> None:
    commands = [["--help"], *([name, "--help"] for name in (*WATCHED, *PLAIN))]
    for words, (code, said) in zip(commands, _called(commands), strict=True):
        assert code == 0, f"{words}: {said}"
        assert "Usage:" in said


def test_a_missing_extra_is_one_sentence(cases: dict[str, list[str]]) -> None:
    found = _called([*cases.values()])
    for extra, words, (code, said) in zip(cases, cases.values(), found, strict=True):
        lines = [line for line in said.splitlines() if line.startswith("hanse: ")]
        assert (code, len(lines)) == (2, 1), f"{words}: {said}"
        assert re.search(rf"pip install ['\"]hanse\[{extra.strip()}\]['\"]", lines[0]), lines[0]
    assert not (Path(cases["eval"][1]).parent / "run").exists(), "refused before a run is begun"


def test_every_extra_is_tried(cases: dict[str, list[str]]) -> None:
    text = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    section = text.partition("[project.optional-dependencies]\n")[2].partition("\n[")[0]
    extras = set(re.findall(r"^(\w+) = \[", section, re.MULTILINE))
    assert extras - {"dev"} == {name.strip() for name in cases}
