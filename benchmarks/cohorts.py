"""Many clients in one forward pass: how much faster than one after another?

Each case is a round of so many clients of so many rows by so many tokens, trained three ways in
turn: by PEFT's own layers one after another (`cohort: off`), in cohorts of each size, and in the
size that `cohort: auto` takes. Ratios of wall-clock seconds to the first, medians over repeats.

Gates: the size that auto takes is never slower than 0.98 of one after another; 2.5 times as fast
with 16 clients of 1 × 32, 1.2 times with 8 of 2 × 64 (toy shape).
"""

import argparse
import json
import statistics
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass

import shapes
from measured import RESULTS, clock, keep, ratio

from hanse.learners import cohort
from hanse.learners.causal_lm import CausalLM
from hanse.learners.cohort_size import best

STEPS = 4  # optimizer steps of each client
SIZES = (1, 2, 4, 8, 16, 32, 64)


@dataclass(frozen=True)
class Case:
    """So many clients, each with batches of so many rows by so many tokens."""

    shape: str
    clients: int
    batch: int
    tokens: int


SHORT = [Case("toy", 16, 1, 32), Case("toy", 8, 2, 64), Case("toy", 8, 8, 64)]
FULL = [
    *(Case("toy", number, *size) for size in ((1, 32), (2, 64), (8, 64)) for number in (4, 8, 16)),
    *(Case("toy", 64, *size) for size in ((1, 32), (2, 64))),
    Case("gpt2-small", 4, 1, 32),
    Case("gpt2-small", 16, 1, 32),
    Case("gpt2-small", 4, 4, 64),
]


def measure(case: Case, repeats: int) -> dict[str, object]:
    """One case; seconds of each way by repeat, and their ratios."""
    base = shapes.backbone(case.shape)
    learners = shapes.clients(base, case.clients, case.batch, case.tokens, STEPS)
    start = learners[0].tensors()
    sizes = [size for size in SIZES if size <= case.clients]

    def alone() -> None:
        for learner in learners:
            learner.load(start)
            learner.fit()

    def together(size: int) -> Callable[[], None]:
        def work() -> None:
            learners[0].load(start)
            members = [learner.member() for learner in learners]
            for first in range(0, len(members), size):
                cohort.train(members[first : first + size])

        return work

    ways = {"off": alone, **{str(size): together(size) for size in sizes}}
    seconds: dict[str, list[float]] = {name: [] for name in ways}
    for _ in range(repeats):
        for name, work in ways.items():
            seconds[name].append(clock(work))
    speedup = {name: ratio(seconds["off"], own) for name, own in seconds.items()}
    chosen = [size_of(learners, start) for _ in range(repeats)]
    taken = str(min(sizes, key=lambda size: abs(size - statistics.median(chosen))))
    return {
        **asdict(case),
        "seconds": seconds,
        "speedup": speedup,
        "auto": chosen,
        "auto_speedup": speedup[taken],
        "auto_speedup_over_1": ratio(seconds["1"], seconds[taken]),
    }


def size_of(learners: Sequence[CausalLM], start: object) -> int:
    """What auto takes in a long run."""
    learners[0].load(start)  # type: ignore[arg-type]
    return best([learner.member() for learner in learners], 1_000_000)


def main() -> None:
    """Measure all cases, print a line for each, keep the samples; a case that is there is kept."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--short", action="store_true", help="three cases; about a minute")
    parser.add_argument("--again", action="store_true", help="forget what was measured before")
    chosen = parser.parse_args()
    file = RESULTS / "cohorts.json"
    done = [] if chosen.again or not file.exists() else json.loads(file.read_text())["cases"]
    for case in SHORT if chosen.short else FULL:
        if any(asdict(case).items() <= known.items() for known in done):
            continue
        found = measure(case, chosen.repeats)
        shown = ", ".join(f"{size}: {value:.2f}" for size, value in found["speedup"].items())  # type: ignore[attr-defined]
        print(f"{case}: {shown}; auto {found['auto']}: {found['auto_speedup']:.2f}", flush=True)
        done.append(found)
        keep("cohorts", {"steps": STEPS, "repeats": chosen.repeats, "cases": done})


if __name__ == "__main__":
    main()
