"""Which settings there are, by looking at their types."""

from hanse.experiment.schema import Experiment
from hanse.experiment.validation import free, keys, leaves


def test_the_settings_at_a_place() -> None:
    assert {"rounds", "train", "clients"} <= set(keys(Experiment, ()))
    assert {"path", "partition"} <= set(keys(Experiment, ("data",)))
    assert {"r", "lora_alpha"} <= set(keys(Experiment, ("adapter", "lora")))
    assert "from" in keys(Experiment, ("adapter",))
    assert keys(Experiment, ("nowhere",)) == keys(Experiment, ("rounds",)) == []


def test_the_names_that_only_one_setting_has() -> None:
    found = leaves(Experiment)
    assert found["learning_rate"] == ("train", "learning_rate")
    assert found["r"] == ("adapter", "lora", "r") and found["rounds"] == ("rounds",)
    assert "test" not in found  # data.test and evaluation.test
    assert "train" not in found  # a section


def test_where_the_keys_are_the_users_own() -> None:
    for place in (("data", "labels"), ("data", "filter"), ("clients",), ("clients", "x", "train")):
        assert free(Experiment, place), place
    for place in ((), ("data",), ("adapter", "lora"), ("rounds",), ("nowhere",)):
        assert not free(Experiment, place), place
