"""Federated averaging as a plain script of PyTorch and PEFT: one client trains after another.

It reads the job that small_clients.py wrote, and does what `hanse run` does with it by default: the
tokens of all rows, so many rounds of training and averaging, the loss of the validation rows after
each round and of the test rows before the first and after the last, the loss of each client's own
rows at the end, and the adapter as a folder of PEFT's. Everything is done as such scripts do it: a
shuffled DataLoader, AdamW, gradients clipped, the model's own loss.
"""

import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from peft import LoraConfig, get_peft_model, get_peft_model_state_dict, set_peft_model_state_dict
from torch import Tensor
from torch.nn.utils import clip_grad_norm_
from torch.optim import AdamW
from torch.utils.data import DataLoader
from transformers import AutoModelForCausalLM, AutoTokenizer

Rows = Sequence[Sequence[int]]
State = dict[str, Tensor]


def read_rows(job: dict[str, Any]) -> list[list[int]]:
    """The tokens of all rows."""
    tokenizer = AutoTokenizer.from_pretrained(job["model"])
    lines = Path(job["rows"]).read_text(encoding="utf-8").splitlines()
    texts = [json.loads(line)["text"] for line in lines]
    ids: list[list[int]] = tokenizer(texts, truncation=True, max_length=job["tokens"])["input_ids"]
    return ids


def train(model: Any, rows: Rows, job: dict[str, Any]) -> int:
    """One client's steps of a round; the tokens that it has trained on."""
    model.train()
    live = [parameter for parameter in model.parameters() if parameter.requires_grad]
    optimizer, tokens = AdamW(live, lr=job["learning_rate"], weight_decay=0.0), 0
    loader = DataLoader(rows, batch_size=job["batch"], shuffle=True, collate_fn=torch.tensor)
    for _, ids in zip(range(job["steps"]), loader, strict=False):
        model(input_ids=ids, attention_mask=torch.ones_like(ids), labels=ids).loss.backward()
        clip_grad_norm_(live, 1.0)
        optimizer.step()
        optimizer.zero_grad()
        tokens += ids.numel()
    return tokens


@torch.no_grad()
def score(model: Any, rows: Rows) -> float:
    """The mean loss of some rows."""
    model.eval()
    total = 0.0
    for ids in DataLoader(rows, batch_size=16, collate_fn=torch.tensor):
        out = model(input_ids=ids, attention_mask=torch.ones_like(ids), labels=ids)
        total += out.loss.item() * len(ids)
    return total / len(rows)


def mean(states: Sequence[State]) -> State:
    """The mean of adapters of clients that have equally many rows."""
    return {name: torch.stack([s[name] for s in states]).mean(dim=0) for name in states[0]}


def main(folder: Path) -> None:
    """Do the job in a folder, and write there what was done."""
    job = json.loads((folder / "job.json").read_text())
    torch.manual_seed(0)
    rows = read_rows(job)
    test, validation = rows[: job["test"]], rows[job["test"] : job["test"] + job["validation"]]
    own = [
        rows[job["test"] + job["validation"] + at :: job["clients"]] for at in range(job["clients"])
    ]
    held = [client[: job["client_test"]] for client in own]
    own = [client[job["client_test"] :] for client in own]
    model = get_peft_model(
        AutoModelForCausalLM.from_pretrained(job["model"]),
        LoraConfig(r=8, lora_alpha=16, target_modules="all-linear", task_type="CAUSAL_LM"),
    )
    world = {name: tensor.clone() for name, tensor in get_peft_model_state_dict(model).items()}
    losses, tokens = [score(model, test)], 0
    for _ in range(job["rounds"]):
        states = []
        for client in own:
            set_peft_model_state_dict(model, world)
            tokens += train(model, client, job)
            states.append({n: t.clone() for n, t in get_peft_model_state_dict(model).items()})
        world = mean(states)
        set_peft_model_state_dict(model, world)
        losses.append(score(model, validation))
    losses += [score(model, test), *(score(model, client) for client in held)]
    model.save_pretrained(folder / "adapter")
    (folder / "done.json").write_text(json.dumps({"tokens": tokens, "losses": losses}))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
