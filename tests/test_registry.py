"""Every part is found by its file's name, and a wrong name is met with the nearest right one."""

from dataclasses import MISSING, fields, is_dataclass
from pathlib import Path

import pytest

import hanse
from hanse.errors import UserError
from hanse.experiment.part_kinds import PART_KINDS
from hanse.federation.algorithms.fedavg import FedAvg
from hanse.federation.algorithms.fedprox import FedProx
from hanse.registry import build, find, names, settings, suggestion
from hanse.security import trusted_code

FOLDERS = [kind.folder for kind in PART_KINDS]
ALL = [(folder, name) for folder in FOLDERS for name in names(folder)]

MINE = """
from dataclasses import dataclass, field
from hanse.federation.algorithms.fedavg import FedAvg
from hanse.federation.interfaces.algorithm import Algorithm

@dataclass(frozen=True)
class Mine(FedAvg):
    pull: float = 0.5
"""


@pytest.mark.parametrize(("folder", "name"), ALL)
def test_every_part_builds_with_its_defaults(folder: str, name: str) -> None:
    part = find(folder, name)
    assert is_dataclass(part) and part.__doc__
    required = [
        f.name for f in fields(part) if f.default is MISSING and f.default_factory is MISSING
    ]
    shown = {setting.name: setting for setting in settings(part)}
    assert shown.keys() == {field.name for field in fields(part)}
    assert all(setting.type for setting in shown.values())
    if required:
        with pytest.raises(UserError, match=required[0]):
            build(folder, name)
        assert not shown[required[0]].default
    else:
        built = build(folder, name)
        assert type(built) is part and built == build(folder, {name: None})
        with pytest.raises((AttributeError, TypeError)):  # frozen
            built.anything = 1  # type: ignore[attr-defined]


def test_the_folders_are_the_registry() -> None:
    for folder in FOLDERS:
        home = Path(hanse.__path__[0]) / folder
        files = {file.stem for file in home.glob("*.py")} - {"__init__"}
        assert set(names(folder)) <= files and names(folder) == sorted(names(folder))
    assert {"fedavg", "fedprox"} <= set(names("federation/algorithms"))
    # A file without a class of its own name helps the parts, and is none.
    assert "metrics" not in names("evaluation")
    assert (Path(hanse.__path__[0]) / "evaluation/metrics").exists()


def test_settings_come_from_the_spec() -> None:
    assert build("federation/algorithms", {"fedprox": {"mu": 0.25}}) == FedProx(mu=0.25)
    assert build("federation/algorithms", {"fedprox": {"mu": "1e-3"}}) == FedProx(
        mu=0.001
    )  # YAML's 1e-3
    assert type(build("federation/algorithms", "fedavg")) is FedAvg


def test_the_word_none_leaves_a_setting_out_where_it_is_no_text() -> None:
    lora = build("learners/adapters", {"lora": {"layers_to_transform": "none"}})
    assert lora.layers_to_transform is None
    with pytest.raises(UserError, match=r"lora.r is 'none'"):
        build("learners/adapters", {"lora": {"r": "none"}})
    by_key = build("data/partitioners", {"key": {"column": "none"}})
    assert by_key.column == "none"


def test_a_settings_type_is_shown_as_a_person_would_write_it() -> None:
    shown = {setting.name: setting.type for setting in settings(find("evaluation", "generation"))}
    assert shown["metrics"] == "list of exact_match | rouge_l | chrf"
    assert shown["answer"] == "whole | number"
    assert shown["limit"] == "int"


@pytest.mark.parametrize(
    ("spec", "said"),
    [
        ("fedproxx", r"no 'fedproxx' in algorithms \(did you mean 'fedprox'\?\); there are "),
        ("zzz", "no 'zzz' in algorithms; there are .*or path/to/file.py:Class"),
        ("", "no '' in algorithms"),
        ("../algorithms/fedavg", "there is no"),
        ("__init__", "there is no"),
        ({"fedprox": {"muu": 1}}, r"no setting 'muu' \(did you mean 'mu'\?\); its settings are "),
        ({"fedavg": {"mu": 1}}, "fedavg has no setting 'mu'"),
        ({"fedprox": {"mu": "much"}}, r"fedprox\.mu is 'much'; "),
        ({"fedprox": {"mu": None}}, r"fedprox\.mu is None; "),
        ({"fedprox": {"mu": -1}}, r"fedprox\.mu is -1; .*greater than or equal to 0"),
        ({"fedprox": {"mu": [1]}}, r"fedprox\.mu is \[1\]; "),
        ({"fedprox": 0.1}, r"settings of fedprox are 0\.1; write {setting: value}"),
        ({"fedprox": {1: 2}}, "fedprox has no setting 1"),
        ({"fedprox": {}, "fedavg": {}}, "but there are 2: fedprox, fedavg"),
        ({}, "but there are 0: none"),
        ({3: {}}, "no '3' in algorithms"),
    ],
)
def test_a_wrong_spec_is_a_sentence(spec: object, said: str) -> None:
    with pytest.raises(UserError, match=said):
        build("federation/algorithms", spec)  # type: ignore[arg-type]


def test_a_part_may_live_outside_the_package(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "mine.py").write_text(MINE)
    trusted_code.grant(tmp_path / "mine.py")
    found = build("federation/algorithms", {f"{tmp_path}/mine.py:Mine": {"pull": 0.75}})
    assert isinstance(found, FedAvg) and found.pull == 0.75  # type: ignore[attr-defined]
    monkeypatch.chdir(tmp_path)
    assert build("federation/algorithms", "mine.py:Mine").pull == 0.5
    with pytest.raises(UserError, match=r"no setting 'pul' \(did you mean 'pull'\?\)"):
        build("federation/algorithms", {"mine.py:Mine": {"pul": 1}})


@pytest.mark.parametrize(
    ("text", "name", "said"),
    [
        (MINE, "mine.py:Mein", r"has no class 'Mein' \(did you mean 'Mine'\?\)"),
        (MINE, "mine.py:", "has no class ''"),
        (MINE, "mein.py:Mine", "there is no file 'mein.py' for the part 'mein.py:Mine'"),
        (MINE, ":Mine", "there is no file ''"),
        ("def f(:\n", "mine.py:Mine", "mine.py is not valid Python"),
        ("Mine = 3\n", "mine.py:Mine", "has no class 'Mine'"),
        ("\n1 / 0\n", "mine.py:Mine", "mine.py:2 cannot be used: ZeroDivisionError: "),
        ("import nowhere_at_all\n", "mine.py:Mine", "mine.py:1 cannot be used: ModuleNotFound"),
        ("raise SystemExit(3)\n", "mine.py:Mine", "mine.py:1 cannot be used: SystemExit"),
        ("class Mine: pass\n", "mine.py:Mine", r"no complete part; put @dataclass\(frozen=True\)"),
        (
            MINE.replace("(FedAvg)", "(Algorithm)"),
            "mine.py:Mine",
            "no complete part; define step, train",
        ),
        (MINE.replace("0.5", "field()"), "mine.py:Mine", "needs its setting 'pull'"),
        (
            MINE.replace("float", "'Nope'"),
            "mine.py:Mine",
            "settings of mine.py:Mine cannot be read",
        ),
    ],
)
def test_a_wrong_part_from_outside_is_a_sentence(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, text: str, name: str, said: str
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mine.py").write_text(text)
    with trusted_code.granting(), pytest.raises(UserError, match=said):
        build("federation/algorithms", name)


def test_suggestions_are_near_or_none() -> None:
    assert suggestion("rouns", ["rounds", "seed"]) == " (did you mean 'rounds'?)"
    assert suggestion("zzz", ["rounds"]) == "" and suggestion("a", []) == ""
