"""YAML in and out, and the changes of a command line."""

from pathlib import Path
from typing import Any

import pytest
import yaml

from hanse.errors import UserError
from hanse.settings import change, dump, merge, override, read


def test_a_file_is_read_with_its_text(tmp_path: Path) -> None:
    (tmp_path / "a.yaml").write_bytes(b"\xef\xbb\xbfrounds: 3\n")  # as Windows writes it
    assert read(tmp_path / "a.yaml") == ({"rounds": 3}, "rounds: 3\n")


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (b"rounds: 3\ndata: {path: x\nseed: 1\n", r"a\.yaml:3 is not valid YAML: "),
        (b"rounds: 3\n\tseed: 1\n", r"a\.yaml:2 is not valid YAML: "),
        (b"a: *b\n", r"a\.yaml.* is not valid YAML: .*undefined alias"),
        (b"a: !!python/object:os.system x\n", r"a\.yaml:1 is not valid YAML: could not determine"),
        (b"? [a]\n: b\n", r"a\.yaml:1 is not valid YAML: found unhashable key"),
        (b"a: 2020-99-99\n", r"a\.yaml is not valid YAML: month must be"),
        (b"a: !!bool maybe\n", "is not valid YAML"),
        (b"a: !!timestamp x\n", "is not valid YAML"),
        (b"", "holds no settings; write `key: value` lines"),
        (b"- 1\n", "holds no settings"),
        (b"\xff\xfe\x00", "cannot be read: it is not UTF-8 text"),
        (b"a: \x00", "not valid YAML"),
        (b"[" * 5000, "not valid YAML"),
    ],
)
def test_bad_yaml_is_a_sentence(tmp_path: Path, text: bytes, said: str) -> None:
    (tmp_path / "a.yaml").write_bytes(text)
    with pytest.raises(UserError, match=said):
        read(tmp_path / "a.yaml")


def test_a_file_that_is_not_there_is_a_sentence(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"a\.yaml cannot be read: No such file"):
        read(tmp_path / "a.yaml")
    with pytest.raises(UserError, match="cannot be read: Is a directory"):
        read(tmp_path)


PROX = {"algorithm": {"fedprox": {"mu": 1}}}


@pytest.mark.parametrize(
    ("values", "words", "expected"),
    [
        ({}, ["rounds=5"], {"rounds": 5}),
        ({"rounds": 1}, ["rounds=5", "rounds=6"], {"rounds": 6}),
        ({}, ["a.b.c=x=y"], {"a": {"b": {"c": "x=y"}}}),
        ({"train": {"max_steps": 4}}, ["train.max_steps=null"], {"train": {"max_steps": None}}),
        ({"data": {"path": "x"}}, ["data.test=0.5"], {"data": {"path": "x", "test": 0.5}}),
        ({}, ["labels={0: bad, 1: good}"], {"labels": {0: "bad", 1: "good"}}),
        ({}, ["name="], {"name": None}),
        # Choosing a part by one of its settings.
        ({"algorithm": "fedavg"}, ["algorithm.fedprox.mu=1"], PROX),
        ({"algorithm": {"fedavg": {}}}, ["algorithm.fedprox.mu=1"], PROX),
        ({}, ["algorithm.fedprox.mu=1"], PROX),
        (
            {"algorithm": {"fedopt": {"tau": 1}}},
            ["algorithm.fedopt.beta_1=0"],
            {"algorithm": {"fedopt": {"tau": 1, "beta_1": 0}}},
        ),
        (
            {"data": {"partition": {"iid": {}}, "test": 5}},
            ["data.partition.dirichlet.alpha=1"],
            {"data": {"partition": {"dirichlet": {"alpha": 1}}, "test": 5}},
        ),
        ({"algorithm": {"fedprox": {"mu": 1}}}, ["algorithm=fedavg"], {"algorithm": "fedavg"}),
        # A later word may say more about what an earlier one chose, or say the same thing anew.
        ({}, ["algorithm=fedprox", "algorithm.fedprox.mu=1"], PROX),
        ({}, ["algorithm.fedprox.mu=0", "algorithm.fedprox.mu=1"], PROX),
        ({}, ["algorithm=fedavg", "algorithm={fedprox: {mu: 1}}"], PROX),
        ({"adapter": {"from": "x"}}, ["adapter.lora.r=1", "adapter.lora.lora_alpha=2"],
         {"adapter": {"lora": {"r": 1, "lora_alpha": 2}}}),
    ],
)  # fmt: skip
def test_overrides(values: dict[str, Any], words: list[str], expected: dict[str, Any]) -> None:
    before = dump(values)
    assert override(values, map(change, words)) == expected
    assert dump(values) == before  # the caller's values stay


@pytest.mark.parametrize(
    ("word", "said"),
    [
        ("rounds", "'rounds' is no override; write key=value, such as rounds=5"),
        ("=5", "is no override"),
        ("a..b=5", "is no override"),
        ("a=2020-99-99", "the value in 'a=2020-99-99' is not valid YAML"),
        ("a=!!bool maybe", "is not valid YAML"),
        ("a=" + "[" * 3000, "is not valid YAML"),
        ("a=[1", r"the value in 'a=\[1' is not valid YAML"),
    ],
)
def test_a_wrong_override_is_a_sentence(word: str, said: str) -> None:
    with pytest.raises(UserError, match=said) as caught:
        change(word)
    assert len(str(caught.value)) < 200


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["adapter.from=x", "adapter.lora.r=4"], "choose differently for adapter; leave one"),
        (["adapter.lora.r=4", "adapter.from=x"], "choose differently for adapter"),
        (["algorithm.fedprox.mu=1", "algorithm.fedavg={}"], "choose differently for algorithm"),
        (["algorithm.fedprox.mu=1", "algorithm=fedavg"], "choose differently for algorithm"),
        (["algorithm={fedavg: {}}", "seed=1", "algorithm.fedprox.mu=1"], "choose differently"),
        (["data.partition=iid", "data.partition.key.column=x"], "for data.partition"),
        (["algorithm.fedprox.mu=1", "algorithm=fedprox"], "the second undoes the first"),
        (["data.labels.a=x", "data={path: y}"], "the second undoes the first"),
    ],
)
def test_overrides_that_undo_each_other_are_refused(words: list[str], said: str) -> None:
    with pytest.raises(UserError, match=said) as caught:
        override({}, map(change, words))
    assert repr(words[0]) in str(caught.value) and repr(words[-1]) in str(caught.value)


def test_merging_goes_key_by_key_and_replaces_choices() -> None:
    values = {"data": {"path": "x", "partition": {"iid": {}}}, "adapter": {"lora": {"r": 8}}}
    over = {"data": {"path": "y"}, "adapter": {"from": "run"}}
    assert merge(values, over) == {
        "data": {"path": "y", "partition": {"iid": {}}},
        "adapter": {"from": "run"},
    }
    assert merge(values, {"adapter": {"lora": {"alpha": 1}}})["adapter"]["lora"] == {
        "r": 8, "alpha": 1
    }  # fmt: skip
    assert merge(values, {"data": None}) == {**values, "data": None}


def test_a_dump_reads_back_in_its_own_order() -> None:
    values = {"z": 1, "a": {"ö": "line\nbreak: x", "n": None}, "l": [1.5, "0", True]}
    text = dump(values)
    assert yaml.safe_load(text) == values and list(yaml.safe_load(text)) == ["z", "a", "l"]
