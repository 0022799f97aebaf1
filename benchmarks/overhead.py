"""What hanse costs beside a plain loop, and what labels-only logits save.

Two questions, each answered by ratios within one run, medians over repeats that alternate:

1. CPU seconds of a federated run in process ÷ a plain PyTorch + PEFT loop that does the same steps,
   one client after another: once with logits at every position, as such loops are written, and
   once with logits only where there is a label, so that nothing but hanse's own work differs.
2. Steps per second with logits only at labelled positions ÷ at every position, batch 4 × 128.
"""

import argparse
import statistics
import tempfile
import time
from collections.abc import Callable, Sequence
from operator import truediv
from pathlib import Path
from typing import Any

import torch
from measured import keep
from plain_model import plain_products
from torch.nn.functional import cross_entropy

from hanse.data.example import IGNORED, Example
from hanse.experiment.assembly.assemble import Simulation, simulate
from hanse.experiment.loading import load
from hanse.experiment.schema import Experiment
from hanse.federation.server import rounds
from hanse.journal import yaml_text
from hanse.journal.checkpoints import latest
from hanse.journal.run_folder import Journal
from hanse.learners.adapted_model import AdaptedModel
from hanse.learners.objectives.sft import Sft
from hanse.learners.training.batch_sampling import sample_batches
from hanse.learners.training.batches import collate
from hanse.learners.training.settings import TrainingSettings
from hanse.randomness import RoundContext
from hanse.simulation.in_process import in_process
from hanse.tensors.named import Tensors, norm, subtract

QUICKSTART = Path(__file__).parent.parent / "experiments" / "quickstart.yaml"
JOB = [
    "rounds=1",
    "algorithm=fedavg",
    "train.num_train_epochs=null",
    "train.max_steps=3",
    "train.lr_scheduler_type=constant",
    "train.per_device_train_batch_size=8",
    "data.test=0",
    "data.validation=0",
    "data.client_test=0",
]
Order = Callable[
    [Sequence[int], TrainingSettings, RoundContext], list[list[list[int]]]
]  # as `sample_batches`


def ours(simulation: Simulation, start: Tensors) -> Tensors:
    """The run as `hanse run` does it, up to the last checkpoint; the global adapter."""
    simulation.learner.load(start)
    with tempfile.TemporaryDirectory() as folder:
        journal = Journal(Path(folder))
        for _ in rounds(simulation.run(journal, in_process(simulation, journal.folder))):
            pass
        journal.close()
        checkpoint = latest(Path(folder))
    assert checkpoint is not None
    return checkpoint.groups["algorithm.model"]


def plain(
    simulation: Simulation, start: Tensors, labels_only: bool, order: Order = sample_batches
) -> Tensors:
    """The same steps by a loop of PyTorch and PEFT alone; its adapter.

    order: makes the batches; as it is, those of hanse.
    """
    with plain_products(simulation.learner.backbone.model):
        return _plain(simulation, start, labels_only, order)


def _plain(simulation: Simulation, start: Tensors, labels_only: bool, order: Order) -> Tensors:
    learner, experiment = simulation.learner, simulation.experiment
    model = learner.backbone.activate(learner.adapter)
    live, rate = dict(learner.parameters()), experiment.train.learning_rate
    world = {name: start[name].clone() for name in live}
    held = sum(len(silo.examples["train"]) for silo in simulation.clients.values())
    for number in range(1, experiment.rounds + 1):
        change = {key: torch.zeros_like(tensor) for key, tensor in world.items()}
        for name, silo in simulation.clients.items():
            examples = silo.examples["train"]
            for key, parameter in live.items():
                parameter.data.copy_(world[key])
            optimizer = torch.optim.AdamW(live.values(), rate, weight_decay=0.0)
            context = RoundContext(experiment.seed, number, name)
            lengths = [len(example) for example in examples]
            model.train()
            for step in order(lengths, experiment.train, context):
                batch = [examples[index] for index in step[0]]
                with learner.backbone.autocast():
                    loss = plain_loss(model, batch, labels_only)
                loss.backward()
                torch.nn.utils.clip_grad_norm_(live.values(), 1.0)
                optimizer.step()
                optimizer.zero_grad()
            for key, parameter in live.items():
                change[key] += len(examples) / held * (parameter.detach() - world[key])
        world = {key: tensor + change[key] for key, tensor in world.items()}
    model.eval()
    return world


def plain_loss(model: Any, batch: list[Example], labels_only: bool) -> torch.Tensor:
    """The classification loss over the label words, with a padding mask as usual."""
    width = max(map(len, batch))
    ids = torch.tensor([list(e.ids) + [0] * (width - len(e)) for e in batch])
    mask = torch.tensor([[1] * len(e) + [0] * (width - len(e)) for e in batch])
    last = torch.tensor([len(e) - 1 for e in batch])
    rows = torch.arange(len(batch))
    if labels_only:
        hidden = model.base_model.model.model(input_ids=ids, attention_mask=mask, use_cache=False)
        logits = model.get_output_embeddings()(hidden.last_hidden_state[rows, last])
    else:
        out = model(input_ids=ids, attention_mask=mask, use_cache=False)
        logits = out.logits[rows, last]
    words = torch.tensor([choice[0] for choice in batch[0].choices])
    return cross_entropy(logits[:, words].float(), torch.tensor([e.choice for e in batch]))


def steps_a_second(learner: AdaptedModel, labels_only: bool, steps: int) -> float:
    """Training steps of batch 4 × 128 of which the last 16 tokens of each row are labelled."""
    ids = tuple(RoundContext(0).generator("ids").get_state()[:128].tolist())
    labels = (IGNORED,) * 112 + ids[112:]
    batch = collate([Example(ids, labels)] * 4, learner.backbone.device)
    model = learner.backbone.activate(learner.adapter)
    live = list(learner.parameters().values())
    optimizer = torch.optim.AdamW(live)
    start = time.perf_counter()
    for _ in range(steps):
        if labels_only:
            loss = Sft().loss(learner, batch)
        else:
            with learner.backbone.autocast():
                logits = model(input_ids=batch.ids, use_cache=False).logits
            loss = cross_entropy(logits.flatten(0, 1)[batch.at].float(), batch.targets)
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
    return steps / (time.perf_counter() - start)


def cpu_seconds(work: Callable[[], Tensors]) -> float:
    """CPU seconds of all threads of this process during `work`."""
    start = time.process_time()
    work()
    return time.process_time() - start


def distance(a: Tensors, b: Tensors, start: Tensors) -> float:
    """How far two adapters are apart, as a share of how far `a` has moved from `start`."""
    return norm(subtract(a, b)) / norm(subtract(a, start))


def main() -> None:
    """Measure both, print the medians, keep the samples."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--bf16", default="auto", help="auto, true or false")
    chosen = parser.parse_args()
    experiment: Experiment = load(QUICKSTART, [*JOB, f"model.bf16={chosen.bf16}"])
    simulation = simulate(experiment)
    start = simulation.learner.tensors()
    ways = {
        "ours": lambda: ours(simulation, start),
        "plain": lambda: plain(simulation, start, labels_only=False),
        "plain_labels_only": lambda: plain(simulation, start, labels_only=True),
    }
    ended = {name: work() for name, work in ways.items()}  # warm up, and see that all do the same
    apart = {name: distance(ended["ours"], adapter, start) for name, adapter in ended.items()}
    print("relative distance from ours:", apart)
    cpu: dict[str, list[float]] = {name: [] for name in ways}
    speed: dict[str, list[float]] = {"labels_only": [], "all_positions": []}
    for repeat in range(chosen.repeats):
        for name, work in ways.items():
            cpu[name].append(cpu_seconds(work))
        for name in speed:
            speed[name].append(steps_a_second(simulation.learner, name == "labels_only", 4))
        print(f"repeat {repeat + 1} of {chosen.repeats} done", flush=True)
    ratios = {
        f"ours_over_{name}": statistics.median(
            a / b for a, b in zip(cpu["ours"], cpu[name], strict=True)
        )
        for name in ("plain", "plain_labels_only")
    }
    faster = list(map(truediv, speed["labels_only"], speed["all_positions"]))
    result = {
        "bf16": simulation.learner.backbone.bf16,
        "relative_distance_from_ours": apart,
        "cpu_seconds": cpu,
        "cpu_ratio": ratios,
        "steps_a_second_4x128": speed,
        "labels_only_speedup": statistics.median(faster),
    }
    print(yaml_text.dump({**ratios, "labels_only_speedup": statistics.median(faster)}))
    print(keep("overhead", result))


if __name__ == "__main__":
    main()
