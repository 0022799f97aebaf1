"""Federated fine-tuning on one page, without hanse: what the package does, said naively.

    python examples/fedavg_from_scratch.py MODEL_FOLDER silo-a.jsonl silo-b.jsonl …

Every line of a .jsonl file is {"prompt": …, "completion": …}. FedAvg (McMahan et al. 2017,
1602.05629) over the LoRA adapter of a causal language model: every round each silo trains a copy
of the global adapter on its own examples, and the server takes the mean of the changes, weighted
by how many examples each silo has. A test holds this page equal to the package.
"""

import json
import random
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import torch
from torch.nn.functional import cross_entropy

Example = tuple[list[int], list[int]]  # token ids, and the same with -100 where nothing is learned
Silo = list[Example]
Draw = Callable[[Silo, int, str], Iterator[list[Example]]]


def shuffled(silo: Silo, round: int, name: str, size: int = 4) -> Iterator[list[Example]]:
    """One pass over a silo in batches, in an order that depends on the round and the silo."""
    instruction = random.Random(f"{round}/{name}").sample(silo, len(silo))  # noqa: S311 (no secret)
    for start in range(0, len(instruction), size):
        yield instruction[start : start + size]


def loss(model: torch.nn.Module, batch: list[Example]) -> torch.Tensor:
    """Mean cross-entropy of the learned tokens; position t predicts token t + 1."""
    width = max(len(ids) for ids, _ in batch)
    ids = torch.tensor([row + [0] * (width - len(row)) for row, _ in batch])
    labels = torch.tensor([row + [-100] * (width - len(row)) for _, row in batch])
    mask = torch.tensor([[1] * len(row) + [0] * (width - len(row)) for row, _ in batch])
    logits = model(input_ids=ids, attention_mask=mask).logits  # (batch, width, vocabulary)
    return cross_entropy(logits[:, :-1].flatten(0, 1).float(), labels[:, 1:].flatten())


def train(model: torch.nn.Module, batches: Iterator[list[Example]], rate: float) -> None:
    """Train the adapter in place."""
    trained = [p for p in model.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(trained, rate, weight_decay=0.0)
    for batch in batches:
        loss(model, batch).backward()
        torch.nn.utils.clip_grad_norm_(trained, 1.0)
        optimizer.step()
        optimizer.zero_grad()


def fedavg(
    model: torch.nn.Module,
    silos: dict[str, Silo],
    rounds: int,
    rate: float,
    draw: Draw = shuffled,
) -> dict[str, torch.Tensor]:
    """The global adapter after so many rounds; `model` is a PEFT model, its base frozen."""
    live = {n: p for n, p in model.named_parameters() if p.requires_grad}
    world = {n: p.detach().clone() for n, p in live.items()}
    total = sum(map(len, silos.values()))
    for round in range(1, rounds + 1):
        mean = {n: torch.zeros_like(w, dtype=torch.float64) for n, w in world.items()}
        for name, silo in silos.items():
            for n, p in live.items():
                p.data.copy_(world[n])
            train(model, draw(silo, round, name), rate)
            for n, p in live.items():
                mean[n] += len(silo) / total * (p.detach() - world[n]).double()
        world = {n: w + mean[n].float() for n, w in world.items()}
        print(f"round {round} of {rounds} done", file=sys.stderr)
    for n, p in live.items():
        p.data.copy_(world[n])
    return world


def main(folder: str, files: list[str]) -> None:
    """Read a model and the silos' files, federate, save the adapter."""
    from peft import LoraConfig, get_peft_model
    from transformers import AutoModelForCausalLM, AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(folder)
    silos: dict[str, Silo] = {}
    for file in files:
        for line in Path(file).read_text(encoding="utf-8").splitlines():
            row = json.loads(line)
            asked = tokenizer(row["prompt"]).input_ids
            answer = tokenizer(row["completion"], add_special_tokens=False).input_ids
            answer.append(tokenizer.eos_token_id)
            example = (asked + answer, [-100] * len(asked) + answer)
            silos.setdefault(Path(file).stem, []).append(example)
    base = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    model = get_peft_model(base, LoraConfig(r=8, lora_alpha=16, task_type="CAUSAL_LM"))
    fedavg(model, silos, rounds=3, rate=1e-3)
    model.save_pretrained("adapter")


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2:])
