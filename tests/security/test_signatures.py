"""Signed messages: each attack first works on what is not signed, then is refused with a reason."""

import json
from dataclasses import dataclass, replace
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from hanse.errors import UserError
from hanse.federation.messages import Reply, Request
from hanse.security import signatures
from hanse.security.signatures import Inbox, Outbox, Stamp, Untrusted, sign, verify
from hanse.tensors.serialization import MessageError

BODY = Request("train", 3).pack()


@dataclass
class Clock:
    """A clock that tests move."""

    now: float = 1_800_000_000.0

    def __call__(self) -> float:
        return self.now


@dataclass
class Pair:
    """A server and two silos that know each other; silo-a's inbox."""

    home: Path
    clock: Clock

    def __post_init__(self) -> None:
        self.keys = {name: Ed25519PrivateKey.generate() for name in ("server", "silo-a", "silo-b")}
        self.public = {name: key.public_key() for name, key in self.keys.items()}
        self.server = Outbox("server", self.keys["server"], self.clock)

    def inbox(self) -> Inbox:
        """What silo-a receives; made again, it is that of a restarted silo."""
        known = {"server": self.public["server"]}
        return Inbox("silo-a", "request", known, self.home / "seen.json", clock=self.clock)

    def returned(self) -> Inbox:
        """What the server receives."""
        known = {name: key for name, key in self.public.items() if name != "server"}
        return Inbox("server", "reply", known, self.home / "replies.json", clock=self.clock)

    def request(self, audience: str = "silo-a", run: str = "run-1") -> bytes:
        """The server's next request."""
        return self.server.request(BODY, run, 3, audience)[0]


@pytest.fixture
def pair(tmp_path: Path) -> Pair:
    return Pair(tmp_path, Clock())


def test_what_was_signed_is_what_is_read(pair: Pair) -> None:
    message, sent = pair.server.request(BODY, "run-1", 3, "silo-a")
    stamp, body = pair.inbox().open(message, run="run-1")
    assert (stamp, body) == (sent, BODY)
    answer = Outbox("silo-a", pair.keys["silo-a"], pair.clock).reply(b"answer", stamp)
    back, body = pair.returned().open(answer)
    assert (back.sender, back.sequence, back.round, body) == ("silo-a", sent.sequence, 3, b"answer")


def test_without_signatures_anybody_is_the_server() -> None:
    """The attack that the rest of this file refuses: bytes alone say nothing of their sender."""
    forged = Request("train", 9).pack()
    assert Request.parse(forged) == Request("train", 9)
    assert Reply.parse(Reply("silo-b", "train", 3).pack()).client == "silo-b"


def test_the_same_bytes_are_taken_once(pair: Pair) -> None:
    message, inbox = pair.request(), pair.inbox()
    assert (
        verify(message, inbox.known)[1] == verify(message, inbox.known)[1]
    )  # a replay, undefended
    inbox.open(message)
    with pytest.raises(Untrusted, match="came before"):
        inbox.open(message)
    with pytest.raises(Untrusted, match="came before"):  # nor after a restart
        pair.inbox().open(message)


def test_an_older_request_is_not_taken_after_a_newer_one(pair: Pair) -> None:
    older, newer = pair.request(), pair.request()
    inbox = pair.inbox()
    inbox.open(newer)
    with pytest.raises(Untrusted, match="after a later one"):
        inbox.open(older)


def test_a_restarted_server_goes_on_with_higher_sequences(pair: Pair) -> None:
    inbox = pair.inbox()
    for _ in range(5):
        inbox.open(pair.request())
    pair.clock.now += 0.5
    pair.server = Outbox("server", pair.keys["server"], pair.clock)
    inbox.open(pair.request())


def test_every_changed_byte_is_found(pair: Pair) -> None:
    message = pair.request()
    pristine = pair.inbox()
    for at in range(0, len(message), 3):
        changed = bytearray(message)
        changed[at] ^= 1 << (at % 8)
        with pytest.raises(Untrusted):
            pristine.open(bytes(changed))
    for cut in range(0, len(message), 11):
        with pytest.raises(Untrusted):
            pristine.open(message[:cut])
    with pytest.raises(Untrusted, match="was changed"):
        pristine.open(message + b"x")
    pristine.open(message)


def test_another_servers_word_is_nothing(pair: Pair) -> None:
    thief = Outbox("server", Ed25519PrivateKey.generate(), pair.clock)
    with pytest.raises(Untrusted, match="not signed by server"):
        pair.inbox().open(thief.request(BODY, "run-1", 3, "silo-a")[0])


def test_a_silo_cannot_speak_as_another(pair: Pair) -> None:
    _, stamp = pair.server.request(BODY, "run-1", 3, "silo-b")
    forged = Outbox("silo-b", pair.keys["silo-a"], pair.clock).reply(b"", stamp)
    with pytest.raises(Untrusted, match="not signed by silo-b, in whose name it is"):
        pair.returned().open(forged)
    unknown = Outbox("silo-z", pair.keys["silo-a"], pair.clock).reply(b"", stamp)
    with pytest.raises(Untrusted, match="'silo-z', which is not known"):
        pair.returned().open(unknown)


def test_a_silo_cannot_speak_as_the_server(pair: Pair) -> None:
    forged = Outbox("silo-b", pair.keys["silo-b"], pair.clock).request(BODY, "run-1", 3, "silo-a")
    with pytest.raises(Untrusted, match="which is not known"):
        pair.inbox().open(forged[0])


def test_a_message_is_for_one_silo(pair: Pair) -> None:
    with pytest.raises(Untrusted, match="is for 'silo-b', not us"):
        pair.inbox().open(pair.request("silo-b"))


def test_a_request_is_no_reply(pair: Pair) -> None:
    """Echoed to its sender, a message must not pass for an answer."""
    message = pair.server.request(BODY, "run-1", 3, "server")[0]
    inbox = replace(pair.returned(), known=pair.public)
    with pytest.raises(Untrusted, match="a request of server came where none is expected"):
        inbox.open(message)


def test_a_message_belongs_to_one_run(pair: Pair) -> None:
    with pytest.raises(Untrusted, match="belongs to the run 'run-0', not run-1"):
        pair.inbox().open(pair.request(run="run-0"), run="run-1")


def test_runs_count_by_themselves(pair: Pair) -> None:
    first, second = pair.request(run="run-1"), pair.request(run="run-2")
    inbox = pair.inbox()
    inbox.open(second)
    inbox.open(first)
    with pytest.raises(Untrusted, match="came before"):
        inbox.open(second)


@pytest.mark.parametrize(
    ("moved", "said"), [(301, "301 s ago"), (-301, "301 s in the future"), (10**6, "1,000,000 s")]
)
def test_clocks_may_differ_by_300_seconds(pair: Pair, moved: float, said: str) -> None:
    message = pair.request()
    pair.clock.now += moved
    with pytest.raises(Untrusted, match=said):
        pair.inbox().open(message)
    pair.clock.now -= moved - 299 * (1 if moved > 0 else -1)
    pair.inbox().open(message)


@pytest.mark.parametrize(
    "head",
    [
        b"",
        b"[]",
        b"{}",
        b"[" * 4000,
        b'{"run":"r","round":true}',
        json.dumps({"run": "r", "round": -1, "sequence": 1, "sender": "server"}).encode(),
    ],
)
def test_a_head_that_is_none(pair: Pair, head: bytes) -> None:
    key = pair.keys["server"]
    signed = key.sign(signatures.DOMAIN + head)
    message = b"".join([b"HSG1", len(head).to_bytes(4, "little"), head, signed, BODY])
    with pytest.raises(Untrusted, match="no readable head"):
        pair.inbox().open(message)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("round", 1.0),
        ("round", True),
        ("sequence", -1),
        ("sequence", 2**63),
        ("time", float("nan")),
        ("time", float("inf")),
        ("direction", "both"),
        ("sender", None),
        ("extra", 1),
    ],
)
def test_a_field_that_is_of_another_kind(pair: Pair, field: str, value: object) -> None:
    stamp = {"run": "r", "round": 1, "sequence": 1, "sender": "server", "audience": "silo-a"}
    fields = {**stamp, "direction": "request", "time": 1.0, "sha256": "", field: value}
    head = json.dumps(fields).encode()
    signed = pair.keys["server"].sign(signatures.DOMAIN + head)
    with pytest.raises(Untrusted, match="no readable head"):
        pair.inbox().open(b"HSG1" + len(head).to_bytes(4, "little") + head + signed)


def test_a_long_head_is_not_read(pair: Pair) -> None:
    head = b" " * (signatures.MAX_HEAD + 1)
    signed = pair.keys["server"].sign(signatures.DOMAIN + head)
    with pytest.raises(Untrusted, match="not signed"):
        verify(b"HSG1" + len(head).to_bytes(4, "little") + head + signed, pair.public)
    stamp = Stamp("r" * 5000, 1, 1, "server", "silo-a", "request", 1.0)
    with pytest.raises(ValueError, match="more than 4096"):
        sign(b"", stamp, pair.keys["server"])


def test_a_damaged_memory_of_messages_is_refused(pair: Pair) -> None:
    """To forget would be to take replays."""
    pair.inbox().open(pair.request())
    (pair.home / "seen.json").write_bytes(b"{")
    with pytest.raises(UserError, match=r"seen.json cannot be read"):
        pair.inbox()


def test_a_refusal_is_a_message_error(pair: Pair) -> None:
    with pytest.raises(MessageError):
        pair.inbox().open(BODY)


def test_what_is_remembered_of_runs_ends_with_time(
    pair: Pair, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A server may invent as many names of runs as it likes."""
    monkeypatch.setattr(signatures, "MOST_RUNS", 5)
    inbox = pair.inbox()
    first = pair.request(run="run-0")
    inbox.open(first)
    for number in range(1, 5):
        inbox.open(pair.request(run=f"run-{number}"))
    with pytest.raises(Untrusted, match="one run more than the 5 of the last 24 hours"):
        inbox.open(pair.request(run="run-5"))
    inbox.open(pair.request(run="run-0"))  # known ones go on
    assert pair.inbox()._seen == inbox._seen
    pair.clock.now += signatures.KEPT - 1
    for known in (inbox, pair.inbox()):
        with pytest.raises(Untrusted, match=r"came before|s ago"):
            known.open(first)
    pair.clock.now += 1
    for number in range(50):
        inbox.open(pair.request(run=f"later-{number}"))
        pair.clock.now += signatures.KEPT / 4
        assert len(inbox._seen) <= 5 and len((pair.home / "seen.json").read_bytes()) < 1000
    with pytest.raises(Untrusted, match="s ago"):
        inbox.open(first)


def test_a_message_is_not_taken_again_however_the_clock_stands(pair: Pair) -> None:
    """What is forgotten is so old that its time alone refuses it."""
    inbox = pair.inbox()
    messages = []
    for step in range(40):
        messages.append(pair.request(run=f"run-{step % 7}"))
        inbox.open(messages[-1])
        pair.clock.now += signatures.KEPT / 10
        for message in messages:
            with pytest.raises(Untrusted):
                inbox.open(message)
