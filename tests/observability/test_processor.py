"""Cores of machines that are made of files, and the environment that OpenMP reads."""

import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import pytest

from hanse.observability import kernel_files, processor
from hanse.observability.processor import CoreUse

V2 = {
    "proc/self/cgroup": "0::/pod/box",
    "proc/self/mountinfo": "31 23 0:28 / /sys/fs/cgroup rw - cgroup2 cgroup2 rw",
}
V1 = {
    "proc/self/cgroup": "1:cpu,cpuacct:/box",
    "proc/self/mountinfo": "32 31 0:29 / /sys/fs/cgroup/cpu rw - cgroup cgroup rw,cpu,cpuacct",
}


@pytest.fixture(autouse=True)
def four_cores(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kernel_files, "ROOT", tmp_path)
    monkeypatch.delenv("OMP_PROC_BIND", raising=False)
    monkeypatch.setattr(os, "sched_getaffinity", lambda process: {0, 1, 2, 5}, raising=False)
    monkeypatch.setattr(processor, "JIFFIES", 100)


def write(folder: Path, files: Mapping[str, str]) -> None:
    for name, content in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(content + "\n")


@pytest.mark.parametrize(
    ("files", "cores"),
    [
        ({}, 4),
        (V2 | {"sys/fs/cgroup/pod/box/cpu.max": "max 100000"}, 4),
        (V2 | {"sys/fs/cgroup/pod/box/cpu.max": "250000 100000"}, 2),
        (V2 | {"sys/fs/cgroup/pod/cpu.max": "50000 100000"}, 1),
        (V2 | {"sys/fs/cgroup/pod/cpu.max": "900000 100000"}, 4),
        (
            V1
            | {
                "sys/fs/cgroup/cpu/box/cpu.cfs_quota_us": "300000",
                "sys/fs/cgroup/cpu/box/cpu.cfs_period_us": "100000",
            },
            3,
        ),
        (V1 | {"sys/fs/cgroup/cpu/box/cpu.cfs_quota_us": "-1"}, 4),
    ],
)
def test_cores_within_the_quota_of_a_container(
    files: Mapping[str, str], cores: int, tmp_path: Path
) -> None:
    write(tmp_path, files)
    assert processor.allowed_cores() == cores


def test_threads_bound_by_openmp_do_not_look_like_one_core(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda process: {0}, raising=False)
    monkeypatch.setattr(os, "cpu_count", lambda: 4)
    assert processor.allowed_cores() == 1
    monkeypatch.setenv("OMP_PROC_BIND", "close")
    assert processor.allowed_cores() == 4


def test_other_work_is_what_this_process_has_not_done_on_its_own_cores(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stat = (
        "cpu 1 1 1 1 1 1 1 1 0 0",
        "cpu0 500 9999 60 7777 7777 10 10 20 0 0",  # 6 s without niced, idle and waiting time
        "cpu3 99999 0 0 0 0 0 0 0 0 0",  # not a core of this process
        "cpu5 300 0 0 0 0 0 0 0 0 0",
    )
    write(tmp_path, {"proc/stat": "\n".join(stat)})
    monkeypatch.setattr(processor.time, "monotonic", lambda: 12.0)
    monkeypatch.setattr(processor.time, "process_time", lambda: 4.0)
    assert processor.other_work(CoreUse(10.0, 4.0, 3.0)) == pytest.approx((9 - 4 - 1) / 2)
    assert processor.other_work(CoreUse(10.0, 4.0, -9.0)) == 0.0, "clocks of unequal grain"
    assert processor.other_work(CoreUse(11.9, 4.0, 3.0)) is None, "too short ago"
    assert processor.other_work(CoreUse(10.0, None, 3.0)) is None


def test_a_system_that_does_not_tell_its_use() -> None:
    assert processor.core_use().busy is None
    assert processor.crowding(4, None) == ""


@pytest.mark.parametrize(
    ("threads", "others", "setting"),
    [(4, 0.4, ""), (4, 0.9, "=3"), (4, 2.0, "=2"), (4, 4.0, "=1"), (2, 2.0, ""), (1, 4.0, "")],
)
def test_threads_that_exceed_the_free_cores(threads: int, others: float, setting: str) -> None:
    sentence = processor.crowding(threads, others)
    assert bool(sentence) == bool(setting)
    assert not setting or f"set OMP_NUM_THREADS{setting}" in sentence


def test_more_threads_than_cores(tmp_path: Path) -> None:
    write(tmp_path, V2 | {"sys/fs/cgroup/pod/cpu.max": "200000 100000"})
    assert processor.crowding(4, 0.0) == (
        "torch computes with 4 threads, and this process may use 2 cores: set OMP_NUM_THREADS=2"
    )


@pytest.mark.parametrize(
    ("chosen", "expected"),
    [
        ({}, {"GOMP_SPINCOUNT": "3000", "KMP_BLOCKTIME": "1"}),
        ({"GOMP_SPINCOUNT": "7"}, {"GOMP_SPINCOUNT": "7", "KMP_BLOCKTIME": "1"}),
        ({"OMP_WAIT_POLICY": "active"}, {"OMP_WAIT_POLICY": "active"}),
    ],
)
def test_the_program_shortens_waits_and_the_library_does_not(
    chosen: dict[str, str], expected: dict[str, str]
) -> None:
    """In processes of their own: the environment of this one stays as it is."""
    names = "GOMP_SPINCOUNT", "KMP_BLOCKTIME", "OMP_WAIT_POLICY"
    environment = {n: v for n, v in os.environ.items() if n not in names} | chosen
    show = f"import os; print({{n: os.environ[n] for n in {names} if n in os.environ}})"
    program = (
        "import sys; sys.argv = ['hanse', 'doctor']\n"
        "import hanse.cli.main as cli\n"
        f"def seen(): assert 'torch' not in sys.modules; {show}\n"
        "cli.main = seen\n"
        "from hanse.__main__ import main; main()"
    )
    for code, result in ((program, expected), (f"import hanse; {show}", chosen)):
        command = [sys.executable, "-c", code]
        done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
        assert done.stdout.strip() == str(result)
