"""Tensors that are made when they are asked for."""

import pytest
import torch

from hanse.tensors.lazy import Lazy, map_each


def test_a_tensor_is_made_each_time_it_is_asked_for_and_no_other() -> None:
    asked: list[str] = []

    def make(name: str) -> torch.Tensor:
        asked.append(name)
        return torch.full((1,), float(len(name)))

    lazy = Lazy(["aa", "b"], make)
    assert list(lazy) == ["aa", "b"] and len(lazy) == 2 and "b" in lazy and "c" not in lazy
    assert asked == []
    assert lazy["aa"] == 2.0 and lazy["aa"] == 2.0 and asked == ["aa", "aa"]
    with pytest.raises(KeyError):
        lazy["c"]
    assert lazy.keys() == {"aa", "b"} and asked == ["aa", "aa"]
    assert {name: float(t) for name, t in dict(lazy).items()} == {"aa": 2.0, "b": 1.0}


def test_a_function_is_applied_on_demand() -> None:
    tensors = {"a": torch.ones(2), "b": torch.zeros(1)}
    doubled = map_each(lambda t: 2 * t, tensors)
    tensors["a"][0] = 5.0
    assert doubled["a"].tolist() == [10.0, 2.0] and doubled.keys() == tensors.keys()
