"""Every command in the guides works, one after another, as a reader would type them.

The guides name SmolLM2. Here its package holds a tiny random model, but for one guide; `make
docs-check` lets all of them have the real one.
"""

import contextlib
import importlib.util
import os
import re
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from samples import ROOT

SHELL = re.compile(r"^```sh\n(.*?)^```", re.M | re.S)
GUIDES = [
    page
    for page in sorted((ROOT / "docs").glob("*.md"))
    if SHELL.search(page.read_text(encoding="utf-8"))  # the others show no commands to run
]
REAL = "algorithms"  # the guide whose commands have the real model; test_smollm2.py trains it
ALL_REAL = "HANSE_DOCS_REAL" in os.environ
EXTRAS = {  # which the commands of guides need
    "read-a-report": "tensorboard",
    "speed": "bitsandbytes",
    "privacy": "dp_accounting",
}

REFUSED = re.compile(r"^! ((?:.*\\\n)*.*)$", re.M)  # a command that must fail; lines may go on

pytestmark = pytest.mark.end_to_end


def strict(script: str) -> str:
    """The script with an end where a command of a line `! command` succeeds, which bash ignores."""
    return REFUSED.sub(r"if \1; then exit 1; fi", script)


@pytest.mark.parametrize(
    "guide",
    [
        pytest.param(guide, marks=[pytest.mark.extras] if guide.stem in EXTRAS else [])
        for guide in GUIDES
    ],
    ids=[guide.stem for guide in GUIDES],
)
def test_the_commands_of_a_guide_work(
    guide: Path, tmp_path: Path, hanse: Path, request: pytest.FixtureRequest
) -> None:
    """All ```sh blocks of a guide as one script, in a copy of what a clone holds."""
    extra = EXTRAS.get(guide.stem)
    if extra and not importlib.util.find_spec(extra):
        pytest.skip(f"{extra} is not installed: make test-extras")
    script = strict("\n".join(SHELL.findall(guide.read_text(encoding="utf-8"))))
    assert "hanse " in script
    for folder in ("examples", "experiments"):
        shutil.copytree(ROOT / folder, tmp_path / folder)
    environment = dict(os.environ)
    _prepend(environment, "PATH", hanse.parent, Path(sys.executable).parent)
    if guide.stem == REAL or ALL_REAL:
        request.getfixturevalue("smollm2")
    else:
        _prepend(environment, "PYTHONPATH", request.getfixturevalue("tiny_packages"))
    code, errors = _run(script, tmp_path, environment)
    assert code == 0, errors[-4000:]
    assert "Traceback" not in errors


def test_the_program_of_the_python_guide_works(
    tmp_path: Path, hanse: Path, tiny_packages: Path
) -> None:
    """All ```python blocks of docs/python.md as one program, after the file that they name."""
    guide = (ROOT / "docs" / "python.md").read_text(encoding="utf-8")
    program = "\n".join(re.findall(r"^```python\n(.*?)^```", guide, re.M | re.S))
    (tmp_path / "program.py").write_text(program, encoding="utf-8")
    shutil.copytree(ROOT / "examples", tmp_path / "examples")
    environment = {**os.environ, "MPLBACKEND": "agg"}
    _prepend(environment, "PATH", hanse.parent, Path(sys.executable).parent)
    _prepend(environment, "PYTHONPATH", tiny_packages)
    script = "hanse init --from examples/tickets.jsonl --silos 4\npython program.py"
    code, errors = _run(script, tmp_path, environment)
    assert code == 0, errors[-4000:]


def _prepend(environment: dict[str, str], name: str, *folders: Path) -> None:
    """Let folders be looked at before those that a variable of the environment names."""
    former = environment.get(name)
    environment[name] = os.pathsep.join([*map(str, folders), *([former] if former else [])])


def _run(script: str, home: Path, environment: dict[str, str]) -> tuple[int, str]:
    """The exit code of a shell that runs a script, and what it wrote to its standard error."""
    shell = subprocess.Popen(
        ["bash", "-euxo", "pipefail", "-c", script],
        cwd=home,
        env=environment,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    try:
        _, errors = shell.communicate()
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(shell.pid, signal.SIGKILL)  # what it has left in the background
    return shell.returncode, errors
