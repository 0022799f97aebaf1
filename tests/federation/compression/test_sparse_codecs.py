"""top_k and rand_k: the numbers they choose, their bytes, and what strangers may send."""

import random
from collections.abc import Callable

import pytest
import torch

from hanse.errors import UserError
from hanse.federation.compression.rand_k import RandK
from hanse.federation.compression.top_k import TopK
from hanse.federation.messages import Reply, Update, validate_update
from hanse.federation.pipeline import Pipeline
from hanse.federation.sums import mean, summand
from hanse.randomness import RoundContext
from hanse.tensors.named import Bounded, Tensors, fits, from_bytes, layout
from hanse.tensors.serialization import MessageError

CONTEXT = RoundContext(3, 5, "silo-1")


def passed(codec: TopK, tensors: Tensors) -> tuple[Tensors, Tensors]:
    """The encoded and the decoded tensors."""
    encoded = codec.encode(Update(tensors), {}, {}, CONTEXT)
    return encoded.tensors, codec.decode(encoded, {}, CONTEXT).tensors


def noise(*shape: int, seed: int = 0, coarse: bool = False) -> torch.Tensor:
    """Normal numbers; coarse: with many equal magnitudes."""
    values = torch.randn(shape, generator=torch.Generator().manual_seed(seed))
    return (values * 2).round() / 2 if coarse else values


def largest(flat: list[float], count: int) -> list[float]:
    """The same by sorting: the largest magnitudes, of equal ones the first."""
    order = sorted(range(len(flat)), key=lambda place: (-abs(flat[place]), place))
    kept = {*order[:count]}
    return [value if place in kept else 0.0 for place, value in enumerate(flat)]


@pytest.mark.parametrize("coarse", [False, True])
@pytest.mark.parametrize("share", [0.0001, 0.01, 0.37, 1.0])
def test_the_largest_of_all_numbers_are_sent(share: float, coarse: bool) -> None:
    tensors = {"a": noise(30, 40, coarse=coarse), "b": noise(7, seed=1, coarse=coarse) / 3}
    encoded, decoded = passed(TopK(share=share), tensors)
    flat = torch.cat([t.flatten() for t in tensors.values()]).tolist()
    count = max(1, round(share * len(flat)))
    assert len(encoded["top_k.values"]) == count
    assert torch.cat([t.flatten() for t in decoded.values()]).tolist() == largest(flat, count)
    assert decoded["a"].shape == (30, 40)


def test_a_share_of_each_tensor_is_sent() -> None:
    tensors = {"a": noise(30, 40), "small": noise(25, seed=1) / 1000, "one": torch.tensor(1e-9)}
    _, decoded = passed(TopK(share=0.1, per_tensor=True), tensors)
    for (name, tensor), count in zip(tensors.items(), (120, 2, 1), strict=True):
        assert decoded[name].flatten().tolist() == largest(tensor.flatten().tolist(), count)
    _, decoded = passed(TopK(share=0.1), tensors)
    assert not decoded["small"].any()


@pytest.mark.parametrize("share", [1e-5, 0.01, 0.8])
def test_places_of_many_blocks_come_back(share: float) -> None:
    flat = torch.zeros(300_000)
    count = round(share * len(flat))
    chosen = torch.randperm(len(flat), generator=torch.Generator().manual_seed(0))[:count]
    chosen = torch.cat([chosen[2:], torch.tensor([len(flat) - 1, 65_536])]).unique()
    flat[chosen] = torch.arange(1.0, len(chosen) + 1)
    encoded, decoded = passed(TopK(share=len(chosen) / len(flat)), {"w": flat})
    assert torch.equal(decoded["w"], flat)
    assert encoded["top_k.gaps"].dtype == torch.int16 and len(encoded["top_k.counts"]) == 5


def test_integers_pass_by_and_dtypes_return() -> None:
    tensors = {
        "count": torch.tensor([3]),
        "h": torch.tensor([1.0, 2.0]).half(),
        "e": torch.empty(0),
    }
    for codec in (TopK(share=1.0), TopK(share=1.0, per_tensor=True)):
        encoded, decoded = passed(codec, tensors)
        assert torch.equal(encoded["count"], tensors["count"])
        for name, tensor in tensors.items():
            assert decoded[name].dtype == tensor.dtype and torch.equal(decoded[name], tensor)
        assert passed(codec, {"count": tensors["count"]})[1] == {"count": tensors["count"]}
        assert passed(codec, {})[1] == {}


def test_numbers_that_are_not_finite_are_sent_first_and_then_refused() -> None:
    tensors = {"w": torch.tensor([5.0, torch.nan, 7.0, -torch.inf])}
    encoded, _ = passed(TopK(share=0.5), tensors)
    assert [*map(str, encoded["top_k.values"].tolist())] == ["nan", "-inf"]
    form = TopK(share=0.5).layout(layout(tensors), {})
    with pytest.raises(MessageError, match="values that are not finite"):
        validate_update(Update(encoded), form)


@pytest.mark.parametrize("codec", [TopK(), TopK(per_tensor=True, share=0.3)])
def test_its_size_depends_on_the_layout_alone(codec: TopK) -> None:
    shapes = {f"layers.{n}.lora_{ab}.weight": (8, 96 + n) for n in range(30) for ab in "AB"}
    sizes = set()
    for seed in range(3):
        tensors = {name: noise(*shape, seed=seed) for name, shape in shapes.items()}
        encoded, _ = passed(codec, tensors)
        form = codec.layout(layout(tensors), {})
        assert form.keys() == encoded.keys() and all(fits(encoded[n], form[n]) for n in form)
        sizes.add(len(Reply("silo-1", "train", 1, Update(encoded)).pack()))
    assert len(sizes) == 1


def test_tensors_of_varying_length_are_bounded() -> None:
    codec = TopK(share=0.1)
    form = codec.layout({"rows": Bounded(torch.empty(90_000, 3, device="meta"))}, {})
    for count in (0, 7, 90_000):
        encoded, _ = passed(codec, {"rows": noise(count, 3)})
        assert all(fits(encoded[name], form[name]) for name in form)


def spoiled(tensors: dict[str, torch.Tensor]) -> dict[str, dict[str, torch.Tensor]]:
    """Messages that nothing encodes to."""
    values, gaps, counts = (tensors[f"top_k.{part}"] for part in ("values", "gaps", "counts"))

    def counted(*numbers: int) -> dict[str, torch.Tensor]:
        return {**tensors, "top_k.counts": torch.tensor(numbers, dtype=torch.int32)}

    total = int(counts.sum())
    beyond = gaps.clone()
    beyond[-1] = -1  # 65,535 numbers further
    table = from_bytes(b'[["w","F32",[1099511627776]]]')
    return {
        "no table": {n: t for n, t in tensors.items() if n != "top_k.table"},
        "no values": {n: t for n, t in tensors.items() if n != "top_k.values"},
        "fewer values": {**tensors, "top_k.values": values[1:]},
        "values of integers": {**tensors, "top_k.values": values.long()},
        "a matrix of values": {**tensors, "top_k.values": values[:, None]},
        "a matrix": {**tensors, "top_k.values": values[:, None], "top_k.gaps": gaps[:, None]},
        "fewer gaps": {**tensors, "top_k.values": values[1:], "top_k.gaps": gaps[1:]},
        "wide gaps": {**tensors, "top_k.gaps": gaps.int()},
        "a place beyond the block": {**tensors, "top_k.gaps": beyond},
        "fewer counts": counted(total),
        "more counts": counted(total, 0, 0),
        "negative counts": counted(total + 1, -1),
        "huge counts": counted(2**31 - 1, total),
        "wide counts": {**tensors, "top_k.counts": counts.long()},
        "all in the last block": counted(0, total),
        "another table": {**tensors, "top_k.table": table},
        "integers": {**tensors, "top_k.table": from_bytes(b'[["w","I32",[70000]]]')},
    }


def test_what_nothing_encodes_to_is_refused() -> None:
    codec = TopK(share=0.001)
    tensors, _ = passed(codec, {"w": noise(70_000)})
    for name, message in spoiled(dict(tensors)).items():
        with pytest.raises(MessageError):
            pytest.fail(f"{name}: {codec.decode(Update(message), {}, CONTEXT)}")
    bomb = {**tensors, "top_k.table": from_bytes(b'[["w","F32",[1099511627776]]]')}
    expected = layout({"w": torch.empty(70_000)})
    with pytest.raises(MessageError, match="would decode it to 4,398,046,511,104 bytes"):
        Pipeline("upload", (codec,)).decode(Update(bomb), {}, CONTEXT, expected)


def test_mutated_places_are_refused_or_lie_in_range() -> None:
    codec, draw = TopK(share=0.01), random.Random(0)
    tensors, _ = passed(codec, {"w": noise(70_000)})
    refused = 0
    for _ in range(300):
        message = {name: tensor.clone() for name, tensor in tensors.items()}
        for _ in range(draw.randint(1, 3)):
            data = message[draw.choice(["top_k.gaps", "top_k.counts", "top_k.table"])]
            data.view(torch.uint8)[draw.randrange(data.nbytes)] = draw.randrange(256)
        try:
            codec.decode(Update(message), {}, CONTEXT)
        except MessageError:
            refused += 1
    assert refused > 150


def test_the_name_of_a_part_is_taken() -> None:
    with pytest.raises(UserError, match=r"adds top_k\.counts to an update that already has it"):
        passed(TopK(), {"w": noise(3), "top_k.counts": torch.tensor([1])})


def drawn(
    codec: RandK, tensors: Tensors, context: RoundContext = CONTEXT
) -> tuple[Tensors, Tensors]:
    state = codec.broadcast(codec.init(layout(tensors)))
    encoded = codec.encode(Update(tensors), {}, state, context)
    return encoded.tensors, codec.decode(encoded, state, context).tensors


def test_random_numbers_are_sent_and_only_values_travel() -> None:
    tensors = {"a": noise(300, 40), "count": torch.tensor([3]), "b": noise(500, seed=1)}
    encoded, decoded = drawn(RandK(share=0.1), tensors)
    assert encoded.keys() == {"rand_k.values", "count"} and len(encoded["rand_k.values"]) == 1250
    flat = torch.cat([tensors["a"].flatten(), tensors["b"]])
    sent = torch.cat([decoded["a"].flatten(), decoded["b"]])
    assert int(sent.count_nonzero()) == 1250 and torch.equal(sent[sent != 0], flat[sent != 0])
    assert torch.equal(encoded["rand_k.values"], flat[sent != 0])


def test_places_depend_on_round_and_seed_and_not_on_the_client() -> None:
    ones = {"w": torch.ones(1000)}
    places = [
        drawn(RandK(share=0.1), ones, context)[1]["w"]
        for context in (RoundContext(3, 5, "b"), RoundContext(3, 6, "a"), RoundContext(4, 5, "a"))
    ]
    assert torch.equal(places[0], drawn(RandK(share=0.1), ones)[1]["w"])
    assert not torch.equal(places[0], places[1]) and not torch.equal(places[0], places[2])
    known = drawn(RandK(share=0.005), ones)[1]["w"].nonzero().flatten().tolist()
    assert known == [116, 186, 389, 424, 429], "all machines must draw the same"


def test_every_number_is_drawn_equally_often_and_the_unbiased_mean_is_the_update() -> None:
    update, rounds = {"w": torch.arange(1.0, 41)}, 4000
    total = torch.zeros(40)
    for number in range(rounds):
        total += drawn(RandK(share=0.25, unbiased=True), update, RoundContext(0, number))[1]["w"]
    ratio = total / rounds / update["w"]  # each is a binomial share / 0.25
    assert float((ratio - 1).abs().max()) < 5 * (0.75 / 0.25 / rounds) ** 0.5


def test_messages_can_be_summed_at_a_server_that_sees_sums_only() -> None:
    codec, weights = RandK(share=0.2), [1.0, 3.0]
    updates = [{"w": noise(50, seed=seed)} for seed in range(2)]
    state = codec.init(layout(updates[0]))
    sums: dict[str, torch.Tensor] = {}
    for number, (update, weight) in enumerate(zip(updates, weights, strict=True)):
        context = RoundContext(3, 5, f"silo-{number}")
        message = codec.encode(Update(update, {}, weight), {}, state, context)
        for name, tensor in summand(message, ()).items():
            sums[name] = sums.get(name, torch.zeros(())) + tensor
    result = codec.decode(mean(sums, ()), state, RoundContext(3, 5)).tensors["w"]
    exact = (updates[0]["w"] + 3 * updates[1]["w"]) / 4
    assert int(result.count_nonzero()) == 10
    assert torch.allclose(result[result != 0], exact[result != 0])


def test_clients_with_other_tensors_are_refused_before_they_are_asked() -> None:
    codec = RandK()
    state = codec.init(layout({"w": torch.empty(8, 4)}))
    calls: list[Callable[[], object]] = [
        lambda: codec.layout(layout({"w": torch.empty(4, 4)}), state),
        lambda: codec.encode(Update({"w": torch.zeros(4, 4)}), {}, state, CONTEXT),
    ]
    for call in calls:
        with pytest.raises(UserError, match="name powersgd in its place, or top_k if the"):
            call()
    with pytest.raises(UserError, match="; name top_k if the aggregator sees each update, or"):
        codec.layout(layout({"control/w": torch.empty(8, 4)}), state)


def test_values_that_do_not_fit_the_places_are_refused() -> None:
    codec = RandK(share=0.5)
    state = codec.init(layout({"w": torch.empty(8)}))
    for tensors in ({}, {"rand_k.values": torch.zeros(3)}, {"rand_k.values": torch.zeros(4).int()}):
        with pytest.raises(MessageError):
            codec.decode(Update(tensors), state, CONTEXT)
    for table in (b"", b"noise", from_bytes(b"x" * 9).numpy().tobytes()):
        with pytest.raises(MessageError):
            codec.decode(
                Update({"rand_k.values": torch.zeros(4)}), {"table": from_bytes(table)}, CONTEXT
            )
    assert RandK().contractive and not RandK(unbiased=True).contractive
