"""The words for a run's codecs and mechanism, from any experiment.yaml."""

from typing import Any

import pytest

from hanse.journal.run_settings import RunSettings

FEEDBACK = {"upload": [{"topk": {"k": 0.1}}, "bf16"], "download": [], "error_feedback": True}


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({}, ""),
        ({"compression": {"upload": [], "download": [], "error_feedback": False}}, ""),
        ({"compression": {"upload": [{"bf16": {}}]}}, "updates by bf16"),
        ({"compression": FEEDBACK}, "updates by topk, bf16, with error feedback"),
        (
            {"compression": {"upload": ["a"], "download": ["b"]}, "clients": {"x": {"train": {}}}},
            "updates by a, instructions by b",
        ),
        (
            {"clients": {"x": {"compression": {}}, "y": {"data": {}}, "z": 3}},
            "1 of the clients by their own settings",
        ),
        ({"compression": "damaged", "clients": [1]}, ""),
        ({"compression": {"upload": {"bf16": None}}}, "updates by bf16"),
    ],
)
def test_compression_in_words(values: dict[str, Any], words: str) -> None:
    assert RunSettings(values, "").compression == words


def test_mechanism_in_words() -> None:
    assert RunSettings({"privacy": {"gauss": {"sigma": 1}}}, "").mechanism == "gauss"
    assert RunSettings({"privacy": None}, "").mechanism == RunSettings({}, "").mechanism == ""
