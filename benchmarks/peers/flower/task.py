"""The demo's job as a Flower app has it: model, a silo's reviews, the loop."""

import json
import os
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from peft import LoraConfig, PeftModel, get_peft_model
from torch import Tensor
from torch.nn.functional import cross_entropy
from torch.nn.utils.rnn import pad_sequence
from torch.optim import AdamW
from torch.utils.data import DataLoader
from transformers import AutoModelForCausalLM

FOLDER = Path(os.environ["FLOWER_PEER"])  # where flower_peer.py has put the job
Batch = dict[str, Tensor]


@dataclass(frozen=True)
class Job:
    """What is to be done; words: the tokens of the labels."""

    model: str
    lora: dict[str, Any]
    words: list[int]
    silos: int
    rounds: int
    steps: int
    batch: int
    learning_rate: float


@dataclass(frozen=True)
class Trained:
    """What a silo has done; loss: the mean over its steps, tokens: without padding."""

    loss: float
    steps: int
    tokens: int


def load_job() -> Job:
    """The job, of which all silos are told."""
    return Job(**json.loads((FOLDER / "job.json").read_text()))


def load_data(partition: int, job: Job) -> DataLoader[Any]:
    """A silo's reviews, tokenized already: (ids, label) each."""
    rows = json.loads((FOLDER / f"silo-{partition}.json").read_text())
    return DataLoader(rows, shuffle=True, batch_size=job.batch, collate_fn=collate)


def collate(rows: list[tuple[list[int], int]]) -> Batch:
    """Rows as a batch, padded on the right."""
    ids = [torch.tensor(own) for own, _ in rows]
    return {
        "input_ids": pad_sequence(ids, batch_first=True),
        "attention_mask": pad_sequence([torch.ones_like(own) for own in ids], batch_first=True),
        "labels": torch.tensor([label for _, label in rows]),
    }


def get_model(job: Job) -> PeftModel:
    """The base model from disk in float32, and a fresh adapter."""
    model = AutoModelForCausalLM.from_pretrained(job.model, dtype=torch.float32)
    model.config.use_cache = False
    return get_peft_model(model, LoraConfig(task_type="CAUSAL_LM", **job.lora))


def train(model: PeftModel, loader: Iterable[Batch], job: Job) -> Trained:
    """Optimizer steps of one round."""
    live = [parameter for parameter in model.parameters() if parameter.requires_grad]
    optimizer = AdamW(live, lr=job.learning_rate, weight_decay=0.0)
    words = torch.tensor(job.words)
    model.train()
    running, steps, tokens = 0.0, 0, 0
    for batch in loader:
        logits = model(input_ids=batch["input_ids"], attention_mask=batch["attention_mask"]).logits
        lengths = batch["attention_mask"].sum(dim=1)
        last = logits[torch.arange(len(lengths)), lengths - 1]
        loss = cross_entropy(last[:, words], batch["labels"])
        loss.backward()
        torch.nn.utils.clip_grad_norm_(live, 1.0)
        optimizer.step()
        optimizer.zero_grad()
        running += loss.item()
        tokens += int(lengths.sum())
        steps += 1
        if steps >= job.steps:
            break
    return Trained(running / steps, steps, tokens)
