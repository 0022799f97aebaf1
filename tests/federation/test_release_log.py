"""The log of releases and their contents, on disk."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from hanse.errors import UserError
from hanse.federation.releases import KEPT_OF_A_ROUND, ReleaseLog
from hanse.journal import record_files
from hanse.journal.record_files import RecordError
from hanse.journal.records import Mechanism, ReleaseRecord
from hanse.journal.run_folder import read_releases


def record(round: int, **more: Any) -> ReleaseRecord:
    drawn = (Mechanism("Noise"),)
    return ReleaseRecord(round=round, mechanisms=drawn, clients=("c0",), weight=1.0, **more)


def test_a_release_is_found_again_by_round_and_request(tmp_path: Path) -> None:
    log = ReleaseLog(tmp_path)
    log.keep(record(1, request="a"), b"one")
    for again in (log, ReleaseLog(tmp_path)):
        release = again.find(1, "a")
        assert release is not None and release[1] == b"one" and release[0].request == "a"
        assert again.find(1) is None and again.find(1, "b") is None and again.find(2, "a") is None
    log.keep(record(1, request="b"), b"other")
    for again in (log, ReleaseLog(tmp_path)):
        contents = [release and release[1] for release in (again.find(1, "a"), again.find(1, "b"))]
        assert contents == [b"one", b"other"]
    assert [line.request for line in read_releases(tmp_path)] == ["a", "b"]


def test_of_many_requests_in_a_round_the_last_ones_are_kept(tmp_path: Path) -> None:
    log = ReleaseLog(tmp_path)
    for number in range(KEPT_OF_A_ROUND + 3):
        log.keep(record(1, request=str(number)), b"%d" % number)
    found = [again.find(1, "2") for again in (log, ReleaseLog(tmp_path))]
    assert found == [None, None] and log.find(1, "3") is not None
    assert len(list((tmp_path / "releases").iterdir())) == KEPT_OF_A_ROUND


def test_the_contents_of_two_rounds_are_kept_and_the_lines_of_all(tmp_path: Path) -> None:
    log = ReleaseLog(tmp_path)
    for round in range(1, 6):
        log.keep(record(round), b"%d" % round)
    for again in (log, ReleaseLog(tmp_path)):
        contents = [release and release[1] for release in map(again.find, range(1, 6))]
        assert contents == [None, None, None, b"4", b"5"]
    assert [line.round for line in read_releases(tmp_path)] == [1, 2, 3, 4, 5]
    assert len(list((tmp_path / "releases").iterdir())) == 2


@pytest.mark.parametrize("damage", [Path.unlink, lambda file: file.write_bytes(b"other noise")])
def test_a_damaged_or_missing_release_is_not_drawn_again(
    tmp_path: Path, damage: Callable[[Path], object]
) -> None:
    log = ReleaseLog(tmp_path)
    log.keep(record(1), b"noise")
    [file] = (tmp_path / "releases").iterdir()
    damage(file)
    for again in (log, ReleaseLog(tmp_path)):
        with pytest.raises(UserError, match=r"must not be drawn again: bring the file back"):
            again.find(1)


def test_a_half_written_line_is_no_release_and_makes_way(tmp_path: Path) -> None:
    ReleaseLog(tmp_path).keep(record(1), b"one")
    file = tmp_path / "releases.jsonl"
    whole = file.read_bytes()
    file.write_bytes(whole + record_files.line(record(2))[:-9])
    log = ReleaseLog(tmp_path)
    assert log.find(1) is not None and log.find(2) is None
    log.keep(record(2), b"two")
    assert file.read_bytes().startswith(whole)
    assert [line.round for line in read_releases(tmp_path)] == [1, 2]
    file.write_bytes(b"{}\n" + whole)
    with pytest.raises(RecordError, match="the key round is missing"):
        ReleaseLog(tmp_path).find(1)


def test_runs_that_share_a_log_have_releases_of_their_own(tmp_path: Path) -> None:
    logs = [ReleaseLog(tmp_path / run, tmp_path, run, private=True) for run in "ab"]
    for log in logs:
        log.keep(record(1), log.run.encode())
    for run in "ab":
        release = ReleaseLog(tmp_path / run, tmp_path, run).find(1)
        assert release is not None and release[1] == run.encode()
    assert [line.run for line in read_releases(tmp_path)] == ["a", "b"]
    files = [tmp_path / "releases.jsonl", *tmp_path.glob("*/releases/*")]
    assert {file.stat().st_mode & 0o777 for file in files} == {0o600} and len(files) == 3
