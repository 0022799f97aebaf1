"""Messages survive the trip bit by bit, have a size that can be told, and never run anything."""

import json
import pickle
import random
import struct
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from hanse.federation.messages import Instruction, Reply, Request, Update, validate_update
from hanse.tensors.named import layout, strip_prefix
from hanse.tensors.serialization import MAX_HEADER, MessageError, pack, unpack, whole_number

TENSORS = {
    "half": torch.tensor([[1.5, -2.25], [float("inf"), 1e-30]], dtype=torch.bfloat16),
    "count": torch.tensor([2**62, -1], dtype=torch.int64),
    "plain/with/slashes": torch.randn(3, 2, generator=torch.Generator().manual_seed(0)),
    "scalar": torch.tensor(3.0),
    "empty": torch.zeros(0, 4),
}


def request(scale: float = 1.0, round: int = 3) -> Request:
    """A request with everything in it."""
    tensors = {"a": torch.ones(4, 3) * scale, "b": torch.zeros(2, dtype=torch.bfloat16)}
    note = Instruction({"mask": torch.ones(2)}, {"phase": 2.0 * scale})
    return Request(
        "train",
        round,
        1,
        Instruction(tensors, {"mu": scale}),
        {"upload.0": {"basis": torch.eye(2)}},
        note,
    )


def safetensors(header: object, data: bytes = b"") -> bytes:
    """Bytes in the format of safetensors, with any header."""
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("<Q", len(text)) + text + data


def test_a_request_survives_the_trip() -> None:
    found = Request.parse(request().pack())
    assert (found.kind, found.round, found.last_counted_round) == ("train", 3, 1)
    assert found.instruction.numbers == {"mu": 1.0} and found.aggregator_note.numbers == {
        "phase": 2.0
    }
    assert torch.equal(found.instruction.tensors["a"], torch.ones(4, 3))
    assert found.instruction.tensors["b"].dtype == torch.bfloat16
    assert torch.equal(found.transform_states["upload.0"]["basis"], torch.eye(2))
    assert found.aggregator_note.tensors.keys() == {"mask"} and found.transform_states.keys() == {
        "upload.0"
    }


def test_a_reply_survives_the_trip() -> None:
    sent = Reply("silo-1", "train", 7, Update(TENSORS, {"loss": 0.25, "steps": 4.0}, 32.0))
    found = Reply.parse(sent.pack())
    assert (found.client, found.kind, found.round, found.error) == ("silo-1", "train", 7, "")
    assert found.update.numbers == {"loss": 0.25, "steps": 4.0} and found.update.weight == 32.0
    assert found.update.tensors.keys() == TENSORS.keys()
    for name, tensor in TENSORS.items():
        assert found.update.tensors[name].dtype == tensor.dtype
        assert torch.equal(found.update.tensors[name], tensor), name


def test_an_error_and_an_empty_update_survive() -> None:
    found = Reply.parse(Reply("ä", "train", 0, error="out of memory: größer").pack())
    assert (found.client, found.error) == ("ä", "out of memory: größer")
    assert found.update.tensors == {} and found.update.numbers == {}
    assert Request.parse(Request("evaluate", 0).pack()) == Request("evaluate", 0)


def test_tensors_that_share_memory_and_views_arrive() -> None:
    whole_one = torch.arange(6.0).reshape(2, 3)
    tensors = {"all": whole_one, "same": whole_one, "row": whole_one[1], "turned": whole_one.T}
    _, _, groups = unpack(pack({"message": "reply", "kind": "x"}, {}, {"g": tensors}), "reply")
    for name, tensor in tensors.items():
        assert torch.equal(groups["g"][name], tensor)


def test_the_size_depends_on_names_and_shapes_alone() -> None:
    sizes = {len(request(*x).pack()) for x in [(1.0, 3), (1e-30, 12345), (-1 / 3, 2**40)]}
    assert len(sizes) == 1
    replies = {
        len(Reply("silo-1", "train", n, Update({"a": torch.ones(5) * w}, {"loss": w}, w)).pack())
        for n, w in [(1, 1.0), (1000, 1 / 3), (10**9, float("nan"))]
    }
    assert len(replies) == 1


def test_no_class_is_named_in_the_bytes() -> None:
    for data in (request().pack(), Reply("silo-1", "train", 1, Update(TENSORS)).pack()):
        for word in (b"Request", b"Reply", b"Update", b"torch", b"hanse.", b"class", b"module"):
            assert word not in data


def test_one_message_is_not_taken_for_another() -> None:
    with pytest.raises(MessageError, match="not a reply in the format hanse/1"):
        Reply.parse(request().pack())
    with pytest.raises(MessageError, match="not a request"):
        Request.parse(Reply("a", "train", 1).pack())


def mutations(data: bytes, count: int) -> list[bytes]:
    """Valid bytes with something wrong: bits flipped, cut, extended, parts swapped."""
    draw = random.Random(0)
    head = 8 + int.from_bytes(data[:8], "little")
    result = []
    for number in range(count):
        wrong = bytearray(data)
        end = head if number % 4 else len(data)  # most of it in the header
        for _ in range(draw.choice((1, 1, 2, 8))):
            wrong[draw.randrange(end)] ^= 1 << draw.randrange(8)
        if number % 5 == 1:
            wrong = bytearray(data[: draw.randrange(len(data))])
        elif number % 5 == 2:
            wrong = bytearray(data) + draw.randbytes(draw.randrange(1, 50))
        elif number % 5 == 3:  # another digit, bracket or letter: JSON that still parses
            wrong = bytearray(data)
            wrong[draw.randrange(8, head)] = draw.choice(b'0123456789[]{}",:ab/#')
        result.append(bytes(wrong))
    return result


@pytest.mark.parametrize("kind", ["request", "reply"])
def test_damaged_bytes_raise_nothing_but_message_errors(kind: str) -> None:
    reply = Reply("silo-1", "train", 1, Update(TENSORS, {"loss": 1.0}))
    data, parse = (request().pack(), Request.parse) if kind == "request" else (
        reply.pack(), Reply.parse
    )  # fmt: skip
    refused = 0
    for number, wrong in enumerate(mutations(data, 1000)):
        try:
            parse(wrong)
        except MessageError:
            refused += 1
        except Exception as error:
            pytest.fail(f"mutation {number} raised {error!r}: {wrong[:300]!r}")
    assert refused > 600


FIELDS = {
    "format": "hanse/1",
    "message": "reply",
    "kind": "train",
    "numbers": ["round", "weight"],
    "groups": ["update"],
}
META = {"hanse": json.dumps(FIELDS)}
NUMBERS = {"#": {"dtype": "F64", "shape": [2], "data_offsets": [0, 16]}}
VALUES = struct.pack("<dd", 1.0, 1.0)


def hostile() -> dict[str, bytes]:
    """Bytes that somebody has made to break the reader, by what is wrong with them."""
    good = safetensors({"__metadata__": META, **NUMBERS}, VALUES)
    assert Reply.parse(good).round == 1  # what follows differs from it in one point
    deep = b"[" * 200_000

    def meta(**more: object) -> bytes:
        header = {"hanse": json.dumps({**FIELDS, **more})}
        return safetensors({"__metadata__": header, **NUMBERS}, VALUES)

    def tensor(**more: object) -> bytes:
        extra = {"dtype": "F32", "shape": [1], "data_offsets": [16, 20], **more}
        return safetensors({"__metadata__": META, **NUMBERS, "update/a": extra}, VALUES + bytes(4))

    return {
        "nothing": b"",
        "seven bytes": b"\x02" + bytes(6),
        "a header of 8 GB": struct.pack("<Q", 8 * 2**30) + b"{}",
        "a header of 2⁶⁴ - 1": b"\xff" * 8 + b"{}",
        "a header beyond the limit": safetensors(b" " * (MAX_HEADER + 1)),
        "a tensor of 8 GB": tensor(shape=[2 * 2**30], data_offsets=[16, 16 + 8 * 2**30]),
        "a shape beyond 64 bits": tensor(shape=[0, 2**63], data_offsets=[16, 16]),
        "a shape of 2⁶⁴ - 1 and nothing": tensor(shape=[0, 2**64 - 1], data_offsets=[16, 16]),
        "a shape that overflows": tensor(shape=[2**40, 2**40]),
        "a negative shape": tensor(shape=[-1]),
        "offsets turned round": tensor(data_offsets=[20, 16]),
        "a type torch has not": tensor(dtype="F4", shape=[8]),
        "a type nobody has": tensor(dtype="object"),
        "deep JSON": safetensors(deep),
        "deep metadata": safetensors(b'{"__metadata__": ' + deep),
        "a deep header": safetensors({"__metadata__": {"hanse": "[" * 200_000}, **NUMBERS}, VALUES),
        "a list as header": safetensors({"__metadata__": {"hanse": "[]"}, **NUMBERS}, VALUES),
        "numbers that are none": meta(numbers=7),
        "numbers without names": meta(numbers=[1, 2]),
        "too few numbers": meta(numbers=["round"]),
        "a huge number in JSON": meta(numbers=[10**4000]),
        "a kind that is a number": meta(kind=1),
        "a client that is a list": meta(client=["a"]),
        "metadata that is a list": safetensors({"__metadata__": []}),
        "a list": safetensors([]),
        "not UTF-8": safetensors(b"\xff\xfe{}"),
        "a pickle": pickle.dumps({"a": 1}),
        "a tensor in no group": safetensors(
            {"__metadata__": META, "a": {**NUMBERS["#"], "data_offsets": [16, 32]}, **NUMBERS},
            VALUES * 2,
        ),
    }  # fmt: skip


@pytest.mark.parametrize("what", hostile())
def test_hostile_bytes_are_refused(what: str) -> None:
    with pytest.raises(MessageError):
        Reply.parse(hostile()[what])


@pytest.mark.parametrize("value", [-1.0, 0.5, 2.0**53, float("nan"), float("inf"), None])
def test_a_round_is_a_whole_number(value: float | None) -> None:
    numbers = {"weight": 1.0} | ({} if value is None else {"round": value})
    data = pack({"message": "reply", "kind": "train"}, numbers, {})
    with pytest.raises(MessageError, match=r"round is .*, expected a whole number"):
        Reply.parse(data)


def test_a_reply_without_a_weight_is_refused() -> None:
    with pytest.raises(MessageError, match="no weight"):
        Reply.parse(pack({"message": "reply", "kind": "train"}, {"round": 1}, {}))


AUDIT = """
import sys
from pathlib import Path
from hanse.federation.messages import Reply, Request
from hanse.tensors.serialization import MessageError
seen = []
def hook(event, arguments):
    risky = ("pickle", "marshal", "exec", "compile", "import", "subprocess", "os")
    if event.split(".")[0] in risky:
        seen.append(event)
home = Path(sys.argv[1])
data = {file.name: file.read_bytes() for file in sorted(home.iterdir())}
Request.parse(data["request"])  # whatever torch imports when it is first used
sys.addaudithook(hook)
for name, content in data.items():
    for parse in (Request.parse, Reply.parse):
        try:
            parse(content)
        except MessageError as error:
            print(name, "refused")
print(seen)
"""


def test_reading_a_message_runs_nothing(tmp_path: Path) -> None:
    (tmp_path / "request").write_bytes(request().pack())
    (tmp_path / "pickle").write_bytes(pickle.dumps(Path("/")))
    torch.save({"a": torch.ones(2)}, tmp_path / "model.pt")
    done = subprocess.run(
        [sys.executable, "-c", AUDIT, str(tmp_path)], capture_output=True, text=True
    )
    said = done.stdout.splitlines()
    assert said[:-1] == ["model.pt refused"] * 2 + ["pickle refused"] * 2 + ["request refused"]
    assert said[-1] == "[]", done.stderr


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"tensors": {"a": torch.zeros(2)}}, "missing or not asked for: b"),
        (
            {"tensors": {"a": torch.zeros(2), "b": torch.zeros(3)}},
            r"b came as \(3,\) torch.float32",
        ),
        ({"tensors": {"a": torch.zeros(2), "b": torch.zeros(2).double()}}, "expected .*float32"),
        ({"tensors": {"a": torch.zeros(2), "b": torch.full((2,), torch.nan)}}, "b has values"),
        ({"weight": -1.0}, "the weight -1 is"),
        ({"weight": float("nan")}, "the weight nan"),
        ({"weight": 1e13}, r"is not between 0 and 1e\+12"),
        ({"numbers": {"loss": float("inf")}}, "the number loss is inf"),
    ],
)
def test_the_gate_refuses_what_was_not_asked_for(change: dict[str, object], said: str) -> None:
    good = {"a": torch.zeros(2), "b": torch.zeros(2)}
    validate_update(Update(good, {"loss": 1.0}), layout(good))
    fields: dict[str, object] = {"tensors": good, **change}
    with pytest.raises(MessageError, match=said):
        validate_update(Update(**fields), layout(good))  # type: ignore[arg-type]


def test_numbers_by_prefix_and_as_whole() -> None:
    assert strip_prefix({"update/a": 1.0, "update/b/c": 2.0, "note/a": 3.0}, "update/") == {
        "a": 1.0,
        "b/c": 2.0,
    }
    assert whole_number({"round": 2.0**53 - 1}, "round") == 2**53 - 1
