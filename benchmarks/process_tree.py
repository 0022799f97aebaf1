"""What a command costs: seconds, CPU seconds and memory of all the processes that it starts.

Daemons that detach themselves (Ray starts several) escape whoever waits for one child, and a
parent that ignores the end of its children (Ray's raylet) has no account of them. So this file,
run as a program, is a supervisor: it adopts every orphan below it (Linux: PR_SET_CHILD_SUBREAPER),
looks at the whole tree in /proc five times a second, and keeps the last figures of each process.
What a parent has waited for is exact, however short its life; of a process that nobody waits for,
the last fifth of a second may be missing. The supervisor ends all of them when the command has
ended, and also when whoever asked is gone, killed or not.
"""

import ctypes
import json
import os
import select
import signal
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path

PROC = Path("/proc")
PR_SET_PDEATHSIG, PR_SET_CHILD_SUBREAPER = 1, 36  # <linux/prctl.h>
INTERVAL = 0.2  # seconds between two looks
GRACE = 5.0  # seconds that daemons may live after the command has ended


@dataclass(frozen=True)
class Cost:
    """What a command took, with all processes that it started.

    seconds: until the command itself ended. cpu_seconds: of all its processes.
    peak_bytes: the most memory at a time, of looks a second apart; shared pages count once.
    """

    seconds: float
    cpu_seconds: float
    peak_bytes: int


@dataclass(frozen=True)
class Seen:
    """A process as it was last seen.

    own, waited: CPU seconds, its own and those of children whose end it has waited for.
    """

    parent: int
    ended: bool
    own: float
    waited: float


@dataclass
class Tree:
    """A command and all that it starts."""

    root: subprocess.Popen[bytes]
    seen: dict[int, Seen] = field(default_factory=dict)

    def look(self) -> list[int]:
        """Note what there is, and bury orphans that have ended; the living."""
        there = below(os.getpid())
        self.seen.update(there)
        for number, process in there.items():
            if process.ended and process.parent == os.getpid() and number != self.root.pid:
                os.waitpid(number, 0)
        return [number for number, process in there.items() if not process.ended]

    def watch(self) -> int:
        """Look until the command has ended; the most bytes of memory that were seen."""
        handle, peak, weighed = os.pidfd_open(self.root.pid), 0, 0.0
        try:
            while not select.select([handle], [], [], INTERVAL)[0]:
                living = self.look()
                if time.perf_counter() - weighed >= 1:  # this takes the kernel milliseconds
                    peak, weighed = max(peak, sum(map(memory, living))), time.perf_counter()
        finally:
            os.close(handle)
        return peak

    def outlive(self) -> None:
        """Let daemons end by themselves for a while."""
        late = time.perf_counter() + GRACE
        while self.look() and time.perf_counter() < late:
            time.sleep(INTERVAL)

    def kill(self) -> None:
        """End what is still there; the orphans of what is killed come to this process."""
        while living := self.look():
            for number in living:
                with suppress(ProcessLookupError):
                    os.kill(number, signal.SIGKILL)
            time.sleep(0.01)
        self.root.wait()

    def cpu(self, parent: int) -> float:
        """CPU seconds of all that is below a process, when all of it has ended.

        A parent's account of the children it has waited for is exact; one that ignores their end
        has none, and they count as they were last seen.
        """
        return sum(
            process.own + max(process.waited, self.cpu(number))
            for number, process in self.seen.items()
            if process.parent == parent
        )


def measure(command: Sequence[str], environment: Mapping[str, str], log: Path) -> Cost:
    """Run a command to its end; none of its processes is left, however this ends.

    Raises RuntimeError with the end of its log if it fails.
    """
    words = [sys.executable, __file__, str(log), *command]
    with subprocess.Popen(words, env=environment, stdout=subprocess.PIPE) as supervisor:
        try:
            said, _ = supervisor.communicate()
        finally:
            supervisor.terminate()  # if this was interrupted, it has to end the rest
    if supervisor.returncode:
        end = log.read_text(errors="replace")[-3000:]
        raise RuntimeError(f"{' '.join(command)} failed:\n{end}")
    return Cost(**json.loads(said))


def supervise(command: Sequence[str], log: Path) -> tuple[int, Cost]:
    """A command's exit status and cost."""
    prctl(PR_SET_CHILD_SUBREAPER, 1)
    prctl(PR_SET_PDEATHSIG, signal.SIGTERM)
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    with log.open("wb") as out:
        start = time.perf_counter()
        tree = Tree(subprocess.Popen(command, stdout=out, stderr=out))
    try:
        peak = tree.watch()
        seconds = time.perf_counter() - start
        tree.outlive()
    finally:
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, signal.SIG_IGN)
        tree.kill()
    return tree.root.returncode, Cost(seconds, tree.cpu(os.getpid()), peak)


def below(process: int) -> dict[int, Seen]:
    """All processes below one."""
    children: dict[int, dict[int, Seen]] = {}
    for entry in PROC.iterdir():
        if entry.name.isdigit() and (one := read(entry)):
            children.setdefault(one.parent, {})[int(entry.name)] = one
    found: dict[int, Seen] = {}
    level = [process]
    while level:
        own = children.get(level.pop(), {})
        found |= own
        level += own
    return found


def read(entry: Path) -> Seen | None:
    """A process by its folder in /proc; none if it is gone."""
    try:
        fields = (entry / "stat").read_text(errors="replace").rpartition(")")[2].split()
    except OSError:
        return None
    second = os.sysconf("SC_CLK_TCK")
    own, waited = (sum(map(int, fields[at : at + 2])) / second for at in (11, 13))
    return Seen(int(fields[1]), fields[0] == "Z", own, waited)


def memory(process: int) -> int:
    """Bytes that it has in memory; a page that several processes share counts in part for each."""
    with suppress(OSError):
        for line in (PROC / str(process) / "smaps_rollup").read_text().splitlines():
            if line.startswith("Pss:"):
                return 1024 * int(line.split()[1])
    return 0


def prctl(option: int, value: int) -> None:
    """Set an attribute of this process."""
    if ctypes.CDLL(None).prctl(option, value, 0, 0, 0):
        raise OSError(f"prctl({option}, {value}) failed")


if __name__ == "__main__":
    status, cost = supervise(sys.argv[2:], Path(sys.argv[1]))
    sys.stdout.write(json.dumps(asdict(cost)))
    sys.exit(1 if status else 0)
