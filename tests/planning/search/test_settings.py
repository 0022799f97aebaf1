"""The combinations that a search tries."""

import re
from collections import Counter
from pathlib import Path

import pytest

from hanse.errors import UserError
from hanse.experiment.loading import load
from hanse.planning.method_defaults import ADAPTERS, ALGORITHMS, around, page
from hanse.planning.search.settings import Wishes, drawn, rates, settings
from hanse.planning.search.trial import experiment_of
from samples import ROOT


def test_the_files_own_settings_come_first_and_keep_their_rate(experiment_file: Path) -> None:
    every = settings(load(experiment_file), Wishes())
    assert len(every) == 4 * 3 * 3
    own = every[0]
    assert own.own and own.pair == ("lora", "fedavg") and own.rate == 0.01
    assert own.adapter.value["lora"]["r"] == 4, "the file's, not the table's"
    assert not any(setting.own for setting in every[1:])
    lora = {setting.rate for setting in every if setting.adapter.label == "lora"}
    assert lora == {0.003, 0.01, 0.03}
    ia3 = {setting.rate for setting in every if setting.adapter.label == "ia3"}
    assert ia3 == set(around(ADAPTERS["ia3"].rate))


def test_names_with_settings_change_those_of_the_file(experiment_file: Path) -> None:
    wishes = Wishes("lora, {lora: {r: 2}}, ia3", "{fedprox: {mu: 0.5}}", (1e-3, 3e-3))
    every = settings(load(experiment_file), wishes)
    labels = [setting.adapter.label for setting in every if setting.rate == 1e-3]
    assert labels == ["lora", "lora r=2", "ia3"]
    assert {setting.algorithm.label for setting in every} == {"fedprox mu=0.5"}
    experiment = experiment_of(load(experiment_file), every[2])
    assert experiment.adapter.lora.r == 2  # type: ignore[attr-defined]
    assert experiment.algorithm == {"fedprox": {"mu": 0.5}}
    assert experiment.train.learning_rate == 1e-3 and experiment.train.max_steps == 3


def test_choices_that_differ_in_one_setting_are_both_tried(experiment_file: Path) -> None:
    long = "{lora: {r: 16, lora_alpha: %d, lora_dropout: 0.1, target_modules: all-linear}}"
    every = settings(load(experiment_file), Wishes(f"{long % 32}, {long % 64}", "fedavg", (1e-3,)))
    assert [s.adapter.value["lora"]["lora_alpha"] for s in every] == [32, 64]
    assert len({setting.pair for setting in every}) == 2, "each has a name of its own"


def test_the_files_own_settings_in_other_words_are_tried_once(experiment_file: Path) -> None:
    every = settings(load(experiment_file), Wishes("{lora: {r: 4}}, lora", "fedavg"))
    assert len(every) == 3 and every[0].own and every[0].rate == 0.01


@pytest.mark.parametrize(
    ("wishes", "said"),
    [
        (Wishes("{lora: {}, ia3: {}}"), "--adapters came with {'lora': {}, 'ia3': {}}; write"),
        (Wishes(""), "--adapters came empty; write names, such as lora"),
        (Wishes("[lora"), "is not valid YAML"),
        (Wishes("vera"), "the table of defaults has no learning rate for vera, but for lora"),
        (Wishes("lorra"), "no learning rate for lorra (did you mean 'lora'?), but for lora"),
        (Wishes("{lora: 4}"), "the settings of lora are 4; write {setting: value}"),
        (Wishes(algorithms="{fedprox: [0.1]}"), "the settings of fedprox are [0.1]; write"),
        (Wishes(algorithms="3"), "--algorithms came with 3; write names"),
    ],
)
def test_unreadable_names_are_one_sentence(
    experiment_file: Path, wishes: Wishes, said: str
) -> None:
    with pytest.raises(UserError, match=re.escape(said)):
        settings(load(experiment_file), wishes)


@pytest.mark.parametrize("text", ["", "1e-3,x", "0", "-1", "inf", "nan"])
def test_rates_that_are_none_are_one_sentence(text: str) -> None:
    with pytest.raises(UserError, match="write positive numbers"):
        rates(text)
    assert rates("3e-3, 1e-3,3e-3") == (1e-3, 3e-3)


def test_each_pair_is_drawn_equally_often(experiment_file: Path) -> None:
    every = settings(load(experiment_file), Wishes())
    chosen = drawn(every, 20, seed=1)
    assert chosen[0] == every[0] and len(chosen) == 20
    counts = Counter(setting.pair for setting in chosen)
    assert len(counts) == 12 and set(counts.values()) == {1, 2}
    assert chosen == drawn(every, 20, seed=1) != drawn(every, 20, seed=2)
    assert {str(one.words) for one in drawn(every, 99, 0)} == {str(one.words) for one in every}


def test_the_table_has_its_sources_and_fits_what_is_written_elsewhere() -> None:
    for default in (*ADAPTERS.values(), *ALGORITHMS.values()):
        assert re.search(r"\b\d{4}\.\d{5}\b|\bhere\b", default.source)
    assert around(5e-4) == (2e-4, 5e-4, 2e-3)
    template = ROOT / "src/hanse/planning/first_experiment/experiment.yaml.jinja"
    text = template.read_text(encoding="utf-8")
    rate = re.search(r"learning_rate: (\S+)", text)
    assert rate and float(rate[1]) == ADAPTERS["lora"].rate
    lora = ", ".join(f"{key}: {value}" for key, value in ADAPTERS["lora"].settings.items())
    assert f"lora: {{{lora}}}" in text
    assert page() in (ROOT / "docs" / "search.md").read_text(encoding="utf-8")


def test_the_algorithms_of_the_table_have_their_own_defaults(experiment_file: Path) -> None:
    for name, default in ALGORITHMS.items():
        resolved = load(experiment_file, [f"algorithm={name}"]).resolved()["algorithm"][name]
        assert {key: resolved[key] for key in default.settings} == dict(default.settings)
