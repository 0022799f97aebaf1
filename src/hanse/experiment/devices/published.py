"""Devices that are known by name, with figures that were published.

A figure stands here with its source, or it does not stand here: the Raspberry Pi's watts are left
out, since those of its power supply say little, and the laptop's memory, which its buyer chooses.
Peaks are those of dense matrices. What is computed from published figures says how.
"""

from collections.abc import Mapping
from types import MappingProxyType

Figures = Mapping[str, tuple[float, str]]  # (figure, source) by the setting's name

_A100 = "NVIDIA A100 datasheet (SXM, 80 GB), as in glennklockwood.com/garden/processors/A100"
_T4 = "sysrqmts.com/en/gpus/nvidia/tesla/t4"
_RTX = "waredb.com/processor/nvidia-geforce-rtx-4090"
_AGX = "NVIDIA Jetson AGX Orin Technical Brief, as in mzph.cn/web/30785.shtml"
_AGX_MEMORY = "NVIDIA Jetson AGX Orin Series Data Sheet DS-10662-001 v1.8, 64 GB"
_NANO = (
    "NVIDIA Jetson Orin Nano Super Developer Kit datasheet, as in "
    "brojogopalsapui.com, jetson_orin_nano_light.html"
)
_PI = "circuitdigest.com/news/the-new-raspberry-pi-5-is-here-faster-than-ever"
_MOBILE = "hmc-tech.com/gpu, GeForce RTX 4060 Laptop of 110 W"
_CPU = "liliputing.com on AMD's Ryzen 7040U: Ryzen 7 7840U, 8 Zen 4 cores of 3.3 GHz (base)"

PUBLISHED: Mapping[str, Figures] = MappingProxyType(
    {
        "a100": {
            "fp32_tflops": (19.5, _A100),
            "bf16_tflops": (312.0, f"{_A100}, tensor cores"),
            "memory_gb": (80.0, _A100),
            "bandwidth_gb_s": (2039.0, _A100),
            "watts": (400.0, f"{_A100}, maximum"),
        },
        "t4": {
            "fp32_tflops": (8.1, _T4),
            "memory_gb": (16.0, _T4),
            "bandwidth_gb_s": (320.0, _T4),
            "watts": (70.0, f"{_T4}, maximum"),
        },
        "rtx-4090": {
            "fp32_tflops": (82.6, _RTX),
            "bf16_tflops": (165.2, f"{_RTX}, tensor cores"),
            "memory_gb": (24.0, _RTX),
            "bandwidth_gb_s": (1008.0, _RTX),
            "watts": (450.0, "holynerdvana.blogspot.com, GeForce RTX 4090: total board power"),
        },
        "jetson-agx-orin": {
            "fp32_tflops": (5.3, f"{_AGX}: 2,048 CUDA cores"),
            "bf16_tflops": (42.5, f"{_AGX}: 170 sparse INT8 TOPS of the GPU, a quarter of these"),
            "memory_gb": (64.0, _AGX_MEMORY),
            "bandwidth_gb_s": (204.8, _AGX_MEMORY),
            "watts": (60.0, f"{_AGX_MEMORY}, maximum module power"),
        },
        "jetson-orin-nano": {
            "fp32_tflops": (2.09, f"{_NANO}: 1,024 CUDA cores · 2 · 1.02 GHz"),
            "bf16_tflops": (16.75, f"{_NANO}: 67 sparse INT8 TOPS, a quarter of these"),
            "memory_gb": (8.0, _NANO),
            "bandwidth_gb_s": (102.0, _NANO),
            "watts": (25.0, f"{_NANO}, the largest of its power modes"),
        },
        "laptop-gpu": {
            "fp32_tflops": (14.1, _MOBILE),
            "bf16_tflops": (28.3, f"{_MOBILE}, tensor cores"),
            "memory_gb": (8.0, _MOBILE),
            "bandwidth_gb_s": (256.0, "data-check.eu, RTX 4060 Laptop: 128 bits · 16 Gb/s / 8"),
            "watts": (110.0, _MOBILE),
        },
        "laptop": {
            "fp32_tflops": (
                0.845,
                f"{_CPU}; 8 cores · 3.3 GHz · 32 operations a cycle "
                "(stackoverflow.com/questions/15655835: two 8-wide FMA)",
            ),
            "watts": (28.0, f"{_CPU}, default thermal design power"),
        },
        "raspberry-pi-5": {
            "fp32_tflops": (
                0.1536,
                f"{_PI}; 4 cores · 2.4 GHz · 16 operations a cycle (systemonchips.com, "
                "arm-cortex-a76-floating-point-performance: two FMA pipelines, of 128 bits)",
            ),
            "memory_gb": (8.0, "education.raspberrypiaustralia.online, Raspberry Pi 5 8GB model"),
            "bandwidth_gb_s": (17.1, f"{_PI}; 32 bits · 4,267 MT/s / 8"),
            "up_mbps": (1000.0, f"{_PI}, Gigabit Ethernet"),
            "down_mbps": (1000.0, f"{_PI}, Gigabit Ethernet"),
        },
    }
)


def figures(name: str) -> dict[str, float]:
    """The published figures of a device, by the settings' names."""
    return {setting: figure for setting, (figure, _) in PUBLISHED[name].items()}


def sources(name: str) -> str:
    """The sources of a device's figures in one text."""
    by_source: dict[str, list[str]] = {}
    for setting, (_, source) in PUBLISHED[name].items():
        by_source.setdefault(source, []).append(setting)
    return "; ".join(f"{', '.join(settings)}: {source}" for source, settings in by_source.items())
