"""A request has one name in all logs, on consoles and in the log file."""

import json
import logging
import stat
from collections.abc import Iterator
from pathlib import Path

import pytest

from hanse.observability import json_logs
from hanse.observability.json_logs import LogFormat, TextLines, console_lines, log_file
from hanse.observability.requests import answering, log_event, log_fields, request_id

NAME = request_id("3fa9c1e2d4b5a697", 7, "north", "train")
log = logging.getLogger("hanse.test_requests")


@pytest.fixture(autouse=True)
def all_lines() -> Iterator[None]:
    former = log.level
    log.setLevel(logging.INFO)
    yield
    log.setLevel(former)


def lines(folder: Path) -> list[dict[str, object]]:
    return [json.loads(line) for line in (folder / "log.jsonl").read_text().splitlines()]


def about() -> dict[str, object]:
    return {"run": "3fa9c1e2d4b5a697", "round": 6}


def test_the_name_of_a_request_says_run_round_client_and_kind() -> None:
    assert NAME == "3fa9c1e2/7/north/train"
    assert log_fields("sent", NAME) == {
        **{"event": "sent", "request_id": NAME, "round": 7, "silo": "north"}
    }


def test_text_lines_end_in_the_request_and_others_are_as_before() -> None:
    plain = logging.Formatter("%(levelname)s %(message)s")
    record = logging.makeLogRecord({"msg": "it came", "levelname": "INFO"})
    assert TextLines(plain).format(record) == "INFO it came"
    with answering(NAME):
        assert TextLines(plain).format(record) == f"INFO it came [{NAME}]"
    record.request_id = "other/1/a/train"
    record.exc_text = "Traceback\nValueError"
    text = TextLines(plain).format(record)
    assert text == "INFO it came [other/1/a/train]\nTraceback\nValueError"


def test_a_log_file_has_lines_and_events_with_their_request(tmp_path: Path) -> None:
    with log_file(tmp_path, about):
        log.info("ready")
        with answering(NAME):
            log.warning("it trains")
            log_event("encoded", "encoded: %d tensors", 4)
        log_event("sent", "sent", request=NAME)
    log.info("after the block")
    log_event("sent", "after the block", request=NAME)
    ready, trains, encoded, sent = lines(tmp_path)
    assert (ready["message"], ready["round"], ready.get("request_id")) == ("ready", 6, None)
    assert (trains["level"], trains["request_id"]) == ("warning", NAME)
    assert (encoded["event"], encoded["request_id"]) == ("encoded", NAME)
    assert (encoded["message"], encoded["round"]) == ("encoded: 4 tensors", 7)
    assert (sent["request_id"], sent["silo"]) == (NAME, "north")
    assert stat.S_IMODE((tmp_path / "log.jsonl").stat().st_mode) == 0o600


def test_why_the_work_ended_is_the_last_line(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="no client"), log_file(tmp_path, about):
        raise ValueError("no client's update could be used")
    [line] = lines(tmp_path)
    assert (line["event"], line["message"]) == ("ended", "ended: no client's update could be used")


def test_events_are_not_shown_on_a_console(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    console = logging.StreamHandler()
    logging.getLogger().addHandler(console)
    try:
        with console_lines(LogFormat.TEXT, about), log_file(tmp_path, about):
            log_event("sent", "an event", request=NAME)
            log.warning("a line", extra=log_fields("failed", NAME))
        log.warning("later")
    finally:
        logging.getLogger().removeHandler(console)
    assert capsys.readouterr().err == f"a line [{NAME}]\nlater\n"


def test_a_file_that_cannot_be_written_is_said_once_and_the_work_goes_on(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "log.jsonl").symlink_to(tmp_path / "elsewhere")
    with log_file(tmp_path, about):
        log.warning("one")
        log.warning("two")
    assert caplog.text.count("cannot be written, so it lacks lines") == 1
    assert not (tmp_path / "elsewhere").exists()


def test_a_large_file_is_begun_anew_beside_the_former_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(json_logs, "LARGEST", 400)
    with log_file(tmp_path, about):
        for number in range(9):
            log.info("line %d", number)
    former = (tmp_path / "log.jsonl.1").read_text()
    assert lines(tmp_path)[-1]["message"] == "line 8"
    assert "line 0" not in former + (tmp_path / "log.jsonl").read_text()
    assert stat.S_IMODE((tmp_path / "log.jsonl").stat().st_mode) == 0o600
