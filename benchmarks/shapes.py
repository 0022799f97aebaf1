"""Models of known shapes with random weights, clients with random tokens, and rounds of them."""

import random
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from transformers import GPT2Config, GPT2LMHeadModel, LlamaConfig, LlamaForCausalLM

from hanse.data.example import Example
from hanse.learners.adapted_model import AdaptedModel
from hanse.learners.adapters.lora import Lora
from hanse.learners.backbone import Backbone
from hanse.learners.batched_clients import train
from hanse.learners.models.precision import ComputeMode
from hanse.learners.objectives.sft import Sft
from hanse.learners.training.settings import TrainingSettings
from hanse.randomness import RoundContext
from hanse.tensors.named import Tensors

EXAMPLES = 16  # of each client
WORDS = 1000  # tokens are drawn from these


@dataclass(frozen=True)
class Case:
    """So many clients, each with batches of so many rows by so many tokens."""

    shape: str
    clients: int
    batch: int
    tokens: int


def toy() -> torch.nn.Module:
    """A Llama of 4 layers, 128 wide."""
    return LlamaForCausalLM(
        LlamaConfig(
            vocab_size=1024,
            hidden_size=128,
            intermediate_size=344,
            num_hidden_layers=4,
            num_attention_heads=4,
            num_key_value_heads=4,
        )
    )


def gpt2_small() -> torch.nn.Module:
    """The shape of GPT-2 small: 12 layers, 768 wide, 50,257 tokens."""
    return GPT2LMHeadModel(GPT2Config(resid_pdrop=0.0, embd_pdrop=0.0, attn_pdrop=0.0))


def llama_1b() -> torch.nn.Module:
    """The shape of TinyLlama (2401.02385): 22 layers, 2048 wide, 1.1 billion parameters."""
    return LlamaForCausalLM(
        LlamaConfig(
            vocab_size=32000,
            hidden_size=2048,
            intermediate_size=5632,
            num_hidden_layers=22,
            num_attention_heads=32,
            num_key_value_heads=4,
            max_position_embeddings=2048,
        )
    )


SHAPES = {"toy": toy, "gpt2-small": gpt2_small, "llama-1b": llama_1b}


def backbone(shape: str, device: str = "cpu", bf16: bool = False) -> Backbone:
    """A frozen model of a shape on a device, with the same random weights there each time."""
    torch.manual_seed(0)
    place = torch.device(device)
    with place:
        model = SHAPES[shape]().eval().requires_grad_(False)
    if bf16:
        model.to(torch.bfloat16)
    return Backbone(shape, model, None, place, ComputeMode(bf16))


def clients(
    base: Backbone, number: int, batch: int, tokens: int, steps: int
) -> Sequence[AdaptedModel]:
    """Clients with random rows of one length, and LoRA of rank 8 on every linear layer."""
    draw = random.Random(0)
    adapter = base.attach(Lora(r=8, target_modules="all-linear"), 0)
    training = TrainingSettings(max_steps=steps, per_device_train_batch_size=batch)
    found = []
    for index in range(number):
        rows = [tuple(draw.randrange(WORDS) for _ in range(tokens)) for _ in range(EXAMPLES)]
        examples = {"train": [Example(row, row) for row in rows]}
        context = RoundContext(0, 1, f"client-{index}")
        found.append(AdaptedModel(base, adapter, examples, training, Sft(), context, 1, {}))
    return found


def alone(learners: Sequence[AdaptedModel], start: Tensors) -> None:
    """By hanse, one client after another."""
    for learner in learners:
        learner.load(start)
        learner.fit()


def together(learners: Sequence[AdaptedModel], start: Tensors, size: int) -> None:
    """By hanse, so many clients at a time."""
    learners[0].load(start)
    members = [learner.member() for learner in learners]
    for first in range(0, len(members), size):
        train.train(members[first : first + size])
