"""FedKD's loss of hidden states and attention, over layers of unequal models, written out."""

from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn import Parameter

from hanse.errors import UserError
from hanse.federation.algorithms.fedkd import MutualDistillation

LABELS, CLASSES, TOKENS = 3, 5, 7
BATCH = SimpleNamespace(choices=0, items=LABELS, targets=torch.tensor([0, 3, 4]))


@dataclass
class Outputs:
    """A model's outputs for any batch, which are its parameters."""

    layers: int
    width: int
    heads: int
    models: dict[str, "Outputs"] = field(default_factory=dict)

    def __post_init__(self) -> None:
        draw = torch.Generator().manual_seed(self.layers)
        sizes = {
            "logits": (LABELS, CLASSES),
            "states": (self.layers + 1, LABELS, self.width),
            "maps": (self.layers, LABELS, self.heads, TOKENS),
        }
        self.drawn = {
            name: torch.rand(size, generator=draw, dtype=torch.float64).requires_grad_()
            for name, size in sizes.items()
        }

    def forward(self, batch: Any) -> Tensor:
        return self.drawn["logits"]

    def hidden_states(self, batch: Any) -> Tensor:
        return self.drawn["states"]

    def attentions(self, batch: Any) -> Tensor:
        return self.drawn["maps"]


def loss(mentee: Any, **terms: Any) -> Tensor:
    return MutualDistillation(distill=False, **terms).loss(mentee, BATCH)


def test_pairs_of_layers_are_compared_through_one_projection() -> None:
    mentor = Outputs(layers=4, width=6, heads=2)
    mentee = Outputs(layers=2, width=4, heads=2, models={"mentor": mentor})
    w = Parameter(torch.rand(6, 4, dtype=torch.float64))
    plain = loss(mentee)  # CEₜ + CEₛ, which is Z
    theirs, own = mentor.drawn, mentee.drawn
    pairs = [(2, 1), (4, 2)]  # 4 // 2 layers further down each
    hidden = [(theirs["states"][t] - own["states"][s] @ w.T).square().mean() for t, s in pairs]
    expected = plain + (hidden[0] + hidden[1]) / 2 / plain.detach()
    torch.testing.assert_close(loss(mentee, hidden=True, projection=w), expected)
    maps = [(theirs["maps"][t - 1] - own["maps"][s - 1]).square().sum(2).mean() for t, s in pairs]
    expected = expected + (maps[0] + maps[1]) / 2 / plain.detach()
    found = loss(mentee, hidden=True, attention=True, projection=w)
    torch.testing.assert_close(found, expected)
    learned = [w, *theirs.values(), *own.values()]
    slopes = torch.autograd.grad(found, learned, retain_graph=True)
    for slope, by_hand in zip(slopes, torch.autograd.grad(expected, learned), strict=True):
        torch.testing.assert_close(slope, by_hand)
        assert float(slope.abs().max()) > 0


def test_unequal_numbers_of_heads_are_refused() -> None:
    mentee = Outputs(layers=2, width=4, heads=1, models={"mentor": Outputs(4, 4, 2)})
    with pytest.raises(UserError, match=r"have 2 and 1 heads .*attention_maps to false"):
        loss(mentee, attention=True)
