"""Clients trained together on a GPU, and the share of its peak that they reach.

Without a GPU nothing is measured.

Speedup: a round of 16 clients by hanse one after another (`clients_per_pass: off`)
÷ all of them together.
Share: 16 clients of 8 × 512 tokens on a model of 1.1 billion parameters in bfloat16, in the size
that `clients_per_pass: auto` takes: floating-point operations a second ÷ those of a large
matrix product in the same run. Operations are the model's own by closed form: a product each
forward, and one back to the inputs, since the base is frozen; half of the products of
attention, which is causal; nothing for the adapters, nor for what is computed twice.

Gates, on an H200: 4 times as fast together at batches of 1 and 2; 40 % of the measured peak.
What was measured before is kept, so a stopped run goes on. `--short` has tiny shapes, and is for
seeing that all of it works, with `--device cpu` too.
"""

import argparse
import json
import statistics
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import shapes
import torch
from measured import clock, keep, ratio, results
from shapes import Case, alone, together

from hanse.learners.adapted_model import AdaptedModel
from hanse.learners.backbone import Backbone
from hanse.learners.batched_clients.size import best
from hanse.learners.kernels import short_attention
from hanse.learners.models import precision
from hanse.learners.models.layers import decoder_layers
from hanse.learners.models.settings import BaseModelSettings
from hanse.learners.training.out_of_memory import release_memory

STEPS = 4  # optimizer steps of each client
LONG = 1_000_000  # steps of a run that is long enough to measure as much as auto likes
PRODUCTS = 10  # of matrices, between two looks at the clock
BF16 = torch.bfloat16


@dataclass(frozen=True)
class Plan:
    """What is measured; sizes: rows of the square matrices, of which the fastest count."""

    batched_clients: Sequence[Case]
    share: Case
    sizes: Sequence[int]


FULL = Plan(
    [
        Case(shape, 16, batch, tokens)
        for shape in ("gpt2-small", "llama-1b")
        for batch in (1, 2)
        for tokens in (128, 512)
    ],
    Case("llama-1b", 16, 8, 512),
    (8192, 16384),
)
SHORT = Plan([Case("toy", 4, 1, 32)], Case("toy", 4, 2, 32), (256, 512))


def prepared(case: Case, device: torch.device) -> Sequence[AdaptedModel]:
    """The clients of a case, on a model in bfloat16 that attends as hanse would let it."""
    base = shapes.backbone(case.shape, device.type, bf16=True)
    settings = BaseModelSettings(bf16=True)
    mode, _ = precision.choose(settings, base.model.config, device, ("torch",))
    if mode.plain_attention:
        short_attention.use(base.model, plain=True)
    return shapes.clients(base, case.clients, case.batch, case.tokens, STEPS)


def batched_clients(case: Case, device: torch.device, repeats: int) -> dict[str, Any]:
    """Seconds of a round both ways, in turn, and their ratio; the first of each does not count."""
    learners = prepared(case, device)
    start = learners[0].tensors()
    ways: dict[str, Callable[[], None]] = {
        "off": lambda: alone(learners, start),
        "together": lambda: together(learners, start, case.clients),
    }
    seconds: dict[str, list[float]] = {name: [] for name in ways}
    memory = {}
    for turn in range(1 + repeats):
        for name, work in ways.items():
            forget_memory(device)
            spent = clock(work)  # both end with what they have learned on the host
            memory[name] = most_memory(device)
            if turn:
                seconds[name].append(spent)
    speedup = ratio(seconds["off"], seconds["together"])
    return {
        **asdict(case),
        "held": held(learners, case.clients),
        "seconds": seconds,
        "peak_memory": memory,
        "speedup": speedup,
    }


def share(plan: Plan, device: torch.device, repeats: int) -> dict[str, Any]:
    """Operations a second of a round trained together, and their share of the peak."""
    case, highest = plan.share, peak(plan.sizes, device, repeats)
    forget_memory(device)
    learners = prepared(case, device)
    start = learners[0].tensors()
    size = best([learner.member() for learner in learners], LONG)
    together(learners, start, size)
    forget_memory(device)
    seconds = [clock(lambda: together(learners, start, size)) for _ in range(repeats)]
    work = case.clients * STEPS * operations(learners[0].backbone, case)
    speed = work / statistics.median(seconds)
    return {
        **asdict(case),
        "size": size,
        "held": held(learners, size),
        "seconds": seconds,
        "flops": speed,
        "peak_flops": highest,
        "share": speed / highest,
        "peak_memory": most_memory(device),
    }


def held(learners: Sequence[AdaptedModel], size: int) -> int:
    """How many trained together: fewer than were meant to if memory ran out."""
    return min(size, learners[0].backbone.max_clients or size)


def operations(base: Backbone, case: Case) -> float:
    """Floating-point operations of one client's step, forward and back to the inputs."""
    layers = decoder_layers(base.model)[1]
    frozen = [p for layer in layers for name, p in layer.named_parameters() if "lora_" not in name]
    weights = sum(parameter.numel() for parameter in frozen if parameter.dim() == 2)
    head: int = base.model.get_output_embeddings().weight.numel()
    tokens, labels = case.batch * case.tokens, case.batch * (case.tokens - 1)
    width: int = base.model.config.get_text_config().hidden_size
    # Two products forward and four back for each pair of tokens, of which causality leaves half.
    attending = len(layers) * tokens * case.tokens * width * (2 + 4) * 2 / 2
    return 4 * (weights * tokens + head * labels) + attending


def peak(sizes: Sequence[int], device: torch.device, repeats: int) -> float:
    """FLOP/s of large square matrix products in bfloat16, the median; the fastest of the sizes."""
    found = []
    for size in sizes:
        left, right, out = (torch.randn(size, size, device=device, dtype=BF16) for _ in range(3))

        def work(left: Any = left, right: Any = right, out: Any = out) -> None:
            for _ in range(PRODUCTS):
                torch.mm(left, right, out=out)
            finish(device)

        work()
        seconds = statistics.median(clock(work) for _ in range(repeats))
        found.append(2 * size**3 * PRODUCTS / seconds)
    return max(found)


def finish(device: torch.device) -> None:
    """Wait for a GPU, which works on its own."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def forget_memory(device: torch.device) -> None:
    """From here on, the most memory is counted anew."""
    release_memory(device)
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)


def most_memory(device: torch.device) -> int | None:
    """Bytes that torch has held on the GPU at most."""
    return torch.cuda.max_memory_allocated(device) if device.type == "cuda" else None


def told(found: dict[str, Any]) -> str:
    """A line for whoever watches."""
    what = f"{found['shape']}, {found['clients']} clients of {found['batch']} × {found['tokens']}"
    if "speedup" in found:
        return f"{what}: together {found['speedup']:.2f} × one after another (wanted: 4)"
    return f"{what}: {100 * found['share']:.1f} % of {found['peak_flops']:.3g} FLOP/s (wanted: 40)"


def main() -> None:
    """Measure all that is not there yet, print a line for each, keep the samples."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--short", action="store_true", help="tiny shapes; seconds")
    parser.add_argument("--device", choices=("cuda", "cpu"), default="cuda")
    parser.add_argument("--again", action="store_true", help="forget what was measured before")
    chosen = parser.parse_args()
    if chosen.device == "cpu" and not chosen.short:
        parser.error("--device cpu is for trying --short")
    if chosen.device == "cuda" and not torch.cuda.is_available():
        print("not run: torch sees no GPU")
        return
    device, plan = torch.device(chosen.device), SHORT if chosen.short else FULL
    file = results("gpu")
    known = {} if chosen.again or not file.exists() else json.loads(file.read_text())
    done, shared = known.get("cases", []), known.get("share")
    gpu = torch.cuda.get_device_name(device) if device.type == "cuda" else None
    about = {"gpu": gpu, "cuda": torch.version.cuda, "steps": STEPS, "repeats": chosen.repeats}
    if shared is None:
        shared = share(plan, device, chosen.repeats)
        keep("gpu", {**about, "share": shared, "cases": done})
    print(told(shared), flush=True)
    for case in plan.batched_clients:
        if not any(asdict(case).items() <= old.items() for old in done):
            done.append(batched_clients(case, device, chosen.repeats))
            keep("gpu", {**about, "share": shared, "cases": done})
    print(*map(told, done), sep="\n")


if __name__ == "__main__":
    main()
