"""hanse server and hanse join: what they refuse before anything is started."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

Hanse = Callable[..., Any]


def test_server_that_others_could_reach_needs_a_kit(hanse: Hanse, experiment_file: Path) -> None:
    done = hanse("server", experiment_file, "--host", "0.0.0.0")
    assert done.code == 2
    assert "0.0.0.0 can be reached from other machines" in done.err
    assert len(done.err.strip().splitlines()) == 1


def test_silo_of_another_machine_needs_a_kit(hanse: Hanse, tmp_path: Path) -> None:
    (tmp_path / "rows.jsonl").write_text('{"text": "a"}\n')
    file = tmp_path / "silo.yaml"
    file.write_text("name: a\nserver: far.example:8000\ndata: {path: rows.jsonl}\nstate: state\n")
    done = hanse("join", file)
    assert done.code == 2 and "which is not this machine" in done.err


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["clients={a: {data: {path: a.jsonl}}}"], "the server has no rows that it could hold out"),
        (
            ["clients={a: {data: {path: a.jsonl}}}", "data.test=0", "data.validation=0"],
            "write them down in data.labels",
        ),
        (["data.pooled=true"], "data.pooled puts all rows in one place"),
        (["deployment.quorum=0"], "deployment.quorum"),
        (["deployment.deadlin=3"], "did you mean 'deadline'"),
    ],
)
def test_what_cannot_be_deployed_is_said_in_a_sentence(
    hanse: Hanse, experiment_file: Path, words: list[str], sentence: str
) -> None:
    done = hanse("server", experiment_file, *words)
    assert done.code == 2
    assert sentence in done.err


def test_part_from_outside_the_package_does_not_travel(
    hanse: Hanse, experiment_file: Path, tmp_path: Path
) -> None:
    mine = Path(__file__).parent.parent.parent / "examples" / "my_algorithm.py"
    name = next(
        line.split()[1].partition("(")[0]
        for line in mine.read_text().splitlines()
        if line.startswith("class ")
    )
    done = hanse("server", experiment_file, f"algorithm={mine}:{name}")
    assert done.code == 2 and "code does not travel to silos" in done.err


def test_silo_that_is_not_enrolled_is_named(hanse: Hanse, experiment_file: Path) -> None:
    assert hanse("kit", "init", "--kit", "kit").code == 0
    done = hanse("server", experiment_file, "--kit", "kit")
    assert done.code == 2 and "silo-1, silo-2, silo-3 of this experiment are not" in done.err


def test_deployed_run_is_not_resumed_as_a_simulated_one(hanse: Hanse, tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "experiment.yaml").write_text("rounds: 1\n")
    (tmp_path / "run" / "deployed-as").write_text("abc")
    done = hanse("resume", "run")
    assert done.code == 2 and "`hanse server` command that began it" in done.err
