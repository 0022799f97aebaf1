"""int8, int4, nf4 and sign: values against each block's levels, written apart; bytes; refusals."""

import math
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor

from hanse import registry
from hanse.errors import UserError
from hanse.federation.algorithms.fedavg import FedAvg
from hanse.federation.codecs.quantizer import Quantizer
from hanse.federation.compatibility.parts import check
from hanse.federation.compression.fp16 import FP16
from hanse.federation.compression.int4 import Int4
from hanse.federation.compression.int8 import Int8
from hanse.federation.compression.nf4 import NF4
from hanse.federation.compression.sign import Sign
from hanse.federation.messages import Reply, Update, validate_update
from hanse.federation.pipeline import Pipeline, Pipelines
from hanse.randomness import RoundContext
from hanse.tensors.named import Bounded, Tensors, blob, fits, largest, layout, to_bytes
from hanse.tensors.serialization import MessageError
from hanse.tensors.table import Table
from hanse.tensors.uneven_levels import NF4_LEVELS
from parts.plain_rules import Sums

CONTEXT = RoundContext(0, 1, "a")
LEVELS = {  # ÷ the largest size in a block
    Int8: [k / 127 for k in range(-127, 128)],
    Int4: [k / 7 for k in range(-7, 8)],
    NF4: NF4_LEVELS.tolist(),
}
BOUNDS = {Int8: 1 / 254, Int4: 1 / 14, NF4: (1 - 0.6961928009986877) / 2, Sign: 1.0}
every_codec = pytest.mark.parametrize("codec", [Int8(), Int4(), NF4(), Sign()])
every_rounding = pytest.mark.parametrize("codec", [c(rounding="stochastic") for c in LEVELS])
SHAPES = [(3, 7), (130,), (), (0, 4), (64, 5), (1,), (300,)]


def tensors(factor: float = 1.0) -> dict[str, Tensor]:
    draw = torch.Generator().manual_seed(3)
    return {
        f"t{number}": factor * torch.randn(shape, generator=draw)
        for number, shape in enumerate(SHAPES)
    }


def encoded(codec: Quantizer, update: Tensors, context: RoundContext = CONTEXT) -> Update:
    return codec.encode(Update(update, {"loss": 0.1}, 3.0), {}, {}, context)


def passed(codec: Quantizer, update: Tensors, context: RoundContext = CONTEXT) -> Tensors:
    """An update, encoded and decoded again."""
    return codec.decode(encoded(codec, update, context), {}, context).tensors


def blocks(codec: Quantizer, *groups: Tensors) -> Iterator[tuple[Tensor, ...]]:
    """The same blocks of several groups of tensors, as float64."""
    for name in groups[0]:
        parts = [group[name].double().flatten().split(codec.block) for group in groups]
        yield from (block for block in zip(*parts, strict=True) if len(block[0]))


@pytest.mark.parametrize("codec", [Int8(), Int8(block=8), Int4(), Int4(block=24), NF4()])
@pytest.mark.parametrize("factor", [1.0, 1e-44, 1e-38, 8e37])
def test_each_number_becomes_the_nearest_level_of_its_block(
    codec: Quantizer, factor: float
) -> None:
    update = {**tensors(factor), "zeros": torch.zeros(100)}
    result = passed(codec, update)
    assert all(result[name].shape == tensor.shape for name, tensor in update.items())
    for block, decoded in blocks(codec, update, result):
        scale = block.abs().max()
        levels = scale * torch.tensor(LEVELS[type(codec)], dtype=torch.float64)
        nearest = (block[:, None] - levels).abs().min(dim=1).values
        # A denormal number is a multiple of 1.4e-45.
        assert ((decoded - block).abs() <= nearest + 1e-6 * scale + 1.5e-45).all()
        assert nearest.max() <= (BOUNDS[type(codec)] + 1e-6) * scale
    assert not result["zeros"].any()


@pytest.mark.parametrize("codec", [Sign(), Sign(block=8)])
@pytest.mark.parametrize("factor", [1.0, 1e-38, 8e37])
def test_a_sign_has_the_mean_size_of_its_block(codec: Sign, factor: float) -> None:
    update = {**tensors(factor), "zeros": torch.zeros(100), "one": torch.tensor([0.0, -3.0])}
    result = passed(codec, update)
    for block, decoded in blocks(codec, update, result):
        mean = sum(abs(x) for x in block.tolist()) / len(block)
        expected = [mean if x >= 0 else -mean for x in block.tolist()]
        assert decoded.tolist() == pytest.approx(expected, rel=1e-6, abs=1e-44)
    assert result["one"].tolist() == [1.5, -1.5] and not result["zeros"].any()


def test_the_levels_are_those_of_the_paper() -> None:
    assert NF4_LEVELS.tolist() == sorted(NF4_LEVELS.tolist()) and len(NF4_LEVELS) == 16
    assert {-1.0, 0.0, 1.0} <= {*NF4_LEVELS.tolist()}
    normal = torch.distributions.Normal(0.0, 1.0)
    # bitsandbytes' create_normal_map, from which the paper's table was made.
    edge = 0.9677083
    upper = normal.icdf(torch.linspace(edge, 0.5, 9)[:-1])
    lower = -normal.icdf(torch.linspace(edge, 0.5, 8)[:-1])
    levels = torch.cat([lower, torch.zeros(1), upper.flip(0)]) / upper.max()
    assert torch.allclose(NF4_LEVELS, levels, atol=1e-6)


@pytest.mark.extras
def test_the_levels_are_those_of_bitsandbytes() -> None:
    functional = pytest.importorskip("bitsandbytes.functional")
    assert torch.equal(functional.get_4bit_type("nf4", device="cpu"), NF4_LEVELS)


@every_rounding
def test_stochastic_rounding_is_right_in_the_mean(codec: Quantizer) -> None:
    row = torch.cat([torch.linspace(-1, 1, 40), torch.tensor([0.0, 1e-3, -1e-3, 0.5])])
    row = torch.nn.functional.pad(row, (0, codec.block - len(row)))
    draws = 4000
    result = passed(codec, {"w": row.repeat(draws, 1)})["w"].double()
    levels = torch.tensor(LEVELS[type(codec)], dtype=torch.float64)
    for number, value in enumerate(row.double().tolist()):
        lower, upper = levels[levels <= value + 1e-7].max(), levels[levels >= value - 1e-7].min()
        sides = result[:, number]
        assert ((sides - lower).abs() < 1e-6).logical_or((sides - upper).abs() < 1e-6).all()
        deviation = math.sqrt(max(float((value - lower) * (upper - value)), 0.0) / draws)
        assert abs(float(sides.mean()) - value) <= 5 * deviation + 1e-5, value


@every_rounding
def test_what_is_a_level_is_never_moved_by_a_draw(codec: Quantizer) -> None:
    """127 and a draw just below 1 have the sum 128 in float32."""
    update = {"ones": torch.ones(2**21), "ends": torch.tensor([-1.0, 0.0, 1.0]).repeat(2**14)}
    result = passed(codec, update)
    assert all(torch.equal(result[name], tensor) for name, tensor in update.items())


@every_rounding
def test_draws_depend_on_seed_round_and_client_alone(codec: Quantizer) -> None:
    def codes(context: RoundContext) -> list[int]:
        return encoded(codec, tensors(), context).tensors[codec.names[0]].tolist()

    first = codes(CONTEXT)
    assert codes(CONTEXT) == first
    others = [RoundContext(1, 1, "a"), RoundContext(0, 2, "a"), RoundContext(0, 1, "b")]
    assert all(codes(other) != first for other in others)


@every_codec
def test_the_bytes_are_those_of_the_formula(codec: Quantizer) -> None:
    message = encoded(codec, tensors()).tensors
    counts = [math.prod(shape) for shape in SHAPES]
    codes, scales, table = (message[name] for name in codec.names)
    assert codes.nbytes == sum(math.ceil(n * codec.bits / 8) for n in counts)
    assert scales.nbytes == 4 * sum(math.ceil(n / codec.block) for n in counts)
    assert len(table) == len(Table.of(tensors()).to_tensor()) and len(message) == 3


def smollm2() -> dict[str, Tensor]:
    """An update of LoRA of rank 8 on all linear layers of SmolLM2-135M: 420 tensors."""
    sides = {"q": (576, 576), "k": (576, 192), "v": (576, 192), "o": (576, 576)}
    sides |= {"gate": (576, 1536), "up": (576, 1536), "down": (1536, 576)}
    update = {}
    for layer in range(30):
        for matrix, (inner, outer) in sides.items():
            part = "mlp" if matrix in ("gate", "up", "down") else "self_attn"
            name = f"base_model.model.model.layers.{layer}.{part}.{matrix}_proj.lora_"
            update |= {
                f"{name}A.weight": torch.ones(8, inner),
                f"{name}B.weight": torch.ones(outer, 8),
            }
    return update


@pytest.mark.parametrize(
    ("codec", "share"), [(Int8(), 0.27), (Int4(), 0.15), (NF4(), 0.15), (Sign(), 0.045)]
)
def test_whole_messages_are_as_small_as_promised(codec: Quantizer, share: float) -> None:
    def size(update: Update) -> int:
        return len(Reply("silo-1", "train", 1, update).pack())

    update = smollm2()
    assert len(update) == 420
    assert size(encoded(codec, update)) <= share * size(Update(update, {"loss": 0.1}, 3.0))


@every_codec
@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_one_number_that_is_not_finite_is_refused(codec: Quantizer, value: float) -> None:
    update = tensors()
    update["t1"][65] = value
    message, expected = encoded(codec, update), codec.layout(layout(update), {})
    with pytest.raises(MessageError, match="has values that are not finite"):
        validate_update(message, expected)
    decoded = codec.decode(message, {}, CONTEXT)
    assert not decoded.tensors["t1"][65].isfinite()
    with pytest.raises(MessageError, match="t1 has values that are not finite"):
        validate_update(decoded, layout(update))


@pytest.mark.parametrize(("codec", "code"), [(Int8(), 128), (Int4(), 0x38)])
def test_a_code_that_nothing_encodes_to_is_not_finite(codec: Quantizer, code: int) -> None:
    message = encoded(codec, {"w": torch.ones(8)})
    message.tensors[codec.names[0]][0] = code
    assert codec.decode(message, {}, CONTEXT).tensors["w"].isnan().sum() == 1


@every_codec
def test_integers_pass_by_under_their_names(codec: Quantizer) -> None:
    indices = torch.tensor([2**31 + 1, -5], dtype=torch.int64)
    update = {**tensors(), "top_k.indices": indices, "half": torch.ones(3, dtype=torch.bfloat16)}
    message = encoded(codec, update)
    assert message.tensors["top_k.indices"] is indices
    expected = codec.layout(layout(update), {})
    assert expected.keys() == message.tensors.keys()
    assert all(fits(message.tensors[name], form) for name, form in expected.items())
    decoded = codec.decode(message, {}, CONTEXT)
    assert layout(decoded.tensors).keys() == update.keys()
    assert decoded.tensors["half"].dtype == torch.bfloat16
    assert (decoded.numbers, decoded.weight) == ({"loss": 0.1}, 3.0)


@every_codec
def test_varying_lengths_are_bounded(codec: Quantizer) -> None:
    most = {"rows": Bounded(torch.empty(90, 7, device="meta")), "packed": blob(5)}
    expected = codec.layout(most, {})
    assert all(isinstance(form, Bounded) for form in expected.values())
    assert largest(expected["packed"]).dtype == torch.uint8
    for rows in (90, 9, 0):
        packed = torch.zeros(2, dtype=torch.uint8)
        message = encoded(codec, {"rows": torch.ones(rows, 7), "packed": packed}).tensors
        assert all(fits(message[name], form) for name, form in expected.items())


def test_scales_may_be_encoded_in_their_turn() -> None:
    pipeline, update = Pipeline("upload", (NF4(), FP16())), tensors()
    states = pipeline.init(layout(update))
    message = pipeline.encode(Update(update), {}, states, CONTEXT)
    assert message.tensors["nf4.scales"].dtype == torch.float16
    result = pipeline.decode(message, states, CONTEXT, layout(update)).tensors
    for block, decoded in blocks(NF4(), update, result):
        assert ((block - decoded).abs() <= (BOUNDS[NF4] + 2**-11) * block.abs().max()).all()


def test_a_tensor_with_the_name_of_a_part_is_refused() -> None:
    update = {**tensors(), "int8.codes": torch.tensor([1])}
    with pytest.raises(UserError, match=r"adds int8.codes to an update that already has it; "):
        Int8().layout(layout(update), {})
    with pytest.raises(UserError, match=r"adds int8.codes to an update that already has it; "):
        encoded(Int8(), update)


@pytest.mark.parametrize(
    ("codec", "most", "worst"),
    [
        (Int8(rounding="stochastic"), 4096, 0.25 / 127),
        (Int4(rounding="stochastic"), 392, 0.25 / 7),
        (NF4(rounding="stochastic"), 960, 0.0911 / 4),
    ],
)
def test_error_feedback_around_draws_needs_short_blocks(
    codec: Any, most: int, worst: float
) -> None:
    """The loss is measured for blocks of the numbers that lose most beside one large one."""
    for block in (most, 4096):
        codec = replace(codec, block=block)
        update = torch.full((200, block), -worst)
        update[:, 0] = 1
        loss = (passed(codec, {"w": update})["w"] - update).square().sum() / update.square().sum()
        assert codec.contractive == bool(loss < 1), (block, float(loss))
        assert replace(codec, rounding="nearest").contractive
    assert most == 4096 or not replace(codec, block=most + 8).contractive


def changed(name: str, tensor: Any) -> Update:
    message = encoded(Int8(), tensors())
    return replace(message, tensors={**message.tensors, name: tensor(message.tensors)})


@pytest.mark.parametrize(
    ("message", "reason"),
    [
        (Update({"int8.codes": torch.zeros(1).byte()}), "int8.scales is missing"),
        (changed("int8.codes", lambda t: t["int8.codes"][1:]), "needs 773 torch.uint8"),
        (changed("int8.codes", lambda t: t["int8.codes"].float()), "needs 773 torch.uint8"),
        (changed("int8.scales", lambda t: t["int8.scales"].double()), "needs 8 torch.float32"),
        (changed("int8.scales", lambda t: t["int8.scales"][:, None]), r"\(8, 1\) torch.float32"),
        (changed("int8.table", lambda t: t["int8.table"][1:]), "table of tensors cannot be read"),
        (changed("t0", lambda t: torch.ones(1).int()), "'t0' came twice, once in int8.table"),
    ],
)
def test_messages_that_nothing_encodes_to_are_refused(message: Update, reason: str) -> None:
    with pytest.raises(MessageError, match=reason):
        Int8().decode(message, {}, CONTEXT)


def test_a_message_that_claims_too_much_is_not_decoded() -> None:
    pipeline = Pipeline("upload", (Sign(),))
    message = encoded(Sign(), {"w": torch.zeros(2**16)})
    assert Sign().decoded_bytes(message, {}) == 4 * 2**16
    with pytest.raises(MessageError, match="would decode it to 262,144 bytes, and at most 262,140"):
        pipeline.decode(message, {}, CONTEXT, {"w": torch.empty(2**16 - 1, device="meta")})
    claim = Table.of({"w": torch.empty(2**40, 2**20, device="meta")}).to_tensor()
    with pytest.raises(MessageError, match="needs 144115188075855872"):
        Sign().decoded_bytes(replace(message, tensors={**message.tensors, "sign.table": claim}), {})
    assert to_bytes(claim).startswith(b"[")


@every_codec
def test_a_rule_that_sees_only_sums_refuses_them(codec: Quantizer) -> None:
    name, pipelines = type(codec).__name__, Pipelines(Pipeline("upload", (codec,)))
    reason = (
        f"Sums sees only sums, but {name} needs .*; choose the aggregator mean, or leave it out"
    )
    with pytest.raises(UserError, match=reason):
        check(FedAvg(), Sums(), pipelines)


@pytest.mark.parametrize(
    ("settings", "reason"),
    [
        ({"int8": {"block": 100}}, "int8.block is 100; input should be a multiple of 8"),
        ({"nf4": {"block": 0}}, "nf4.block is 0; input should be greater than or equal to 8"),
        (
            {"sign": {"block": 8192}},
            "sign.block is 8192; input should be less than or equal to 4096",
        ),
        (
            {"int4": {"rounding": "up"}},
            "int4.rounding is 'up'; input should be 'nearest' or 'stoch",
        ),
        ({"int8": {"bits": 4}}, "int8 has no setting 'bits'; its settings are block, rounding."),
        ("int3", "there is no 'int3' in compression .did you mean 'int"),
    ],
)
def test_bits_and_blocks_that_do_not_fit_are_refused(settings: Any, reason: str) -> None:
    with pytest.raises(UserError, match=reason):
        registry.build("federation/compression", settings)
