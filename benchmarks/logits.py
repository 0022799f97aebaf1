"""What labels-only logits save in full precision, with adapters on the query and value matrices.

Steps per second of SmolLM2-135M at batch 4 × 128 with 16 labels a row: logits only where there is
a label ÷ at every position; float32, LoRA r = 8 on q and v. Writes benchmarks/results/logits.json.
(benchmarks/overhead.py has the same ratio for the demo's own settings.)
"""

import statistics
from operator import truediv

from measured import keep
from overhead import JOB, QUICKSTART, steps_a_second

from hanse.experiment.assembly.assemble import simulate
from hanse.experiment.loading import load

SETTINGS = ["model.bf16=false", "adapter.lora.target_modules=[q_proj, v_proj]"]


def main() -> None:
    """Measure five times in turn, print the median ratio, keep the samples."""
    learner = simulate(load(QUICKSTART, [*JOB, *SETTINGS])).learner
    speed: dict[str, list[float]] = {"labels_only": [], "all_positions": []}
    for _ in range(5):
        for name in speed:
            speed[name].append(steps_a_second(learner, name == "labels_only", 2))
    ratio = statistics.median(map(truediv, speed["labels_only"], speed["all_positions"]))
    print(f"labels_only_speedup: {ratio:.3f}")
    print(keep("logits", {"steps_a_second_4x128": speed, "labels_only_speedup": ratio}))


if __name__ == "__main__":
    main()
