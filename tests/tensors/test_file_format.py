"""The format of safetensors: written to the same bytes, and read as strictly."""

import json
import random
from typing import Any

import pytest
import safetensors.torch
import torch
from safetensors import SafetensorError

from hanse.tensors.file_format import DTYPES, METADATA, MOST_DIMENSIONS, parts, places, tensor

META = {"hanse": '{"a": "\\u00fc"}'}


def every_dtype() -> dict[str, torch.Tensor]:
    """A tensor of each dtype under names that sort otherwise than their dtypes."""
    draw = torch.Generator().manual_seed(0)
    result = {}
    for number, dtype in enumerate(DTYPES.values()):
        data = torch.randint(0, 2, (3, 16), dtype=torch.uint8, generator=draw)
        result[f"{number * 7 % 18:02d} {dtype}"] = data.view(dtype)
    odd = {'é"\\\n\x01\x7f': torch.zeros(0, 2), "scalar": torch.tensor(2.5), "": torch.ones(1)}
    return {**result, **odd, "a": torch.arange(12.0).reshape(3, 4).T, "b": torch.ones(4)[1:3]}


def split(data: bytes) -> tuple[dict[str, Any], bytes]:
    first = 8 + int.from_bytes(data[:8], "little")
    return json.loads(data[8:first]), data[first:]


@pytest.mark.parametrize("names", [None, [], ["a"], ["scalar", "a"]])
def test_the_bytes_are_those_that_safetensors_writes(names: list[str] | None) -> None:
    tensors = every_dtype()
    chosen = {name: tensors[name] for name in (tensors if names is None else names)}
    whole = {name: t.contiguous().clone() for name, t in chosen.items()}
    assert b"".join(parts(chosen, META)) == safetensors.torch.save(whole, metadata=META)


def test_contiguous_tensors_are_not_copied() -> None:
    large = torch.zeros(1000)
    data = parts({"a": large}, META)[1]
    large[0] = 1.0
    assert data[:4] == torch.tensor(1.0).numpy().tobytes()


def test_each_tensor_is_read_from_its_place() -> None:
    tensors = every_dtype()
    header, data = split(b"".join(parts(tensors, META)))
    found = places(header, len(data))
    assert list(found) == sorted(tensors)
    for name, place in found.items():
        copy = tensor(place, bytearray(data[place.start : place.stop]))
        assert (copy.dtype, copy.shape) == (tensors[name].dtype, tensors[name].shape)
        expected = tensors[name].contiguous().reshape(-1).view(torch.uint8)
        assert torch.equal(copy.reshape(-1).view(torch.uint8), expected)


BAD: dict[str, dict[str, Any]] = {
    "gap": {"data_offsets": [17, 21]},
    "overlap": {"data_offsets": [15, 19]},
    "beyond": {"data_offsets": [16, 24], "shape": [2]},
    "turned": {"data_offsets": [20, 16]},
    "short": {"shape": [2]},
    "negative": {"shape": [-1]},
    "two negative ones": {"shape": [-1, -1]},
    "a float": {"shape": [1.0]},
    "true": {"shape": [True]},
    "endless and empty": {"shape": [0, 2**62, 2**62], "data_offsets": [16, 16]},
    "many dimensions": {"shape": [1] * (MOST_DIMENSIONS + 1)},
    "no list": {"shape": 1},
    "three offsets": {"data_offsets": [16, 20, 20]},
    "a dtype of 4 bits": {"dtype": "F4", "shape": [8]},
    "no dtype": {"dtype": ["F32"]},
}


@pytest.mark.parametrize("what", BAD)
def test_a_header_that_does_not_fit_its_data_is_refused(what: str) -> None:
    good = {"dtype": "F32", "shape": [1], "data_offsets": [16, 20]}
    first = {"dtype": "F64", "shape": [2], "data_offsets": [0, 16]}
    header: dict[str, Any] = {METADATA: META, "#": first, "a": good}
    assert places(header, 20)["a"].stop == 20
    with pytest.raises(ValueError, match=r"entry of the tensor 'a'|overlap|bytes"):
        places({**header, "a": {**good, **BAD[what]}}, 20)


def test_what_safetensors_refuses_is_refused() -> None:
    """Seeded changes of numbers in a header, judged by both readers."""
    draw = random.Random(0)
    header, data = split(b"".join(parts({n: torch.ones(2, 3) for n in "abc"}, META)))
    refused = 0
    for _ in range(300):
        wrong = json.loads(json.dumps(header))
        entry = wrong[draw.choice("abc")]
        key, index = draw.choice(["shape", "data_offsets"]), draw.randrange(2)
        entry[key][index] = draw.choice([0, 1, 2, 3, 24, 48, 72, 73, 2**40, 2**64 - 1, 6])
        text = json.dumps(wrong).encode()
        try:
            safetensors.torch.load(len(text).to_bytes(8, "little") + text + data)
        except SafetensorError:
            refused += 1
            with pytest.raises(ValueError, match="tensor"):
                places(wrong, len(data))
        else:
            assert places(wrong, len(data)).keys() == {*"abc"}
    assert 50 < refused < 300
