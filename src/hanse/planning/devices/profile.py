"""The profile of a machine: what it has, and how fast it is, measured within some seconds."""

import time
from dataclasses import dataclass
from datetime import UTC, datetime

import torch

from hanse.learners import flops
from hanse.observability import power, processor
from hanse.observability.memory import available_memory, total_memory

COPIED = 2**25  # numbers of a copy that measures the memory: 128 MiB, more than most caches
REPEATS = 10


@dataclass(frozen=True)
class DeviceProfile:
    """A machine's means, and its measured speed.

    processor: its name. cores: that this process may use. threads: of torch.
    instructions: the widest vectors of the processor that torch uses.
    memory, memory_free: bytes, within the limits of containers.
    gpu, gpu_memory: the GPU that hanse would use, and its bytes; None without one. Speeds are the
        GPU's if there is one.
    float32, bfloat16: FLOP/s of the fastest matrix products, measured.
    bandwidth: bytes a second that a copy reads and writes, measured.
    busy: cores that other programs kept busy meanwhile, to which the figures are due; None if not
        known.
    power: the source of readings of energy; None if the machine tells it nobody.
    torch: its version. at: the time of the measurement.
    """

    processor: str
    cores: int
    threads: int
    instructions: str
    memory: int
    memory_free: int
    gpu: str | None
    gpu_memory: int | None
    float32: float
    bfloat16: float
    bandwidth: float
    busy: float | None
    power: str | None
    torch: str
    at: str


def measure() -> DeviceProfile:
    """Measure this machine, within about five seconds."""
    before = processor.core_use()
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    gpu = torch.cuda.get_device_properties(device) if device.type == "cuda" else None
    speeds = [flops.peak(device, dtype) for dtype in (torch.float32, torch.bfloat16)]
    return DeviceProfile(
        processor=processor.model_name(),
        cores=processor.allowed_cores(),
        threads=torch.get_num_threads(),
        instructions=torch.backends.cpu.get_cpu_capability(),
        memory=total_memory(),
        memory_free=available_memory(),
        gpu=gpu.name if gpu else None,
        gpu_memory=gpu.total_memory if gpu else None,
        float32=speeds[0],
        bfloat16=speeds[1],
        bandwidth=bandwidth(device),
        busy=processor.other_work(before),
        power=power.SOURCE if power.counters() else None,
        torch=torch.__version__,
        at=datetime.now(UTC).isoformat(timespec="seconds"),
    )


def bandwidth(device: torch.device, numbers: int = COPIED) -> float:
    """Bytes a second that a copy of so many float32 numbers reads and writes; the fastest of some.

    Memory that is not free is not taken: with little, the copy is smaller.
    """
    free = available_memory() if device.type == "cpu" else torch.cuda.mem_get_info(device)[0]
    numbers = max(1, min(numbers, free // 16))  # two copies of 4 bytes, in half of what is free
    source = torch.zeros(numbers, device=device)
    target = torch.zeros_like(source)
    rates = []
    for _ in range(REPEATS):
        _finish(device)
        start = time.perf_counter()
        target.copy_(source)
        _finish(device)
        rates.append(2 * 4 * numbers / (time.perf_counter() - start))
    return max(rates)  # other programs slow the others down


def _finish(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
