"""A silo takes the files of a run up to its policy's size, and no others in the same run."""

from dataclasses import replace
from pathlib import Path

import pytest

from hanse.deployment.silo.agreement import sent
from hanse.deployment.silo.enforcement import PolicyEnforcer
from hanse.deployment.silo.file_limits import admit_files
from hanse.deployment.silo.job import JobRefusedError
from hanse.deployment.silo.policy import Policy
from hanse.federation.files import PreparedFile, RunFiles
from hanse.federation.messages import Request

GB = 10**9
EMULATOR = PreparedFile("emulator", "a" * 64, GB, Path("emulator"))


def admit(folder: Path, files: RunFiles, run: str = "run", **policy: float) -> None:
    admit_files(PolicyEnforcer("north", Policy(**policy), run, folder), files.offer(1))  # type: ignore[arg-type]


def test_the_total_is_bounded(tmp_path: Path) -> None:
    admit(tmp_path / "state", RunFiles((EMULATOR,)))
    same = replace(EMULATOR, name="again")
    admit(tmp_path / "twice", RunFiles((same, EMULATOR)))  # one file of two names
    more = PreparedFile("more", "b" * 64, 1, Path("more"))
    for files, policy, reason in (
        (
            RunFiles((EMULATOR, more)),
            {},
            "have 1,000,000,001 bytes, and its policy has max_file_gb 1",
        ),
        (
            RunFiles((more,)),
            {"max_file_gb": 0.0},
            r"have 1 bytes, and its policy has max_file_gb 0\.",
        ),
        (RunFiles(()), {}, "without a size each, or sizes without files"),
    ):
        with pytest.raises(JobRefusedError, match=reason):
            admit(tmp_path / "refused", files, **policy)
    assert [file.name for file in (tmp_path / "refused").iterdir()] == ["refusals.jsonl"]


def test_a_run_has_one_offer_also_after_a_restart(tmp_path: Path) -> None:
    for _ in range(2):
        admit(tmp_path, RunFiles((EMULATOR,)))
    for other in (replace(EMULATOR, size=5), replace(EMULATOR, digest="b" * 64)):
        with pytest.raises(JobRefusedError, match="others were offered before in this run"):
            admit(tmp_path, RunFiles((other,)))
        admit(tmp_path, RunFiles((other,)), run=other.digest[:8] + str(other.size))


def test_silos_agree_on_the_files() -> None:
    request = Request("train", 1, files={"emulator": "a" * 64})
    other = replace(request, files={"emulator": "b" * 64})
    renamed = replace(request, files={"other": "a" * 64})
    without = replace(request, files={})
    assert len({sent(each, "job").digest for each in (request, other, renamed, without)}) == 4
    assert sent(Request.parse(request.pack()), "job") == sent(request, "job")
