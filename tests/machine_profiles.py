"""The profile of a machine that nobody has."""

from hanse.planning.devices.profile import DeviceProfile

PROFILE = DeviceProfile(
    processor="some processor",
    cores=2,
    threads=2,
    instructions="AVX2",
    memory=2**34,
    memory_free=2**33,
    gpu=None,
    gpu_memory=None,
    float32=1e11,
    bfloat16=2e11,
    bandwidth=1e10,
    busy=0.0,
    power=None,
    torch="2.9.0",
    at="2026-01-01T00:00:00+00:00",
)
