"""YAML in and out, and the changes of a command line."""

import resource
import time
from pathlib import Path
from typing import Any

import pytest
import yaml

from hanse.errors import UserError
from hanse.experiment.overrides import merge, override, parse_change
from hanse.journal.yaml_text import dump, read


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
        (b"[" * 100_000, "not valid YAML: it is nested more than 100 deep"),
        (b"a: " + b"[" * 101 + b"]" * 101, "not valid YAML: it is nested more than 100 deep"),
    ],
)
def test_bad_yaml_is_a_sentence(tmp_path: Path, text: bytes, said: str) -> None:
    (tmp_path / "a.yaml").write_bytes(text)
    with pytest.raises(UserError, match=said):
        read(tmp_path / "a.yaml")


def laughs(levels: int, mapping: bool = False) -> str:
    """A text of some lines that stands for 9 to the power of `levels` words."""
    lines = ["a0: &a0 [lol, lol, lol, lol, lol, lol, lol, lol, lol]"]
    for level in range(1, levels):
        below = [f"*a{level - 1}"] * 9
        inner = ", ".join(f"k{k}: {name}" for k, name in enumerate(below))
        lines.append(
            f"a{level}: &a{level} " + (f"{{{inner}}}" if mapping else f"[{', '.join(below)}]")
        )
    return "\n".join(lines) + "\n"


def merges(levels: int) -> str:
    """The same with YAML's merge keys."""
    lines = ["a0: &a0 {x: lol, y: lol}"]
    for level in range(1, levels):
        below = ", ".join([f"*a{level - 1}"] * 9)
        lines.append(f"a{level}: &a{level} {{<<: [{below}], z{level}: 1}}")
    return "\n".join(lines) + "\n"


@pytest.mark.parametrize(
    "text",
    [
        *(laughs(9), laughs(9, mapping=True), merges(9), laughs(200)),
        "a: &a " + "x" * 100_000 + "\nb: [" + ", ".join(["*a"] * 1000) + "]\n",
    ],
)
def test_aliases_stand_for_no_more_than_one_would_write(tmp_path: Path, text: str) -> None:
    (tmp_path / "a.yaml").write_text(text)
    before, start = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, time.perf_counter()
    with pytest.raises(UserError, match=r"its aliases \(\*name\) stand for more than [\d,]+ signs"):
        read(tmp_path / "a.yaml")
    assert time.perf_counter() - start < 1
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 64 * 1024  # kB


def test_a_few_aliases_are_fine_and_none_may_contain_itself(tmp_path: Path) -> None:
    (tmp_path / "a.yaml").write_text(laughs(3) + "b: &b {<<: {c: 1}}\nd: *b\n")
    values = read(tmp_path / "a.yaml")[0]
    assert values["a2"][8][8][8] == "lol" and values["d"] == {"c": 1}
    (tmp_path / "a.yaml").write_text("a: &a {b: [*a]}\n")
    with pytest.raises(UserError, match=r"a\.yaml:1 is not valid YAML: an alias contains itself"):
        read(tmp_path / "a.yaml")
    with pytest.raises(UserError, match="is not valid YAML"):
        parse_change(
            "x="
            + "[&a [l,l,l,l,l,l,l,l,l]"
            + "".join(
                f", &{new} [{', '.join(['*' + old] * 9)}]"
                for old, new in zip("abcdefg", "bcdefgh", strict=True)
            )
            + "]"
        )


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
    assert override(values, map(parse_change, words)) == expected
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
        parse_change(word)
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
        override({}, map(parse_change, words))
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
