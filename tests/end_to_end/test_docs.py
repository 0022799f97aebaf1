"""Every command in the guides works, one after another, as a reader would type them."""

import contextlib
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
    if SHELL.search(page.read_text(encoding="utf-8"))  # two pages have no commands
]

pytestmark = pytest.mark.end_to_end


@pytest.mark.timeout(1200)
@pytest.mark.parametrize("guide", GUIDES, ids=[guide.stem for guide in GUIDES])
def test_the_commands_of_a_guide_work(guide: Path, tmp_path: Path, hanse: Path) -> None:
    """All ```sh blocks of a guide as one script, in a copy of what a clone holds."""
    script = "\n".join(SHELL.findall(guide.read_text(encoding="utf-8")))
    assert "hanse " in script
    for folder in ("examples", "experiments"):
        shutil.copytree(ROOT / folder, tmp_path / folder)
    path = os.pathsep.join(
        [str(hanse.parent), str(Path(sys.executable).parent), os.environ["PATH"]]
    )
    shell = subprocess.Popen(
        ["bash", "-euxo", "pipefail", "-c", script],
        cwd=tmp_path,
        env={**os.environ, "PATH": path},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    try:
        _, said = shell.communicate()
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(shell.pid, signal.SIGKILL)  # what it has left in the background
    assert shell.returncode == 0, said[-4000:]
    assert "Traceback" not in said
