"""Clients with examples of random tokens, and adapters of their own on one base model."""

import random
from dataclasses import replace
from typing import Any

from hanse.data.example import Example
from hanse.learners.adapted_model import AdaptedModel
from hanse.learners.adapters.lora import Lora
from hanse.learners.backbone import Backbone
from hanse.learners.injection.adapter import Adapter
from hanse.learners.objectives.sft import Sft
from hanse.learners.training.settings import TrainingSettings
from hanse.randomness import RoundContext

SETTINGS = TrainingSettings(learning_rate=0.01, per_device_train_batch_size=4, max_steps=3)


def rows(seed: int, number: int, longest: int = 24) -> list[Example]:
    draw = random.Random(seed)
    ids = [[draw.randrange(250) for _ in range(draw.randint(3, longest))] for _ in range(number)]
    return [Example(tuple(own), tuple(own)) for own in ids]


def choices(seed: int, number: int, words: tuple[tuple[int, ...], ...]) -> list[Example]:
    draw = random.Random(seed)
    return [
        Example(own.ids, (-100,) * len(own), words, draw.randrange(len(words)))
        for own in rows(seed, number)
    ]


def client(
    backbone: Backbone, name: str, examples: list[Example], lora: Adapter | None = None, **own: Any
) -> AdaptedModel:
    adapter = backbone.attach(lora or Lora(r=4), 0)
    objective = own.pop("objective", Sft())
    settings = replace(SETTINGS, **own)
    return AdaptedModel(
        backbone, adapter, {"train": examples}, settings, objective, RoundContext(7, 2, name), 3, {}
    )
