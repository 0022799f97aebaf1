"""A round is put together from the files of its server and its silos."""

import json
import logging
from collections import deque
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import pytest
from typer.testing import CliRunner

from hanse.cli.main import app
from hanse.deployment.envelopes import HELLO, Envelope, Envelopes
from hanse.deployment.server import serve
from hanse.deployment.server.remote_clients import RemoteClients
from hanse.deployment.server.status import Watch
from hanse.deployment.silo.policy import Policy
from hanse.deployment.silo.settings import Rows, SiloSettings
from hanse.deployment.silo.worker import SiloWorker
from hanse.deployment.sockets import Frame
from hanse.deployment.trace.round_trace import RoundTrace, trace
from hanse.errors import UserError
from hanse.experiment.assembly.assemble import simulate
from hanse.experiment.loading import load
from hanse.federation.server import rounds
from hanse.observability import requests
from hanse.observability.json_logs import log_file
from hanse.simulation import run as simulation

NAMES = ["silo-1", "silo-2", "silo-3"]


class Workers:
    """An engine whose nodes are silos in this process, each with a log file of its own."""

    def __init__(self, home: Path, rows: Path, **policies: Policy) -> None:
        trusting = Policy(
            data_settings=("template", "labels"), count_rounding=1, min_examples=1, min_cohort=1
        )
        self.workers = [
            SiloWorker(
                SiloSettings(
                    name=name,
                    server="127.0.0.1:1",
                    data=Rows(path=str(rows)),
                    state=home / name,
                    policy=policies.get(name, trusting),
                )
            )
            for name in NAMES
        ]
        for worker in self.workers:
            worker.silo.state.mkdir()
        nodes = {"is": "nodes", "nodes": [*range(len(NAMES))]}
        self.events: deque[Frame] = deque([(nodes, b"")])
        self.deaf = set[str]()  # silos that answer no request

    def send(self, node: int, ticket: int, body: bytes) -> None:
        worker = self.workers[node]
        if body != HELLO and Envelope.parse(body).request and worker.silo.name in self.deaf:
            return
        with alone(), log_file(worker.silo.state, worker.about):
            answer = worker.answer(body)
        self.events.append(({"is": "reply", "ticket": ticket}, answer))

    def event(self, seconds: float) -> Frame | None:
        return self.events.popleft() if self.events else None


@contextmanager
def alone() -> Iterator[None]:
    """Keep the lines of a silo out of the server's log, as in a process of its own."""
    loggers = logging.getLogger(), requests.events
    former = [[*logger.handlers] for logger in loggers]
    for logger in loggers:
        logger.handlers.clear()
    try:
        yield
    finally:
        for logger, handlers in zip(loggers, former, strict=True):
            logger.handlers[:] = handlers


@contextmanager
def deployed(
    file: Path, home: Path, rows: Path, *changes: str, **policies: Policy
) -> Iterator[tuple[Workers, Path]]:
    """A run with its silos in this process, up to where it ends or fails."""
    experiment = load(file, ["clients_per_pass=off", *changes])
    folder, engine = Path(str(experiment.output_dir)), Workers(home, rows, **policies)
    made = simulate(experiment, only=())
    journal = serve._journal(folder, made)
    envelopes = Envelopes(serve._envelope(folder, made))
    silos = RemoteClients(engine, NAMES, envelopes, len(NAMES))
    journal.ledger.run_id = envelopes.envelope.run
    watch = Watch(folder, experiment.rounds, NAMES, silos)
    with closing(journal), log_file(folder, watch.about):
        yield engine, folder
        for _ in rounds(made.run(journal, silos)):
            pass


@pytest.fixture(autouse=True)
def all_lines() -> Iterator[None]:
    """As the command line sets it."""
    log = logging.getLogger("hanse")
    former = log.level
    log.setLevel(logging.INFO)
    yield
    log.setLevel(former)


def happened(trace: RoundTrace, request: str) -> list[tuple[str, str]]:
    return [(e.machine, e.event) for e in trace.events if e.request_id == request]


def test_a_round_of_a_deployment_from_the_files_of_all(
    experiment_file: Path, review_file: Path, tmp_path: Path
) -> None:
    with deployed(experiment_file, tmp_path, review_file, "rounds=2") as (_, folder):
        pass
    states = [tmp_path / name for name in NAMES]
    whole = trace([*states, folder], 2)
    run = (folder / "deployed-as").read_text()[:8]
    assert (whole.run, whole.round, whole.counted) == (run, 2, tuple(NAMES))
    for name in NAMES:
        assert happened(whole, f"{run}/2/{name}/train") == [
            ("server", "sent"),
            (name, "received"),
            (name, "trained"),
            (name, "encoded"),
            (name, "replied"),
            ("server", "received"),
            ("server", "accepted"),
            ("server", "counted"),
        ]
    assert whole.events[-1].event == "committed"
    assert whole.events[-1].time == whole.committed
    assert whole.missing == ()


def test_each_part_says_where_the_others_lie(
    experiment_file: Path, review_file: Path, tmp_path: Path
) -> None:
    with deployed(experiment_file, tmp_path, review_file, "rounds=1") as (_, folder):
        pass
    run = (folder / "deployed-as").read_text()[:8]
    server, silo = trace([folder], 1), trace([tmp_path / "silo-2"], 1)
    assert [line for line in server.missing if "silo-2" in line] == [
        "what silo-2 did is in the `state` folder on its machine; there: hanse trace STATE "
        f"--round 1 --run {run}"
    ]
    assert [event.event for event in silo.events][:2] == ["received", "trained"]
    [line] = silo.missing
    assert line.endswith("on the server's machine; there: hanse trace RUN --round 1")
    one = trace([folder], 1, client="silo-2")
    assert {event.client for event in one.events} == {"silo-2", ""}
    assert len(one.missing) == 1
    with pytest.raises(UserError, match="has no client silo-9; it has silo-1, silo-2, silo-3"):
        trace([folder], 1, client="silo-9")
    with pytest.raises(UserError, match=r"nothing of round 7 of run .*; it has rounds? "):
        trace([folder, tmp_path / "silo-2"], 7, run=run)


def test_a_round_that_failed_shows_the_refusal_on_both_sides(
    experiment_file: Path, review_file: Path, tmp_path: Path
) -> None:
    """The silo refuses the request, not the job: it has answered as many today as it will."""
    strict = Policy(
        data_settings=("template", "labels"), min_examples=1, min_cohort=1, max_requests_per_day=1
    )
    changes = ("rounds=2", "deployment.quorum=3", "deployment.deadline=1")
    failed = deployed(experiment_file, tmp_path, review_file, *changes, **{"silo-2": strict})
    with pytest.raises(KeyboardInterrupt), failed as (engine, folder):
        inner = engine.event

        def event(seconds: float) -> Frame | None:
            if (tmp_path / "silo-2" / "refusals.jsonl").exists() and not engine.events:
                raise KeyboardInterrupt  # the server's administrator has seen enough
            return inner(seconds)

        engine.event = event  # type: ignore[method-assign]
    run = (folder / "deployed-as").read_text()[:8]
    state = tmp_path / "silo-2"
    refused = json.loads((state / "refusals.jsonl").read_text().splitlines()[0])["request_id"]
    number = int(refused.split("/")[1])
    assert refused == f"{run}/{number}/silo-2/train"
    whole = trace([folder, state], number)
    assert whole.committed is None
    assert any("is not committed" in line for line in whole.missing)
    reasons = [event for event in whole.events if "max_requests_per_day" in event.message]
    assert {event.machine for event in reasons} >= {"silo-2"}
    assert {event.request_id for event in reasons} == {refused}


def test_a_simulated_round_from_its_ledger(experiment_file: Path) -> None:
    folder = simulation.run(load(experiment_file, ["rounds=1"]))
    whole = trace([folder], 1)
    assert (whole.run, whole.counted, whole.missing) == ("local", tuple(NAMES), ())
    for name in NAMES:
        steps = happened(whole, f"local/1/{name}/train")
        assert steps == [("server", "sent"), ("server", "received"), ("server", "counted")]
    times = [event.time for event in whole.events]
    assert None not in times
    assert times == sorted(times)  # type: ignore[type-var]


def test_a_run_of_an_older_version_is_shown_without_times(experiment_file: Path) -> None:
    folder = simulation.run(load(experiment_file, ["rounds=1"]))
    rows = [json.loads(line) for line in (folder / "ledger.jsonl").read_text().splitlines()]
    new = {"request_id", "sent_at", "answered_at"}
    old = [{name: value for name, value in row.items() if name not in new} for row in rows]
    (folder / "ledger.jsonl").write_text("".join(json.dumps(row) + "\n" for row in old))
    whole = trace([folder], 1)
    sent = [event for event in whole.events if event.event == "sent" and event.client == "silo-1"]
    assert sent[0].time is None
    assert "has no names of requests, since an older version wrote it" in whole.missing[0]


def test_the_command_prints_a_line_for_each_event_or_json(
    experiment_file: Path, review_file: Path, tmp_path: Path
) -> None:
    with deployed(experiment_file, tmp_path, review_file, "rounds=1") as (_, folder):
        pass
    run = (folder / "deployed-as").read_text()[:8]
    words = ["trace", str(folder), str(tmp_path / "silo-1"), "--round", "1"]
    text = CliRunner().invoke(app, words).stdout
    assert text.startswith(f"round 1 of run {run}, committed ")
    assert f"silo-1      {run}/1/silo-1/train" in text
    assert "missing  what silo-2 did is in the `state` folder on its machine" in text
    values = json.loads(CliRunner().invoke(app, [*words, "--json"]).stdout)
    assert values["counted"] == NAMES
    assert {event["machine"] for event in values["events"]} == {"server", "silo-1"}
    assert values["events"][-1]["time"] == values["committed"]


def test_another_folder_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="neither a run folder nor the `state` folder of a silo"):
        trace([tmp_path], 1)
