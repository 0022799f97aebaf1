"""The learned codec: exact sizes, blocks that fall back, hostile bytes, and the identity."""

import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

from autoencoders import identity, random_code, saved
from hanse.deployment.silo.server_texts import refuse_texts
from hanse.errors import UserError
from hanse.experiment.loading import load
from hanse.federation.algorithms.fedit import FedIT
from hanse.federation.compression.cg_fedllm import FELL_BACK, NAMES, CGFedLLM
from hanse.federation.messages import Update
from hanse.federation.pipeline import Pipeline
from hanse.journal.run_folder import read_rounds
from hanse.randomness import RoundContext
from hanse.tensors.autoencoder import Autoencoder
from hanse.tensors.named import Tensors, digest, layout, layout_bytes
from hanse.tensors.serialization import MessageError
from toys import federate, held_out, silos

CONTEXT = RoundContext(0, 1, "a")
B, K = 256, 4
NETWORK = random_code(B, K)


def drawn(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def inside(blocks: int, seed: int = 0) -> torch.Tensor:
    """Blocks that the code keeps whole, of scales that differ by powers of ten."""
    sizes = 10.0 ** -torch.arange(blocks).remainder(7).unsqueeze(1)
    return (drawn(blocks, K, seed=seed) @ NETWORK.encode * sizes).reshape(-1)


def encoded(tensors: Tensors, network: Autoencoder = NETWORK, gate: float = 0.5) -> Update:
    return CGFedLLM("", gate).encode(Update(tensors), {}, network.tensors, CONTEXT)


def decoded(message: Update, network: Autoencoder = NETWORK) -> Update:
    return CGFedLLM("").decode(message, network.tensors, CONTEXT)


def test_one_64th_of_the_numbers_travels_and_little_beside_it() -> None:
    change = {"a": inside(30).reshape(96, 80), "b": inside(10, 1).reshape(-1)}
    message = encoded(change)
    table, ways, exponents, codes, levels, steps = (message.tensors[name] for name in NAMES)
    assert codes.numel() * 64 == 40 * B and codes.dtype == torch.float32
    assert len(ways) == len(exponents) == 40 and not len(levels) and not len(steps)
    assert sum(t.nbytes for t in message.tensors.values()) == 4 * 40 * K + 2 * 40 + len(table)
    result = decoded(message)
    assert result.numbers == {FELL_BACK: 0.0}
    for name, tensor in change.items():
        assert result.tensors[name].shape == tensor.shape
        blocks, back = tensor.reshape(-1, B), result.tensors[name].reshape(-1, B)
        assert torch.allclose(back, blocks, rtol=0, atol=1e-4) and bool(back[6].any())


def test_a_block_unlike_its_code_falls_back_to_int4_and_is_counted() -> None:
    change = inside(8).reshape(8, B)
    change[3] = drawn(B) * 1e-5  # cosine about sqrt(K / B) = 0.125
    change[5] = 0.0
    message = encoded({"a": change})
    result = decoded(message)
    assert result.numbers == {FELL_BACK: 1 / 7}
    back = result.tensors["a"]
    groups = change[3].reshape(-1, 64)
    steps = groups.abs().amax(1, keepdim=True) / 7
    assert bool(((back[3].reshape(-1, 64) - groups).abs() <= 0.51 * steps).all())
    assert torch.equal(back[5], change[5])
    assert message.tensors[NAMES[4]].shape == (1, B // 2)
    assert torch.allclose(back[[0, 1, 2, 4, 6, 7]], change[[0, 1, 2, 4, 6, 7]], atol=1e-4)
    assert decoded(encoded({"a": change}, gate=0.0)).numbers[FELL_BACK] < 1 / 7 + 1e-9


def test_every_block_lies_at_the_side_of_the_gate_that_its_cosine_says() -> None:
    noise = drawn(20, B, seed=3) * torch.linspace(0, 4, 20).unsqueeze(1)
    change = inside(20).reshape(20, B)
    change = change / change.norm(dim=1, keepdim=True) * 4 + noise
    expected = []
    for block in change:
        likeness = math.sqrt(float((NETWORK.encode @ block).square().sum() / block.square().sum()))
        expected.append(1 if likeness >= 0.7 else 2)
    assert {*expected} == {1, 2}
    assert encoded({"a": change}, gate=0.7).tensors[NAMES[1]].tolist() == expected


def test_a_block_that_is_decoded_too_large_falls_back() -> None:
    """Its direction is right, but error feedback would add up what is too much."""
    large = replace(NETWORK, decode=3 * NETWORK.decode)
    change = {"a": inside(4)}
    assert decoded(encoded(change, large), large).numbers == {FELL_BACK: 1.0}
    right = replace(NETWORK, decode=1.9 * NETWORK.decode)
    assert decoded(encoded(change, right), right).numbers == {FELL_BACK: 0.0}


def test_a_message_is_never_larger_than_its_layout() -> None:
    change = {"a": drawn(50, 33), "b": drawn(7), "c": torch.arange(3)}
    codec = CGFedLLM("")
    bound = layout_bytes(codec.layout(layout(change), NETWORK.tensors))
    for tensors in (change, {**change, "a": inside(7)[:1650].reshape(50, 33)}):
        message = encoded(tensors)
        assert sum(t.nbytes for t in message.tensors.values()) <= bound
        assert torch.equal(decoded(message).tensors["c"], change["c"])


def test_an_identity_is_bit_identical_to_no_codec(tmp_path: Path) -> None:
    codec = CGFedLLM(saved(tmp_path, identity(128)))
    settings = {"rank": 2}
    plain = federate(FedIT(), silos(3, **settings), tmp_path / "plain", held_out(**settings))
    coded = federate(
        FedIT(), silos(3, **settings), tmp_path / "coded", held_out(**settings), upload=[codec]
    )
    models = [run.server_state.algorithm_state["model"] for run in (plain, coded)]
    assert digest(models[0]) == digest(models[1])
    assert read_rounds(tmp_path / "coded")[-1].train[FELL_BACK] == 0.0


def test_values_survive_the_scaling_to_the_bit() -> None:
    change = {"a": drawn(4, 128) * torch.tensor([[1e-30], [1e-3], [1.0], [1e30]])}
    back = decoded(encoded(change, identity(128)), identity(128))
    assert torch.equal(back.tensors["a"], change["a"])


def test_a_trained_file_is_asked_for_before_anybody_trains(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"no trained codec '/nowhere'; name a file that `hanse f"):
        federate(
            FedIT(), silos(2, rank=2), tmp_path, held_out(rank=2), upload=[CGFedLLM("/nowhere")]
        )
    (other := tmp_path / "other").write_bytes(b"no tensors at all")
    with pytest.raises(UserError, match="is no trained codec: "):
        CGFedLLM(str(other)).weights()
    save_file({"encode": torch.zeros(2, 128)}, other)
    with pytest.raises(UserError, match="is no trained codec: it has no tensor encode_hidden"):
        CGFedLLM(str(other)).weights()
    wrong = {**random_code(128, 2).tensors, "decode": torch.zeros(2, 128)}
    save_file(wrong, other)
    with pytest.raises(UserError, match="its decode is no float32 matrix of 128 × 2"):
        CGFedLLM(str(other)).weights()
    with pytest.raises(UserError, match="blocks of 192 numbers, and their size must be a mul"):
        CGFedLLM(saved(tmp_path, Autoencoder.projection(torch.eye(192)[:, :3]))).weights()


HOSTILE = {
    "ways": lambda t: {NAMES[1]: t[NAMES[1]] + 2},
    "fewer ways": lambda t: {NAMES[1]: t[NAMES[1]][:-1]},
    "exponents": lambda t: {NAMES[2]: torch.full_like(t[NAMES[2]], -128)},
    "fewer codes": lambda t: {NAMES[3]: t[NAMES[3]][:-1]},
    "wide codes": lambda t: {NAMES[3]: torch.zeros(len(t[NAMES[3]]), B)},
    "levels": lambda t: {NAMES[4]: torch.zeros(2, B // 2).byte()},
    "steps": lambda t: {NAMES[5]: t[NAMES[5]].float()},
    "table": lambda t: {NAMES[0]: t[NAMES[0]][:-1]},
}


@pytest.mark.parametrize("kind", HOSTILE)
def test_tensors_that_do_not_belong_together_are_refused(kind: str) -> None:
    change = inside(6).reshape(6, B)
    change[2] = drawn(B)
    message = encoded({"a": change})
    with pytest.raises(MessageError):
        decoded(replace(message, tensors={**message.tensors, **HOSTILE[kind](message.tensors)}))
    without = {n: t for n, t in message.tensors.items() if n != NAMES[1]}
    with pytest.raises(MessageError, match="missing"):
        decoded(replace(message, tensors=without))


def test_a_table_that_claims_too_much_is_refused_before_it_is_decoded() -> None:
    change = {"a": inside(4)}
    claims = encoded(change)
    table = claims.tensors[NAMES[0]].numpy().tobytes().replace(b"[1024]", b"[1024000000]")
    tensors = {**claims.tensors, NAMES[0]: torch.frombuffer(bytearray(table), dtype=torch.uint8)}
    pipeline = Pipeline("upload", (CGFedLLM(""),), weights={0: NETWORK.tensors})
    with pytest.raises(MessageError, match="CGFedLLM would decode it to 4,096,000,000 bytes"):
        pipeline.decode(replace(claims, tensors=tensors), {}, CONTEXT, layout(change))


def test_values_that_are_not_finite_do_not_become_finite() -> None:
    change = inside(4).reshape(4, B)
    change[1, 7] = math.nan
    change[2, 0] = math.inf
    message = encoded({"a": change})
    assert not bool(message.tensors[NAMES[5]].isfinite().all())


def test_a_silo_takes_the_name_of_the_file_which_it_never_reads(experiment_file: Path) -> None:
    def values(name: str) -> dict[str, Any]:
        words = [f"compression=[{{cg_fedllm: {{trained: {name}}}}}]"]
        return load(experiment_file, words).resolved()

    refuse_texts(values("/at/the/server.safetensors"))
    with pytest.raises(UserError, match="a server may give a file's name of at most 1,000"):
        refuse_texts(values("n" * 1001))
