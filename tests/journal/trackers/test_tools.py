"""Each tool's own reader finds what a run was, also after the run was stopped and resumed."""

import math
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from hanse.journal.tracking import following
from hanse.registry import build

Commit = Callable[[int], None]

pytestmark = pytest.mark.extras


def _follow(name: str, folder: Path, commit: Commit) -> None:
    """A run of rounds 0 to 3 that is stopped after round 1, and is untold about round 1."""
    with (
        pytest.raises(KeyboardInterrupt),
        following({name: build("journal/trackers", name)}, folder) as on,
    ):
        commit(0)
        on()
        commit(1)
        raise KeyboardInterrupt
    with following({name: build("journal/trackers", name)}, folder) as tell:
        commit(2)
        tell()
        commit(3)
        tell()


def test_tensorboard(folder: Path, commit: Commit) -> None:
    reader = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    _follow("tensorboard", folder, commit)
    events = reader.EventAccumulator(str(folder / "tensorboard"))
    events.Reload()
    found = events.Scalars("clients/south/loss")
    assert [(event.step, event.value) for event in found] == [(n, 0.75 + n) for n in range(4)]
    assert [event.wall_time for event in found] == [1_700_000_000.0 + 60 * n for n in range(4)]
    assert all(math.isnan(event.value) for event in events.Scalars("validation/loss"))
    [text] = events.Tensors("experiment/text_summary")
    assert b"learning_rate: 0.001" in text.tensor_proto.string_val[0]
    assert len(list((folder / "tensorboard").iterdir())) == 1


@pytest.mark.filterwarnings("ignore:The ..noload.. loader strategy is deprecated")  # of SQLAlchemy
def test_mlflow(folder: Path, commit: Commit, monkeypatch: pytest.MonkeyPatch) -> None:
    mlflow = pytest.importorskip("mlflow")
    pytest.importorskip("sqlalchemy")
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    monkeypatch.chdir(folder.parent)
    _follow("mlflow", folder, commit)
    client = mlflow.MlflowClient(f"sqlite:///{folder / 'mlflow.db'}")
    [run] = client.search_runs([client.get_experiment_by_name("hanse").experiment_id])
    assert (run.info.run_name, run.info.status) == ("run", "FINISHED")
    assert run.data.params["train.learning_rate"] == "0.001"
    found = client.get_metric_history(run.info.run_id, "clients/south/loss")
    assert sorted((m.step, m.value) for m in found) == [(n, 0.75 + n) for n in range(4)]
    assert sorted(m.timestamp for m in found) == [1_700_000_000_000 + 60_000 * n for n in range(4)]
    assert run.data.metrics["client_test/north/accuracy"] == 0.5
    assert {path.name for path in folder.parent.iterdir()} == {"run"}, "nothing is left elsewhere"


def test_an_mlflow_server_that_is_gone_stops_nothing(
    folder: Path,
    commit: Commit,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    pytest.importorskip("mlflow")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:9")
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    tracker = build("journal/trackers", "mlflow")
    assert tracker.packages == ("mlflow",), "no store of its own is needed"
    with following({"mlflow": tracker}, folder) as tell:
        commit(0)
        tell()
    [warning] = [r.getMessage() for r in caplog.records if r.name.startswith("hanse")]
    assert warning.startswith("mlflow no longer follows this run, which goes on: MlflowException")


def _records(data: bytes) -> Iterator[bytes]:
    """The records of a .wandb file: LevelDB's log format after seven bytes of its own."""
    block, whole = 2**15, b""
    at = 7
    while at + 7 <= len(data):
        if block - at % block < 7:  # too little for a header: zeros to the next block
            at += block - at % block
            continue
        size, kind = int.from_bytes(data[at + 4 : at + 6], "little"), data[at + 6]
        whole += data[at + 7 : at + 7 + size]
        at += 7 + size
        if kind in (1, 4):  # full, or the last piece
            yield whole
            whole = b""


def test_wandb_without_a_key(
    folder: Path, commit: Commit, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    pytest.importorskip("wandb", reason="wandb is an extra that the tested versions leave out")
    from wandb.proto.wandb_internal_pb2 import Record

    for name in ("WANDB_MODE", "WANDB_API_KEY"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("NETRC", str(tmp_path / "no-keys"))
    _follow("wandb", folder, commit)
    [file] = (folder / "wandb" / "latest-run").glob("*.wandb")
    found, settings = {}, {}
    for data in _records(file.read_bytes()):
        record = Record.FromString(data)
        told = {"/".join(i.nested_key) or i.key: i.value_json for i in record.history.item}
        if told:
            found[record.history.step.num] = float(told["clients/south/loss"])
        settings |= {item.key: item.value_json for item in record.run.config.update}
    assert found == {n: 0.75 + n for n in range(4)}, "the newest folder holds all rounds"
    assert settings["train.learning_rate"] == "0.001"


def test_trackio(
    folder: Path, commit: Commit, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("TRACKIO_DIR", str(tmp_path / "trackio"))
    pytest.importorskip("trackio", reason="trackio is an extra that the tested versions leave out")
    from trackio.sqlite_storage import SQLiteStorage

    _follow("trackio", folder, commit)
    [name] = SQLiteStorage.get_runs("hanse")
    assert name.startswith("run-")
    found = SQLiteStorage.get_logs("hanse", name)
    assert [(row["step"], row["clients/south/loss"]) for row in found] == [
        (n, 0.75 + n) for n in range(4)
    ]
    config = SQLiteStorage.get_run_config("hanse", name)
    assert config is not None and config["train.learning_rate"] == 0.001
