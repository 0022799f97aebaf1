"""The method of a run: the layouts that its transforms begin with."""

from dataclasses import dataclass
from typing import ClassVar

import pytest
import torch

from hanse.federation.aggregators.mean import Mean
from hanse.federation.algorithms.fedavg import FedAvg
from hanse.federation.algorithms.ffa_lora import FFALoRA
from hanse.federation.algorithms.rolora import RoLoRA
from hanse.federation.algorithms.scaffold import Scaffold
from hanse.federation.compression.identity import Identity
from hanse.federation.interfaces.algorithm import Algorithm
from hanse.federation.interfaces.results import State
from hanse.federation.messages import ClientProfile
from hanse.federation.method import Method
from hanse.federation.pipeline import Pipeline, Pipelines
from hanse.randomness import RoundContext
from hanse.tensors.low_rank import A, B
from hanse.tensors.named import Bounded, Layout, Tensors, layout

MODEL = {"a" + A: torch.zeros(2, 4), "a" + B: torch.zeros(3, 2)}
PROFILES = [ClientProfile(name, 8) for name in ("c0", "c1", "c2")]
ROUNDS = [RoundContext(0, round) for round in range(1, 6)]


@dataclass(frozen=True)
class Seeing(Identity):
    """Begins with a state of the names that it is given."""

    linear: ClassVar[bool] = True

    def init(self, expected: Layout) -> Tensors:
        return dict.fromkeys(expected, torch.zeros(1))


class InTheEnd(FedAvg):
    """Sends less in the last round."""

    def update_layout(self, state: State, profile: ClientProfile, context: RoundContext) -> Layout:
        part = "" if context.round < 5 else A
        return layout({name: t for name, t in state["model"].items() if name.endswith(part)})


class Unequal(FedAvg):
    """The last client sends less than the others."""

    def update_layout(self, state: State, profile: ClientProfile, context: RoundContext) -> Layout:
        part = "" if profile.name != "c2" else A
        return layout({name: t for name, t in state["model"].items() if name.endswith(part)})


class AtMost(FedAvg):
    """Sends a part of each tensor under another name."""

    def update_layout(self, state: State, profile: ClientProfile, context: RoundContext) -> Layout:
        return {"rows/" + name: Bounded(form) for name, form in layout(state["model"]).items()}


def seen(algorithm: Algorithm) -> tuple[set[str], set[str]]:
    """The names that transforms of the upload and of the download begin with."""
    both = Pipelines(*(Pipeline(way, (Seeing(),)) for way in ("upload", "download")))
    state = {"model": MODEL, "control": MODEL}
    states = Method(algorithm, Mean(), both).init_transforms(state, PROFILES, ROUNDS)
    return {*states["upload.0"]}, {*states["download.0"]}


def test_transforms_of_the_upload_begin_with_the_layout_of_updates() -> None:
    assert seen(FFALoRA()) == ({"a" + B}, {*MODEL})
    names = {f"{part}/{name}" for part in ("model", "control") for name in MODEL}
    assert seen(Scaffold()) == (names, {*MODEL})


@pytest.mark.parametrize("algorithm", [RoLoRA(), InTheEnd(), Unequal(), AtMost()])
def test_where_updates_are_unlike_they_begin_with_the_models(algorithm: Algorithm) -> None:
    assert seen(algorithm) == ({*MODEL}, {*MODEL})


def test_a_method_without_transforms_asks_for_no_layout() -> None:
    class Silent(FedAvg):
        def update_layout(self, *place: object) -> Layout:
            raise AssertionError

    assert Method(Silent(), Mean()).init_transforms({"model": MODEL}, PROFILES, ROUNDS) == {}
