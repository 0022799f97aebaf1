"""Lists of codecs as they are used: top_k, then int8, then zstd, with error feedback around all."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import ClassVar

import pytest
import torch

from hanse.errors import UserError
from hanse.federation.compression.identity import Identity
from hanse.federation.compression.int8 import Int8
from hanse.federation.compression.nf4 import NF4
from hanse.federation.compression.rand_k import RandK
from hanse.federation.compression.top_k import TopK
from hanse.federation.compression.zstd import Zstd
from hanse.federation.interfaces.transform import Transform
from hanse.federation.messages import Reply, Update, validate_update
from hanse.federation.pipeline import Pipeline
from hanse.randomness import RoundContext
from hanse.tensors.named import Tensors, add, layout
from hanse.tensors.serialization import MessageError

LIST = (TopK(share=0.1), Int8(), Zstd())
NUMBERS = {"loss": 1.0, "steps": 20.0}


def smollm2() -> dict[str, tuple[int, int]]:
    """LoRA of rank 8 on all matrices of SmolLM2-135M: 420 tensors."""
    matrices = {
        "q_proj": (576, 576),
        "k_proj": (576, 192),
        "v_proj": (576, 192),
        "o_proj": (576, 576),
    }
    wide = {"gate_proj": (576, 1536), "up_proj": (576, 1536), "down_proj": (1536, 576)}
    places = {f"self_attn.{n}": s for n, s in matrices.items()}
    return lora("model.model.layers", 30, places | {f"mlp.{n}": s for n, s in wide.items()})


def minilm() -> dict[str, tuple[int, int]]:
    """LoRA of rank 8 on the queries and values of MiniLM-L6: 24 tensors."""
    places = {f"attention.self.{name}": (384, 384) for name in ("query", "value")}
    return lora("model.encoder.layer", 6, places)


def lora(
    path: str, layers: int, matrices: dict[str, tuple[int, int]]
) -> dict[str, tuple[int, int]]:
    """The names and shapes of LoRA's factors of rank 8."""
    return {
        f"base_model.{path}.{layer}.{name}.lora_{half}.weight": shape
        for layer in range(layers)
        for name, (inputs, outputs) in matrices.items()
        for half, shape in (("A", (8, inputs)), ("B", (outputs, 8)))
    }


def update(shapes: dict[str, tuple[int, int]], seed: int = 0) -> dict[str, torch.Tensor]:
    draw = torch.Generator().manual_seed(seed)
    return {name: torch.randn(shape, generator=draw) / 100 for name, shape in shapes.items()}


def message_bytes(codecs: Sequence[Transform], tensors: Tensors) -> int:
    pipeline = Pipeline("upload", tuple(codecs))
    states = pipeline.init(layout(tensors))
    encoded = pipeline.encode(Update(tensors, NUMBERS), {}, states, RoundContext(0, 1, "silo-1"))
    validate_update(encoded, pipeline.layout(layout(tensors), states))
    return len(Reply("silo-1", "train", 1, encoded).pack())


@pytest.mark.parametrize("model", [smollm2, minilm])
def test_one_percent_of_the_numbers_takes_few_bytes(
    model: Callable[[], dict[str, tuple[int, int]]],
) -> None:
    tensors = update(model())
    whole = message_bytes((), tensors)
    assert whole > 4 * sum(tensor.numel() for tensor in tensors.values())
    assert message_bytes([TopK()], tensors) <= 0.03 * whole
    assert message_bytes([RandK()], tensors) <= 0.015 * whole
    assert message_bytes([TopK(), Int8(), Zstd()], tensors) <= 0.01 * whole
    assert message_bytes([TopK(), NF4(), Zstd()], tensors) <= 0.007 * whole


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("codecs", [LIST, (RandK(share=0.1), Zstd()), (TopK(share=0.1),)])
def test_what_was_sent_and_what_is_owed_are_all_updates(
    codecs: tuple[Transform, ...], dtype: torch.dtype
) -> None:
    """Multiples of 2⁻¹⁰ and of a float32 step add up without rounding in float64."""
    pipeline = Pipeline("upload", codecs, error_feedback=True)
    draw, memory = torch.Generator().manual_seed(0), dict[str, dict[str, torch.Tensor]]()
    shapes = {"a": (40, 30), "b": (17,)}
    states = pipeline.init(
        {n: torch.empty(s, dtype=dtype, device="meta") for n, s in shapes.items()}
    )
    total: Tensors = {name: torch.zeros(shape, dtype=dtype) for name, shape in shapes.items()}
    received = total
    for number in range(1, 12):
        context = RoundContext(0, number, "silo-1")
        tensors = {
            name: (torch.randn(shape, generator=draw, dtype=dtype) * 1024).round() / 1024
            for name, shape in shapes.items()
        }
        encoded = pipeline.encode(Update(tensors), memory, states, context)
        decoded = pipeline.decode(encoded, states, context, layout(tensors)).tensors
        total, received = add(total, tensors), add(received, decoded)
    balance = add(received, memory["upload.feedback"])
    for name in shapes:
        if dtype == torch.float64:
            assert torch.equal(balance[name], total[name])
        else:
            assert torch.allclose(balance[name], total[name], rtol=0, atol=1e-5)
        # Not because all was sent.
        assert float(memory["upload.feedback"][name].abs().max()) > 0.1


def test_an_inner_message_of_a_stranger_is_refused() -> None:
    """What zstd unpacks is no better than what came."""
    tensors = {"w": torch.randn(1000, generator=torch.Generator().manual_seed(0))}
    context, expected = RoundContext(0, 1, "a"), layout(tensors)
    pipeline = Pipeline("upload", LIST)
    inner = Pipeline("upload", LIST[:2]).encode(Update(tensors), {}, {}, context).tensors
    wrong = {
        "one missing": {n: t for n, t in inner.items() if n != "int8.scales"},
        "other floats": tensors,
        "places": {**inner, "top_k.gaps": torch.full_like(inner["top_k.gaps"], -1)},
        "no places": {n: t for n, t in inner.items() if n != "top_k.gaps"},
        "much more": {**inner, "more": torch.zeros(10_000)},
    }
    for message in wrong.values():
        packed = LIST[2].encode(Update(message), {}, {}, context)
        with pytest.raises(MessageError):
            pipeline.decode(packed, {}, context, expected)


@dataclass(frozen=True)
class Odd(Identity):
    """A codec that cannot decode what it has encoded."""

    linear: ClassVar[bool] = False

    def decode(self, update: Update, state: Tensors, context: RoundContext) -> Update:
        raise MessageError("it is odd")


def test_a_client_that_cannot_decode_its_own_update_says_so() -> None:
    pipeline = Pipeline("upload", (Odd(),), error_feedback=True)
    with pytest.raises(
        UserError, match=r"of compression\.upload cannot decode .*: it is odd; name"
    ):
        pipeline.encode(Update({"w": torch.ones(3)}), {}, {}, RoundContext(0, 1, "a"))
