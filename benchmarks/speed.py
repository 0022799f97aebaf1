"""The demo's job, SmolLM2 on film reviews, by hanse as it comes and by a plain loop in float32.

One round of four silos with batches of eight, the same reviews in the same order for all ways,
which take turns:

plain        Hugging Face and PEFT in float32, one client after another: a padding mask, and logits
             at every position, as such loops are written
float32      hanse in the same precision, one client after another
one by one   hanse in the precision that it chooses on this machine, `cohort: off`
as it comes  the same with `cohort: auto`, the round's messages, journal and all

Tokens a second by the wall clock, as ratios to the plain loop, medians over repeats. Gate: as it
comes, at least twice the plain loop where the processor has bfloat16, elsewhere 1.3 times.
"""

import argparse

from measured import clock, keep, ratio
from overhead import JOB, QUICKSTART, ours, plain

from hanse.assembly import simulate
from hanse.cohorts import decided
from hanse.loading import load

WAYS = {
    "plain": ["model.bf16=false", "cohort=off"],
    "float32": ["model.bf16=false", "cohort=off"],
    "one by one": ["cohort=off"],
    "as it comes": ["cohort=auto"],
}


def main() -> None:
    """Measure all ways in turn, print the ratios, keep the samples."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--short", action="store_true", help="one step of each silo")
    chosen = parser.parse_args()
    words = [*JOB, *(["train.max_steps=1"] if chosen.short else [])]
    made = {n: decided(simulate(load(QUICKSTART, [*words, *own]))) for n, own in WAYS.items()}
    starts = {name: simulation.learner.tensors() for name, simulation in made.items()}

    def work(name: str) -> object:
        if name == "plain":
            return plain(made[name], starts[name], labels_only=False)
        return ours(made[name], starts[name])

    seconds: dict[str, list[float]] = {name: [] for name in WAYS}
    for repeat in range(1 + chosen.repeats):
        for name in WAYS:
            spent = clock(lambda name=name: work(name))  # type: ignore[misc]
            if repeat:  # the first time, libraries prepare themselves
                seconds[name].append(spent)
        print(f"repeat {repeat} of {chosen.repeats} done", flush=True)
    ratios = {name: ratio(seconds["plain"], own) for name, own in seconds.items()}
    last = made["as it comes"]
    result = {
        "seconds": seconds,
        "speedup": ratios,
        "bf16": last.learner.backbone.bf16,
        "plain_attention": last.learner.backbone.plain_attention,
        "cohort": last.experiment.cohort,
    }
    print(ratios)
    print(keep("speed", result))


if __name__ == "__main__":
    main()
