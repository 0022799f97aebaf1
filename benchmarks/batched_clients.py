"""Many clients in one forward pass: how much faster than one after another?

Each case is a round of so many clients of so many rows by so many tokens, trained in turn by a loop
of PyTorch and PEFT alone, by hanse one after another (`clients_per_pass: off`, PEFT's own layers),
and together by each number of clients per pass; `clients_per_pass: auto` says which of these it
would take. Ratios of wall-clock seconds, medians over repeats. What was measured before is kept, so
a stopped run goes on.

Gates: the size that auto takes is never slower than 0.98 of one after another; 2.5 times as fast
with 16 clients of 1 × 32, 1.2 times with 8 of 2 × 64 (toy shape).
"""

import argparse
import json
import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from functools import partial

import shapes
import torch
from measured import clock, keep, ratio, results
from plain_model import plain_products
from shapes import Case, alone, together

from hanse.learners.adapted_model import AdaptedModel
from hanse.learners.batched_clients.size import best
from hanse.learners.training.batch_sampling import sample_batches
from hanse.tensors.named import Tensors

STEPS = {"toy": 4, "gpt2-small": 2}  # optimizer steps of each client
SIZES = {4: (1, 2, 4), 8: (1, 2, 4, 8), 16: (1, 2, 4, 8, 16), 64: (1, 4, 16, 32, 64)}  # by clients


LONG = 1_000_000  # steps of a run that is long enough to measure as much as auto likes
SHORT = [Case("toy", 16, 1, 32), Case("toy", 8, 2, 64), Case("toy", 8, 8, 64)]
FULL = [
    *(Case("toy", number, *size) for size in ((1, 32), (2, 64), (8, 64)) for number in (4, 16, 64)),
    Case("toy", 8, 2, 64),
    *(Case("gpt2-small", number, 1, 32) for number in (4, 16)),
    *(Case("gpt2-small", number, 2, 64) for number in (4, 16)),
    Case("gpt2-small", 4, 8, 64),
]


def plain(learners: Sequence[AdaptedModel], start: Tensors) -> None:
    """The same batches by PyTorch and PEFT alone, one client after another."""
    with plain_products(learners[0].backbone.model):
        _plain(learners, start)


def _plain(learners: Sequence[AdaptedModel], start: Tensors) -> None:
    first = learners[0]
    model, live = first.backbone.activate(first.adapter), dict(first.parameters())
    settings = first.training
    for learner in learners:
        for name, parameter in live.items():
            parameter.data.copy_(start[name])
        optimizer = torch.optim.AdamW(live.values(), settings.learning_rate, weight_decay=0.0)
        rows = torch.tensor([example.ids for example in learner.examples("train")])
        model.train()
        for step in sample_batches([len(row) for row in rows], settings, learner.context):
            ids = rows[step[0]]
            model(input_ids=ids, attention_mask=torch.ones_like(ids), labels=ids).loss.backward()
            torch.nn.utils.clip_grad_norm_(live.values(), settings.max_grad_norm)
            optimizer.step()
            optimizer.zero_grad()
    model.eval()


def measure(case: Case, repeats: int) -> dict[str, object]:
    """One case; seconds of each way by repeat, and their ratios."""
    base = shapes.backbone(case.shape)
    learners = shapes.clients(base, case.clients, case.batch, case.tokens, STEPS[case.shape])
    start, sizes = learners[0].tensors(), SIZES[case.clients]
    ways: dict[str, Callable[[], None]] = {
        "plain": lambda: plain(learners, start),
        "off": lambda: alone(learners, start),
        **{str(size): partial(together, learners, start, size) for size in sizes},
    }
    seconds: dict[str, list[float]] = {name: [] for name in ways}
    for repeat in range(1 + repeats):
        for name, work in ways.items():
            spent = clock(work)
            if repeat:  # the first time, libraries prepare themselves
                seconds[name].append(spent)
    learners[0].load(start)
    chosen = [best([one.member() for one in learners], LONG) for _ in range(repeats)]
    return {**asdict(case), "seconds": seconds, "auto": chosen, **ratios(seconds, chosen)}


def ratios(seconds: Mapping[str, Sequence[float]], chosen: Sequence[int]) -> dict[str, object]:
    """Each way beside one after another, and the way that auto takes beside the plain loop.

    chosen: the numbers that auto found fastest; hanse trains one after another if that is 1.
    """
    usual = statistics.median(chosen)
    sizes = [name for name in seconds if name.isdecimal()]
    taken = min(sizes, key=lambda size: abs(int(size) - usual)) if usual > 1 else "off"
    speedup = {name: ratio(seconds["off"], own) for name, own in seconds.items()}
    return {
        "speedup": speedup,
        "auto_speedup": speedup[taken],
        "auto_speedup_over_plain": ratio(seconds["plain"], seconds[taken]),
    }


def main() -> None:
    """Measure all cases, print a line for each, keep the samples; a case that is there is kept."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--short", action="store_true", help="three cases, two minutes")
    parser.add_argument("--again", action="store_true", help="forget what was measured before")
    chosen = parser.parse_args()
    repeats = 2 if chosen.short else chosen.repeats
    file = results("batched_clients")
    done = [] if chosen.again or not file.exists() else json.loads(file.read_text())["cases"]
    done = [case | ratios(case["seconds"], case["auto"]) for case in done]
    for case in SHORT if chosen.short else FULL:
        if any(asdict(case).items() <= known.items() for known in done):
            continue
        found = measure(case, repeats)
        shown = ", ".join(f"{size}: {value:.2f}" for size, value in found["speedup"].items())  # type: ignore[attr-defined]
        print(f"{case}: {shown}; auto {found['auto']}: {found['auto_speedup']:.2f}", flush=True)
        done.append(found)
        keep("batched_clients", {"steps": STEPS, "repeats": repeats, "cases": done})
    keep("batched_clients", {"steps": STEPS, "repeats": repeats, "cases": done})


if __name__ == "__main__":
    main()
