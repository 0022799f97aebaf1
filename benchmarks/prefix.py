"""What is spared when the frozen layers below the adapters are computed once for each row.

SmolLM2-135M in float32, LoRA (r = 8 on q and v) in the top third of its layers, film reviews of one
silo in batches of 8. Seconds of an epoch of training, and of scoring as many reviews, by a plain
PyTorch + PEFT loop and by hanse without and with the cache; ratios of medians over epochs that
alternate, after one on other reviews, which warms up, and a first one, which fills the cache. All
train from the same adapter on the same batches, so their losses must be equal. Writes
benchmarks/results/prefix.json.
"""

import argparse
import time
from functools import partial
from statistics import median

import torch
from measured import keep
from overhead import QUICKSTART, plain_loss
from plain_model import plain_products

from hanse.experiment.assembly.assemble import simulate
from hanse.experiment.loading import load
from hanse.learners.adapted_model import AdaptedModel
from hanse.learners.training.batch_sampling import sample_batches
from hanse.randomness import RoundContext

SETTINGS = [
    "model.bf16=false",
    f"adapter.lora.layers_to_transform={list(range(20, 30))}",
    "adapter.lora.target_modules=[q_proj, v_proj]",
    "train.num_train_epochs=1",
    "train.per_device_train_batch_size=8",
    "train.lr_scheduler_type=constant",
    "data.test=0",
    "data.validation=0",
    "data.client_test=0",
]
BATCH = 32  # of scoring


def learner(cache: bool, reviews: int) -> AdaptedModel:
    """A silo's learner over its first reviews; the next ones are there to warm up with."""
    simulation = simulate(load(QUICKSTART, [*SETTINGS, f"model.activation_cache={cache}"]))
    examples = simulation.clients["silo-2"].examples["train"]
    splits = {"train": examples[:reviews], "others": examples[reviews : 2 * reviews]}
    context = RoundContext(simulation.experiment.seed, 1, "silo-2")
    return simulation.resources.learner(simulation.experiment, splits, context, {})


def fit(one: AdaptedModel) -> float:
    """Train on every review once; the mean loss."""
    return one.fit().loss


def loop(one: AdaptedModel) -> float:
    """The same steps as people write them: logits everywhere, and a mask for the padding."""
    with plain_products(one.backbone.model):
        return _loop(one)


def _loop(one: AdaptedModel) -> float:
    model, live = one.backbone.activate(one.adapter), list(one.parameters().values())
    optimizer = torch.optim.AdamW(live, one.training.learning_rate, weight_decay=0.0)
    examples, total = one.examples("train"), 0.0
    lengths = [len(example) for example in examples]
    for step in sample_batches(lengths, one.training, one.context):
        batch = [examples[index] for index in step[0]]
        loss = plain_loss(model, batch, labels_only=False)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(live, one.training.max_grad_norm)
        optimizer.step()
        optimizer.zero_grad()
        total += loss.item() * len(batch)
    return total / len(examples)


def score(one: AdaptedModel) -> float:
    """Score every review."""
    examples = one.examples("train")
    with torch.inference_mode():
        for at in range(0, len(examples), BATCH):
            one.scores(one.batch(examples[at : at + BATCH]))
    return 0.0


def main() -> None:
    """Measure epochs in turn, print the median ratios, keep the samples."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--short", action="store_true", help="8 reviews and one epoch")
    short = parser.parse_args().short
    reviews, repeats = (8, 1) if short else (128, 5)
    without, cached = learner(False, reviews), learner(True, reviews)
    own = without.tensors()
    for one in (without, cached):
        one.fit(split="others")
    ways = {
        "loop": partial(loop, without),
        "without": partial(fit, without),
        "with": partial(fit, cached),
        "scoring_without": partial(score, without),
        "scoring_with": partial(score, cached),
    }
    seconds: dict[str, list[float]] = {name: [] for name in ways}
    apart = 0.0
    for number in range(repeats + 1):
        losses = []
        for name, work in ways.items():
            for one in (without, cached):
                one.load(own)
                one.context = RoundContext(0, number, "silo-2")
            start = time.perf_counter()
            losses.append(work())
            seconds[name].append(time.perf_counter() - start)
        apart = max(apart, max(losses[:3]) - min(losses[:3]))
    later = {name: median(samples[1:]) for name, samples in seconds.items()}
    ratios = {
        "over_loop": later["loop"] / later["with"],
        "over_without": later["without"] / later["with"],
        "scoring": later["scoring_without"] / later["scoring_with"],
        "first_epoch": seconds["with"][0] / seconds["without"][0],
    }
    for name, value in {**ratios, "largest_difference_of_losses": apart}.items():
        print(f"{name}: {value:.3g}")
    result = {"reviews": reviews, "seconds": seconds, "ratios": ratios, "losses_apart": apart}
    print(keep("prefix", result))


if __name__ == "__main__":
    main()
