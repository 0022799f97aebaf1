"""How well does `hanse plan` know a step? Eight probes, and twelve settings that were not probed.

The probes are those that a plan makes on this machine, without its limit of time. Three times
twelve settings are drawn by chance from the rows of a batch, lengths, ranks and depths that a plan
chooses from, and measured in the same way: seconds of the fastest of two steps, and the process's
peak of memory. The error of seconds is the mean one of a setting, relative to what was measured,
and order the rank correlation. Memory is what the process holds before a step, and what the step
adds.
Writes benchmarks/results/step_prediction.json.
"""

import argparse
import random
import statistics
from collections.abc import Iterator, Sequence
from typing import Any

import many_runs  # noqa: F401  one thread, before torch is imported
from measured import ROOT, keep
from scipy.stats import spearmanr

from hanse.data.example import Example
from hanse.experiment.assembly.assemble import simulate
from hanse.experiment.loading import load
from hanse.learners.adapted_model import AdaptedModel
from hanse.observability.memory import held_memory, release
from hanse.planning.fedpipe import step_probes
from hanse.planning.fedpipe.cost_model import StepSetting
from hanse.planning.fedpipe.importance_round import model_name
from hanse.tensors import low_rank

MODELS = {"minilm-l6": "planned", "smollm2-135m": "quickstart"}  # and an experiment of each
PLAIN = ("clients={}", "devices={}", "model.bf16=false")
ROWS, RANK, UNSEEN, SEEDS = 16, 16, 12, (1, 2, 3)  # rows: the most of a batch; rank: the largest


def drawn(rows: Sequence[Example], depth: int, seed: int) -> Iterator[StepSetting]:
    """Settings by chance; rows: all, of whose lengths these are."""
    dice = random.Random(seed)
    for _ in range(UNSEEN):
        length = len(dice.choice(rows))
        yield StepSetting(
            dice.randint(1, ROWS), length, dice.choice((1, 2, 4, 8, RANK)), dice.randint(1, depth)
        )


def judged(learner: AdaptedModel, seeds: Sequence[int]) -> dict[str, Any]:
    """One model: what is predicted from probes beside what is measured."""
    layers = low_rank.layers(learner.tensors())
    names = sorted(model_name(tensor) for tensor in layers)
    rows = sorted(learner.examples("train"), key=len)
    depth = step_probes.layer_count(learner.backbone)
    model = step_probes.measured(learner, names, ROWS, RANK, limit=float("inf"))
    settings = [setting for seed in seeds for setting in drawn(rows, depth, seed)]
    steps = []
    for setting in settings:
        release()
        held = held_memory()
        step = step_probes.probe(learner, names, rows, setting, count=False)
        steps.append(
            {
                **step.setting._asdict(),
                "seconds": step.seconds,
                "predicted_seconds": model.seconds(step.setting),
                "memory": None if step.peak is None else held + step.peak,
                "predicted_memory": held + model.bytes(step.setting),
            }
        )
    return {"probes": model.probes, "left_out": model.cost.error, **summary(steps), "steps": steps}


def summary(steps: Sequence[dict[str, Any]]) -> dict[str, float]:
    """The errors over all settings; memory: predicted ÷ measured, the least and the largest."""
    pairs = [(step["predicted_seconds"], step["seconds"]) for step in steps]
    memory = [s["predicted_memory"] / s["memory"] for s in steps if s["memory"] is not None]
    return {
        "error": statistics.fmean(abs(own / real - 1) for own, real in pairs),
        "largest_error": max(abs(own / real - 1) for own, real in pairs),
        "order": float(spearmanr(*zip(*pairs, strict=True)).statistic),
        "least_memory": min(memory),
        "largest_memory": max(memory),
    }


def main() -> None:
    """Measure both models, print a line for each, keep all steps."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--short", action="store_true", help="the small model, one draw")
    short = parser.parse_args().short
    found = {}
    for name, experiment in list(MODELS.items())[: 1 if short else None]:
        file = ROOT / "experiments" / f"{experiment}.yaml"
        simulation = simulate(load(file, [*PLAIN, f"model.model_name_or_path={name}"]))
        largest = max(simulation.clients.values(), key=lambda c: c.learner.row_count("train"))
        found[name] = judged(largest.learner, SEEDS[: 1 if short else None])
        told = {key: f"{value:.3g}" for key, value in found[name].items() if key != "steps"}
        print(name, told)
    keep("step_prediction", {"rows": ROWS, "rank": RANK, "models": found})


if __name__ == "__main__":
    main()
