"""System turns are kept, merged into a question, or left out, as the experiment says."""

import json
from pathlib import Path

import pytest

from hanse.data.formats.system_turns import apply
from hanse.data.formats.turns import turn
from hanse.experiment.assembly.dataset.source_rows import gather
from hanse.experiment.schema import Experiment

NAMES = {"s": "system", "u": "user", "a": "assistant"}


def _talk(text: str) -> list[dict[str, str]]:
    return [dict(turn(NAMES[word[0]], word[1:])) for word in text.split()]


@pytest.mark.parametrize(
    ("before", "merged", "dropped"),
    [
        ("s1 u2 a3 u4 a5", ["u1\n\n2", "a3", "u4", "a5"], "u2 a3 u4 a5"),
        ("u1 a2 s3 s4 u5 a6", ["u1", "a2", "u3\n\n4\n\n5", "a6"], "u1 a2 u5 a6"),
        ("u1 s2 a3", ["u1\n\n2", "a3"], "u1 a3"),
        ("s1 a2 u3 a4", ["u1", "a2", "u3", "a4"], "a2 u3 a4"),
        ("s u1 a2", ["u1", "a2"], "u1 a2"),
        ("u1 a2", ["u1", "a2"], "u1 a2"),
    ],
)
def test_system_turns_go_as_they_are_told(before: str, merged: list[str], dropped: str) -> None:
    talk = [dict(turn(NAMES[text[0]], text[1:])) for text in merged]
    assert list(apply(_talk(before), "merge")) == talk
    assert list(apply(_talk(before), "drop")) == _talk(dropped)


def test_the_setting_is_applied_to_the_rows_and_said(tmp_path: Path) -> None:
    file = tmp_path / "talk.jsonl"
    talks = [_talk("s1 u2 a3"), _talk("u4 a5")]
    file.write_text("".join(json.dumps({"messages": talk}) + "\n" for talk in talks))

    def gathered(system: str) -> tuple[list[str], list[str]]:
        experiment = Experiment(data={"path": str(file), "system": system})
        found = gather(experiment)
        return [row.messages[0]["content"] for row in found.rows], found.remarks

    assert gathered("keep") == (["1", "4"], [])
    assert gathered("merge") == (["1\n\n2", "4"], [])
    contents, [remark] = gathered("drop")
    assert contents == ["2", "4"]
    assert remark.startswith("data.system drop leaves out the system turns of 1 of 2 conversations")
