"""Who is there, who must be asked again, and whose answer is whose."""

import itertools
import json
import logging
import re
from collections import deque
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from hanse.deployment.envelopes import HELLO, BadEnvelopeError, Envelope, Envelopes, SiloReply
from hanse.deployment.server import remote_clients
from hanse.deployment.server.remote_clients import RemoteClients
from hanse.deployment.sockets import Frame, pack
from hanse.federation.messages import ClientProfile, Request
from hanse.observability import step_text
from hanse.observability.json_logs import log_file
from hanse.observability.steps import SiloActivity, SiloState, WaitingForSilos
from hanse.security.signatures import Stamp, Untrusted, sign, verify

REST = ("server", "reply", 0.0)  # of a stamp
ENVELOPE = Envelope("run1", "rounds: 1")


class Node:
    """A silo's process behind a node."""

    def __init__(self, name: str, session: str = "first") -> None:
        self.name, self.session, self.asked = name, session, list[bytes]()
        self.signs_as = name

    def answer(self, body: bytes) -> bytes:
        if body == HELLO:
            return SiloReply(self.name, self.session).pack()
        request = Envelope.parse(body).request
        if request:
            self.asked.append(request)
        profile = ClientProfile(self.signs_as, 7, {"rank": 4.0, "scaling": 2.0})
        return SiloReply(
            self.signs_as, self.session, profile, body=request and b"re " + request
        ).pack()


class Engine:
    """Passes bytes to nodes of this process; those in `silent` never answer.

    lost: how many of the next answers get lost on their way.
    """

    def __init__(self, **nodes: Node) -> None:
        self.nodes = {int(key[1:]): node for key, node in nodes.items()}
        self.silent = set[int]()
        self.lost = 0
        self.greeted = 0
        self.events: deque[Frame] = deque()
        self.show()

    def show(self) -> None:
        self.events.append(({"is": "nodes", "nodes": sorted(self.nodes)}, b""))

    def send(self, node: int, ticket: int, body: bytes) -> None:
        self.greeted += body == HELLO
        if node not in self.nodes:
            self.events.append(({"is": "failed", "ticket": ticket, "why": "no such node"}, b""))
        elif node not in self.silent:
            answer = self.nodes[node].answer(body)
            self.lost -= 1
            if self.lost >= 0:
                return
            self.events.append(({"is": "reply", "ticket": ticket}, answer))

    def event(self, seconds: float) -> Frame | None:
        return self.events.popleft() if self.events else None


@pytest.fixture
def time(monkeypatch: pytest.MonkeyPatch) -> Callable[[], float]:
    """A clock that goes on by a second whenever it is looked at."""
    ticks = itertools.count()
    monkeypatch.setattr(remote_clients.time, "monotonic", lambda: float(next(ticks)))
    return lambda: float(next(ticks))


def seated(engine: Engine, *names: str, **settings: float) -> RemoteClients:
    silos = RemoteClients(engine, names or ("a", "b"), Envelopes(ENVELOPE), 1, **settings)  # type: ignore[arg-type]
    silos.profiles()
    return silos


REQUEST = Request("train", 3).pack()


@pytest.mark.usefixtures("time")
def test_answers_come_from_those_who_were_asked() -> None:
    engine = Engine(n1=Node("b"), n2=Node("a"))
    silos = seated(engine)
    assert [profile.name for profile in silos.profiles()] == ["a", "b"]  # in client order
    silos.send("a", REQUEST)
    silos.send("b", REQUEST)
    assert {silos.receive(10), silos.receive(10)} == {
        ("a", b"re " + REQUEST),
        ("b", b"re " + REQUEST),
    }
    assert silos.receive(10) is None


@pytest.mark.usefixtures("time")
def test_request_is_sent_again_to_a_silo_that_comes_back_at_another_node() -> None:
    engine = Engine(n1=Node("a"), n2=Node("b"))
    silos = seated(engine)
    engine.silent = {1}
    silos.send("a", REQUEST)
    engine.nodes = {2: engine.nodes[2], 3: Node("a", "second")}
    engine.show()
    assert silos.receive(60) == ("a", b"re " + REQUEST)
    assert engine.nodes[3].asked == [REQUEST]


@pytest.mark.usefixtures("time")
def test_request_is_sent_again_to_a_process_that_was_started_anew_at_the_same_node() -> None:
    engine = Engine(n1=Node("a"), n2=Node("b"))
    silos = seated(engine)
    engine.silent = {1}
    silos.send("a", REQUEST)
    assert silos.receive(5) is None
    engine.nodes[1], engine.silent = Node("a", "second"), set()
    assert silos.receive(200) == ("a", b"re " + REQUEST)


@pytest.mark.usefixtures("time")
@pytest.mark.parametrize("lost", [1, 2, 3, 4, 7])
def test_answers_that_get_lost_are_asked_for_again(lost: int) -> None:
    """Who is there, a profile, or both, more than once; then a reply to a request."""
    engine = Engine(n1=Node("a"), n2=Node("b"))
    engine.lost = lost
    silos = seated(engine)
    assert len(silos.profiles()) == 2
    engine.lost = 1
    silos.send("a", REQUEST)
    assert silos.receive(500) == ("a", b"re " + REQUEST)
    assert engine.nodes[1].asked == [REQUEST] * 2


@pytest.mark.usefixtures("time")
def test_a_silo_that_trains_for_an_hour_is_greeted_a_few_times() -> None:
    """It answers one after another, so all that it is asked meanwhile waits at its door."""
    engine = Engine(n1=Node("a"), n2=Node("b"))
    silos = seated(engine)
    engine.silent, engine.greeted = {1}, 0
    silos.send("a", REQUEST)
    assert silos.receive(3600) is None
    assert 3 < engine.greeted < 12


@pytest.mark.usefixtures("time")
def test_everything_is_asked_again_when_the_engine_was_started_anew() -> None:
    engine = Engine(n1=Node("a"), n2=Node("b"))
    silos = seated(engine)
    engine.silent = {1, 2}
    silos.send("a", REQUEST)
    engine.silent = set()
    engine.events.append(({"is": "anew"}, b""))
    engine.show()
    assert silos.receive(60) == ("a", b"re " + REQUEST)


@pytest.mark.usefixtures("time")
def test_stranger_and_who_speaks_for_another_are_not_seated(
    caplog: pytest.LogCaptureFixture,
) -> None:
    liar = Node("a")
    liar.signs_as = "b"
    engine = Engine(n1=liar, n2=Node("b"), n3=Node("c"))
    silos = RemoteClients(engine, ("a", "b"), Envelopes(ENVELOPE), required_to_begin=1, patience=60)
    assert [profile.name for profile in silos.profiles()] == ["b"]
    assert "'c' is no client of this experiment" in caplog.text
    assert "it is in the name of 'b', but a was asked" in caplog.text


@pytest.mark.usefixtures("time")
def test_who_is_waited_for_is_said_by_name(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    engine = Engine(n1=Node("a"), n2=Node("b"))
    silos = seated(engine)
    engine.silent = {1, 2}
    silos.send("a", REQUEST)
    silos.send("b", REQUEST)
    del engine.nodes[2]
    engine.show()
    assert silos.receive(100) is None
    assert "waiting for 2 of 2: a, b (a training for 11 s; b gone, last seen" in caplog.text


@pytest.mark.usefixtures("time")
def test_a_view_is_told_the_same_words_until_somebody_comes(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """So it knows for how long they have been true; what changes each second stands beside."""
    caplog.set_level(logging.INFO)
    steps: list[WaitingForSilos] = []
    monkeypatch.setattr(remote_clients, "watched", lambda: True)
    monkeypatch.setattr(remote_clients, "report", steps.append)
    engine = Engine(n1=Node("a"))
    silos = RemoteClients(engine, ("a", "b"), Envelopes(ENVELOPE), required_to_begin=1, patience=60)
    silos.profiles()
    engine.silent = {1}
    silos.send("a", REQUEST)
    assert silos.receive(30) is None
    titles = list(dict.fromkeys(step_text.title(step) for step in steps))
    # In the first moment nobody has said anything.
    assert titles[-2:] == ["waiting for 1 of 2: b", "waiting for 1 of 2: a"]
    assert WaitingForSilos((SiloActivity("b", SiloState.NEVER_SEEN),), 2) in steps
    assert re.fullmatch(r"a training for \d\d s", step_text.detail(steps[-1]))
    assert "waiting for" not in caplog.text, "or it would be said twice"


@pytest.mark.usefixtures("time")
def test_a_server_that_only_waits_stops_at_once() -> None:
    """For silos that never came, that are gone, or that a paused round needs."""
    asked = False
    engine = Engine(n1=Node("a"))
    silos = RemoteClients(
        engine, ("a", "b"), Envelopes(ENVELOPE), required_to_begin=1, stop=lambda: asked
    )
    asked = True
    with pytest.raises(KeyboardInterrupt):
        silos.profiles()
    asked = False
    silos.patience = 5.0
    silos.profiles()
    engine.silent = {1}
    silos.send("a", REQUEST)
    asked = True
    assert silos.receive(30) is None, "a silo that trains is waited for: the round is saved first"
    engine.nodes.clear()
    engine.show()
    with pytest.raises(KeyboardInterrupt):
        silos.receive(30)
    for required in (1, 2):
        with pytest.raises(KeyboardInterrupt):
            silos.wait_for(["a", "b"], required)


def test_fifty_nodes_in_the_name_of_silos_change_nothing(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """They say that they are silos, and sign with keys that nobody knows."""
    keys = {name: Ed25519PrivateKey.generate() for name in "ab"}

    class Signing(Node):
        def __init__(self, name: str, key: Ed25519PrivateKey) -> None:
            super().__init__(name)
            self.key = key

        def answer(self, body: bytes) -> bytes:
            said = super().answer(body)
            return (
                said
                if body == HELLO
                else sign(said, Stamp("run1", 0, 0, self.name, *REST), self.key)
            )

    def opened(data: bytes, run: str) -> tuple[str, int, bytes]:
        try:
            stamp, body = verify(data, {name: key.public_key() for name, key in keys.items()})
        except Untrusted as error:
            raise BadEnvelopeError(str(error)) from None
        return stamp.sender, stamp.sequence, body

    fake = [Signing("ab"[number % 2], Ed25519PrivateKey.generate()) for number in range(50)]
    engine = Engine(**{f"n{number}": node for number, node in enumerate(fake)})
    engine.nodes |= {50: Signing("a", keys["a"]), 51: Signing("b", keys["b"])}
    engine.show()
    envelopes = Envelopes(ENVELOPE, lambda body, run, round, name: (body, 0), opened)
    silos = RemoteClients(engine, ("a", "b"), envelopes, required_to_begin=2)
    assert [profile.name for profile in silos.profiles()] == ["a", "b"]
    assert {name: client.node for name, client in silos.roster.clients.items()} == {
        "a": 50,
        "b": 51,
    }
    refused = [line for line in caplog.messages if "not signed by" in line]
    assert len(refused) >= 50


@pytest.mark.usefixtures("time")
def test_run_begins_without_a_silo_that_does_not_come_and_takes_it_later() -> None:
    engine = Engine(n1=Node("a"))
    silos = RemoteClients(engine, ("a", "b"), Envelopes(ENVELOPE), required_to_begin=1, patience=30)
    assert [profile.name for profile in silos.profiles()] == ["a"]
    engine.nodes[2] = Node("b")
    engine.show()
    assert [profile.name for profile in silos.profiles()] == ["a", "b"]


@pytest.mark.usefixtures("time")
def test_gather_waits_until_enough_say_that_they_are_there() -> None:
    engine = Engine(n1=Node("a"), n2=Node("b"))
    silos = seated(engine)
    engine.silent = {1, 2}
    silos.send("a", REQUEST)
    silos.send("b", REQUEST)
    assert silos.receive(10) is None
    asked = itertools.count()
    inner = engine.event

    def event(seconds: float) -> Frame | None:
        if next(asked) == 50:  # they come back while it waits
            engine.silent = set()
            engine.nodes = {5: Node("a", "second"), 6: Node("b", "second")}
            engine.show()
        return inner(seconds)

    engine.event = event  # type: ignore[method-assign]
    assert silos.wait_for(["a", "b"], 2)
    assert next(asked) > 50
    assert silos.roster.clients["a"].node == 5 and silos.roster.clients["b"].node == 6


@pytest.mark.usefixtures("time")
def test_who_answers_too_badly_for_a_round_is_asked_later_and_later(
    time: Callable[[], float],
) -> None:
    silos = seated(Engine(n1=Node("a"), n2=Node("b")))
    took = []
    for _ in range(4):
        silos.send("a", REQUEST)
        assert silos.receive(60) is not None
        begun = time()
        assert silos.wait_for(["a", "b"], 2)
        took.append(time() - begun)
    assert all(later > 1.5 * former for former, later in itertools.pairwise(took))


@pytest.mark.usefixtures("time")
def test_a_node_may_refuse_for_days() -> None:
    silos = seated(Engine(n1=Node("a"), n2=Node("b"), n3=Node("stranger")))
    silos._collector.timers.refusals[3], silos._collector.timers.due[3] = 5000, 0.0
    silos.receive(2)
    assert silos._collector.timers.due[3] < 1000


@pytest.mark.usefixtures("time")
def test_a_pause_ends_when_a_silo_was_started_anew(time: Callable[[], float]) -> None:
    engine = Engine(n1=Node("a"), n2=Node("b"))
    silos = seated(engine)
    silos._pauses.counts[0] = 6
    engine.nodes[3] = Node("a", "second")
    del engine.nodes[1]
    engine.show()
    begun = time()
    assert silos.wait_for(["a", "b"], 2)
    assert time() - begun < 60


@pytest.mark.usefixtures("time")
def test_who_is_missed_in_a_pause_is_shown() -> None:
    engine = Engine(n1=Node("a"), n2=Node("b"))
    silos = seated(engine)
    assert (silos.waiting_for, silos.paused) == ([], False)
    silos.send("a", REQUEST)
    assert silos.waiting_for == ["a"]
    assert silos.receive(60) is not None
    del engine.nodes[2]
    engine.show()
    seen = []
    inner = engine.event

    def event(seconds: float) -> Frame | None:
        seen.append((silos.waiting_for, silos.paused))
        if seen[-1][0] and 4 not in engine.nodes:
            engine.nodes[4] = Node("b", "second")
            engine.show()
        return inner(seconds)

    engine.event = event  # type: ignore[method-assign]
    assert silos.wait_for(["a", "b"], 2)
    assert (["b"], True) in seen
    assert (silos.waiting_for, silos.paused) == ([], False)


@pytest.mark.usefixtures("time")
def test_what_came_in_time_counts_although_it_is_read_late() -> None:
    silos = seated(Engine(n1=Node("a"), n2=Node("b")))
    silos.send("a", REQUEST)
    assert silos.receive(0.0) == ("a", b"re " + REQUEST)
    assert silos.receive(0.0) is None


@pytest.mark.usefixtures("time")
def test_a_node_that_is_gone_is_not_where_a_silo_is() -> None:
    """Its last answer comes after the silo has come back at another node."""
    engine = Engine(n1=Node("a"), n2=Node("b"))
    silos = seated(engine)
    engine.silent = {1}
    silos.send("a", REQUEST)
    ticket = silos._collector._ticket
    late = engine.nodes[1].answer(replace(ENVELOPE, request=REQUEST).pack())
    engine.nodes = {2: engine.nodes[2], 3: Node("a", "second")}
    engine.show()
    engine.silent = {3}
    assert silos.receive(10) is None
    engine.silent = set()
    engine.events.append(({"is": "reply", "ticket": ticket}, late))
    assert silos.receive(5) == ("a", b"re " + REQUEST)
    silos.send("b", REQUEST)
    silos.receive(60)
    assert silos.roster.clients["a"].node in (3, None)
    silos.send("a", REQUEST)
    assert silos.receive(120) == ("a", b"re " + REQUEST)


@pytest.mark.usefixtures("time")
def test_a_silo_with_two_nodes_is_found_at_the_one_that_is_left() -> None:
    engine = Engine(n1=Node("a"), n2=Node("b"), n3=Node("a", "second"))
    silos = seated(engine)
    silos.receive(20)
    first = silos.roster.clients["a"].node
    assert first is not None
    del engine.nodes[first]
    engine.show()
    silos.send("a", REQUEST)
    assert silos.receive(20) == ("a", b"re " + REQUEST)


@pytest.mark.usefixtures("time")
def test_each_sending_and_each_answer_is_an_event_of_the_request(tmp_path: Path) -> None:
    engine = Engine(n1=Node("a"), n2=Node("b"))
    with log_file(tmp_path, dict):
        silos = seated(engine)
        engine.silent = {1}
        silos.send("a", REQUEST)
        engine.nodes = {2: engine.nodes[2], 3: Node("a", "second")}
        engine.show()
        assert silos.receive(60) is not None
        engine.nodes.clear()
        silos.send("b", REQUEST)
        silos.receive(2)
    rows = [json.loads(line) for line in (tmp_path / "log.jsonl").read_text().splitlines()]
    events = [(row["event"], row["request_id"]) for row in rows if "request_id" in row]
    first, second = "run1/3/a/train", "run1/3/b/train"
    sent = [("sent", first), ("sent again", first), ("received", first), ("sent", second)]
    assert events == [*sent, ("failed", second)]


# ---- envelopes


def test_envelopes_and_replies_are_what_they_were() -> None:
    envelope = replace(ENVELOPE, request=b"bytes", rows="ab", precision="{}")
    assert Envelope.parse(envelope.pack()) == envelope
    answer = SiloReply("a", "s", ClientProfile("a", 3, {"rank": 1.0, "scaling": 0.5}), body=b"x")
    assert SiloReply.parse(answer.pack()) == answer
    assert SiloReply.parse(SiloReply("a", "s", error="no").pack()) == SiloReply(
        "a", "s", error="no"
    )


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"no frame at all, but long enough for one",
        replace(ENVELOPE, run="../up").pack(),
        replace(ENVELOPE, settings=3).pack(),  # type: ignore[arg-type]
        ENVELOPE.pack() + b"more",
        ENVELOPE.pack()[:-1],
    ],
)
def test_what_is_no_envelope_is_refused(data: bytes) -> None:
    with pytest.raises(BadEnvelopeError):
        Envelope.parse(data)


@pytest.mark.parametrize("examples", [-1, 1.5, True, "7", 2**60])
def test_what_is_no_answer_is_refused(examples: object) -> None:
    head = {"name": "a", "session": "s", "error": "", "rank": 1.0, "scaling": 1.0, "rounding": 1}
    with pytest.raises(BadEnvelopeError):
        SiloReply.parse(pack({**head, "examples": examples}, b""))
