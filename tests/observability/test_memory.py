"""Memory that a process may use, on machines and in containers that are made of files."""

import ctypes
import os
import resource
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest

from hanse.observability import kernel_files, memory
from hanse.observability.memory import (
    available_memory,
    held_memory,
    peak_memory,
    release,
    total_memory,
)

GB = 10**9
KB = 1024
UNLIMITED_V1 = 9223372036854771712  # what version 1 says for no limit
V2_MOUNT = "31 23 0:28 {root} /sys/fs/cgroup rw,nosuid - cgroup2 cgroup2 rw"
V1_MOUNTS = (
    "31 23 0:28 / /sys/fs/cgroup rw - tmpfs tmpfs rw,mode=755\n"
    "32 31 0:29 {root} /sys/fs/cgroup/cpu rw - cgroup cgroup rw,cpu\n"
    "35 31 0:32 {root} /sys/fs/cgroup/memory rw - cgroup cgroup rw,memory\n"
)

Machine = Callable[[Mapping[str, object]], None]


@pytest.fixture
def machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Machine:
    """Writes files of a machine with 16 GB, 12 of them free, and without `ulimit -v`."""
    monkeypatch.setattr(kernel_files, "ROOT", tmp_path)
    monkeypatch.setattr(resource, "getrlimit", lambda kind: (resource.RLIM_INFINITY,) * 2)

    def write(files: Mapping[str, object]) -> None:
        for name, content in files.items():
            (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
            (tmp_path / name).write_text(f"{content}\n")

    free, total = 12 * GB // KB, 16 * GB // KB
    write({"proc/meminfo": f"MemTotal: {total} kB\nMemFree: 7 kB\nMemAvailable: {free} kB"})
    return write


def v2(path: str, root: str = "/") -> dict[str, object]:
    return {"proc/self/cgroup": f"0::{path}", "proc/self/mountinfo": V2_MOUNT.format(root=root)}


def group(
    folder: str, limit: object, used: int, cached: int = 0, high: object = "max"
) -> dict[str, object]:
    return {
        f"{folder}/memory.max": limit,
        f"{folder}/memory.high": high,
        f"{folder}/memory.current": used,
        f"{folder}/memory.stat": f"anon 1\ninactive_file {cached}\nactive_file 5",
    }


def test_a_machine_without_containers(machine: Machine) -> None:
    assert (total_memory(), available_memory()) == (16 * GB, 12 * GB)


def test_a_system_that_does_not_tell_what_is_free(tmp_path: Path, machine: Machine) -> None:
    (tmp_path / "proc" / "meminfo").unlink()
    whole = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    assert (total_memory(), available_memory()) == (whole, whole - whole // 2)


def test_a_container_sees_its_own_group_at_the_mount(machine: Machine) -> None:
    machine(v2("/") | group("sys/fs/cgroup", 4 * GB, 3 * GB, cached=GB))
    assert (total_memory(), available_memory()) == (4 * GB, 2 * GB)


def test_no_limit_leaves_the_machine(machine: Machine) -> None:
    machine(v2("/") | group("sys/fs/cgroup", "max", 3 * GB))
    assert (total_memory(), available_memory()) == (16 * GB, 12 * GB)


@pytest.mark.parametrize(
    ("outer", "inner", "total", "available"),
    [
        ((8 * GB, 7 * GB), (2 * GB, GB // 2), 2 * GB, GB),  # the outer group is nearly full
        ((8 * GB, GB), (2 * GB, GB // 2), 2 * GB, 3 * GB // 2),
        ((4 * GB, GB), ("max", GB), 4 * GB, 3 * GB),
        (("max", GB), (6 * GB, 7 * GB), 6 * GB, 0),  # more is used than was allowed later
    ],
)
def test_nested_groups_all_count(
    outer: tuple[object, int],
    inner: tuple[object, int],
    total: int,
    available: int,
    machine: Machine,
) -> None:
    slice_, service = "sys/fs/cgroup/user.slice", "sys/fs/cgroup/user.slice/job.service"
    machine(v2("/user.slice/job.service") | group(slice_, *outer) | group(service, *inner))
    assert (total_memory(), available_memory()) == (total, available)


def test_the_limit_at_which_a_group_is_slowed_down_counts(machine: Machine) -> None:
    machine(v2("/") | group("sys/fs/cgroup", 8 * GB, GB, high=3 * GB))
    assert (total_memory(), available_memory()) == (3 * GB, 2 * GB)


@pytest.mark.parametrize("root", ["/", "/docker/ab"])
def test_version_1(root: str, machine: Machine) -> None:
    """Docker without a namespace for groups mounts the container's group, and names it in full."""
    folder = "sys/fs/cgroup/memory" + ("/docker/ab" if root == "/" else "")
    machine(
        {
            "proc/self/cgroup": "7:cpu,cpuacct:/elsewhere\n5:memory:/docker/ab\n0::/",
            "proc/self/mountinfo": V1_MOUNTS.format(root=root),
            f"{folder}/memory.limit_in_bytes": 6 * GB,
            f"{folder}/memory.usage_in_bytes": 5 * GB,
            f"{folder}/memory.stat": f"inactive_file 9\ntotal_inactive_file {2 * GB}",
            "sys/fs/cgroup/cpu/memory.limit_in_bytes": 1,  # of no memory controller
        }
    )
    assert (total_memory(), available_memory()) == (6 * GB, 3 * GB)


def test_version_1_without_a_limit(machine: Machine) -> None:
    machine(
        {
            "proc/self/mountinfo": V1_MOUNTS.format(root="/"),  # /proc/self/cgroup may be empty
            "sys/fs/cgroup/memory/memory.limit_in_bytes": UNLIMITED_V1,
            "sys/fs/cgroup/memory/memory.usage_in_bytes": 11 * GB,
        }
    )
    assert (total_memory(), available_memory()) == (16 * GB, 12 * GB)


@pytest.mark.parametrize(("path", "root"), [("/../other", "/"), ("/a", "/b"), ("/ab", "/a")])
def test_a_group_outside_of_the_mount_is_looked_for_at_the_mount(
    path: str, root: str, machine: Machine
) -> None:
    machine(v2(path, root) | group("sys/fs/cgroup", 4 * GB, GB) | group("sys/fs/other", 7, 0))
    assert total_memory() == 4 * GB


def test_ulimit_counts(machine: Machine, monkeypatch: pytest.MonkeyPatch) -> None:
    machine({"proc/self/statm": f"{GB // memory.PAGE} 7 7"})
    asked = []
    monkeypatch.setattr(
        resource, "getrlimit", lambda kind: asked.append(kind) or (3 * GB, resource.RLIM_INFINITY)
    )
    assert total_memory() == 3 * GB
    assert available_memory() == pytest.approx(2 * GB, abs=memory.PAGE)
    assert {*asked} == {resource.RLIMIT_AS}


def test_this_machine() -> None:
    assert 10**7 < peak_memory() < total_memory()
    assert 0 < available_memory() <= total_memory()


@pytest.mark.skipif(not hasattr(ctypes.CDLL(None), "malloc_trim"), reason="another C library")
def test_memory_of_objects_that_are_gone_is_given_back() -> None:
    blocks = [bytearray(100_000) for _ in range(1000)]  # below the size that has pages of its own
    last = bytearray(100_000)  # keeps what lies below it
    del blocks
    held = held_memory()
    release()
    assert held_memory() < held - 5e7 and len(last) == 100_000


def test_a_c_library_that_keeps_its_memory_is_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ctypes, "CDLL", lambda name: object())
    release()
