"""A round by each kernel ends in the adapter that transformers' and PEFT's own layers end in."""

from typing import Any

import pytest
import torch

from clients import client, rows
from hanse.learners.adapters.lora import Lora
from hanse.learners.kernels import frozen
from hanse.learners.load import load
from hanse.learners.models.settings import BaseModelSettings
from learners.batched_clients.test_train import alone, moved, together

KERNELS = frozen.kernels(torch.device("cpu"))
# AdamW divides by the size of a gradient, which makes rounding visible where that is nearly zero.
NEAR = {"sgd": 1e-6, "adamw": 5e-5}


@pytest.mark.parametrize("folder", ["tiny_llama", "tiny_gpt2"])
@pytest.mark.parametrize("optim", NEAR)
@pytest.mark.parametrize("products", KERNELS)
def test_a_round_is_that_of_the_plain_layers(
    products: Any,
    optim: str,
    folder: str,
    request: pytest.FixtureRequest,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(frozen, "SMALLEST", 1)
    place = str(request.getfixturevalue(folder))
    lora = Lora(r=4, target_modules="all-linear")

    def clients(kernel: Any) -> list[Any]:
        base = load(BaseModelSettings(place, bf16=False, device="cpu", products=kernel))
        return [client(base, f"c{n}", rows(n, 12), lora, optim=optim) for n in range(3)]

    plain = clients("plain")
    starts = [moved(learner, index) for index, learner in enumerate(plain)]
    expected = alone(plain, starts)[0]
    for train in (alone, together):
        for tensors, wanted in zip(train(clients(products), starts)[0], expected, strict=True):
            for name, tensor in wanted.items():
                torch.testing.assert_close(tensors[name], tensor, atol=NEAR[optim], rtol=0)
