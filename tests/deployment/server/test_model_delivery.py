"""Parts of the model: whose turn it is, what is sent again, and what counts as an answer."""

import itertools
from pathlib import Path

import pytest
import torch

from hanse.deployment.envelopes import BadEnvelopeError
from hanse.deployment.server import model_delivery
from hanse.deployment.server.model_delivery import MOST_AT_ONCE, SLOW, STALLED, ModelDelivery
from hanse.deployment.server.roster import RemoteClient
from hanse.errors import UserError
from hanse.federation.delivery import files
from hanse.federation.delivery.files import BEFORE_ROUNDS, HELD, OFFSET, RunFiles
from hanse.federation.messages import Reply, Request, Update
from hanse.journal.ledger import Ledger
from hanse.observability import step_text

DIGEST = "5e" * 32


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The time, which a test sets."""
    now = [1000.0]
    monkeypatch.setattr(model_delivery.time, "monotonic", lambda: now[0])
    return now


@pytest.fixture
def delivery(tmp_path: Path, clock: list[float], monkeypatch: pytest.MonkeyPatch) -> ModelDelivery:
    """Of two files, of 250 and 100 bytes, in chunks of 100."""
    monkeypatch.setattr(files, "CHUNK", 100)
    for name, size in (("config.json", 250), ("model.safetensors", 100)):
        (tmp_path / name).write_bytes(bytes([size % 256]) * size)
    paths = {path.name: path for path in tmp_path.iterdir()}
    return ModelDelivery(RunFiles.on_disk(paths), Ledger())


def lacks() -> bytes:
    return Reply("a", "prepare", BEFORE_ROUNDS, lacks=DIGEST).pack()


def has(*held: int) -> bytes:
    update = Update({HELD: torch.tensor(held, dtype=torch.int64)})
    return Reply("a", "prepare", BEFORE_ROUNDS, update).pack()


def sent(delivery: ModelDelivery) -> dict[str, tuple[str, int]]:
    """Who is sent what now: a file and where its chunk begins; ("", -1): an offer."""
    found = {}
    for name, _, message in delivery.due():
        request = Request.parse(message)
        file = next(iter(request.instruction.tensors), "")
        found[name] = file, int(request.instruction.numbers.get(OFFSET, -1))
    return found


def test_files_go_chunk_by_chunk_to_their_end(delivery: ModelDelivery) -> None:
    assert sent(delivery) == {}
    assert not delivery.take("a", 1, "s", lacks())
    assert sent(delivery) == {"a": ("", -1)}
    assert sent(delivery) == {}, "one message at a time"
    for held, part in (
        ((0, 0), ("config.json", 0)),
        ((100, 0), ("config.json", 100)),
        ((250, 0), ("model.safetensors", 0)),
    ):
        assert not delivery.take("a", 1, "s", has(*held))
        assert delivery.progress("a") == (sum(held), 350)
        assert sent(delivery) == {"a": part}
    assert delivery.take("a", 1, "s", has(250, 100))
    assert delivery.progress("a") is None and sent(delivery) == {}
    [record] = delivery.ledger.take(0)[0]
    assert (record.client, record.kind, record.error) == ("a", "prepare", "")
    assert record.down > 350 and record.up > 0


def test_a_silo_that_comes_back_goes_on_with_what_it_has(delivery: ModelDelivery) -> None:
    delivery.take("a", 1, "s", lacks())
    sent(delivery)
    delivery.take("a", 1, "s", has(100, 0))
    assert sent(delivery) == {"a": ("config.json", 100)}
    delivery.take("a", 2, "t", lacks())
    assert sent(delivery) == {"a": ("", -1)}
    with pytest.raises(BadEnvelopeError, match="it was sent no file"):
        delivery.take("a", 1, "s", has(200, 0))  # of the process that is gone
    delivery.take("a", 2, "t", has(200, 0))
    assert sent(delivery) == {"a": ("config.json", 200)}


def test_some_silos_wait_for_others_unless_these_are_silent(
    delivery: ModelDelivery, clock: list[float]
) -> None:
    names = [f"silo-{number}" for number in range(MOST_AT_ONCE + 2)]
    for node, name in enumerate(names):
        delivery.take(name, node, "s", lacks())
    assert [*sent(delivery)] == names[:MOST_AT_ONCE]
    assert sent(delivery) == {}
    delivery.take(names[1], 1, "s", has(0, 0))
    assert [*sent(delivery)] == [names[MOST_AT_ONCE]], "who waits longest"
    delivery.forget(names[0], 0)
    assert [*sent(delivery)] == [names[-1]]
    clock[0] += STALLED
    assert [*sent(delivery)] == [names[1]]


def test_a_hello_that_is_answered_later_than_a_chunk_means_that_it_is_lost(
    delivery: ModelDelivery, clock: list[float]
) -> None:
    delivery.take("a", 1, "s", lacks())
    assert delivery.is_served("a", 1, "s", since=999.0), "it waits for its turn"
    sent(delivery)
    assert delivery.is_served("a", 1, "s", since=999.0)
    assert not delivery.is_served("a", 1, "s", since=1001.0)
    assert not delivery.is_served("a", 1, "t", since=999.0), "another process"
    assert not delivery.is_served("b", 1, "s", since=999.0)


@pytest.mark.parametrize(
    "body",
    [
        b"nothing",
        Reply("a", "train", 1).pack(),
        Reply("a", "prepare", 1, lacks=DIGEST).pack(),
        Reply("a", "prepare", BEFORE_ROUNDS, error="no").pack(),
        has(251, 0),
        has(0),
    ],
)
def test_a_reply_that_is_none_is_refused(delivery: ModelDelivery, body: bytes) -> None:
    delivery.take("a", 1, "s", lacks())
    sent(delivery)
    with pytest.raises(BadEnvelopeError):
        delivery.take("a", 1, "s", body)


def test_a_silo_that_keeps_nothing_is_not_sent_the_model_without_end(
    delivery: ModelDelivery,
) -> None:
    delivery.take("a", 1, "s", lacks())
    with pytest.raises(BadEnvelopeError, match="does not keep the files that it is sent"):
        for count in itertools.count():
            sent(delivery)
            assert count < 20
            delivery.take("a", 1, "s", has(0, 0))


def test_a_silo_that_loses_the_model_again_and_again_is_refused_in_the_end(
    delivery: ModelDelivery, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(model_delivery, "OFFERS", 10_000)
    with pytest.raises(BadEnvelopeError, match="since this server was started and still lacks"):
        for count in range(1000):
            delivery.take("a", 1, f"session {count}", lacks())
            sent(delivery)
            delivery.take("a", 1, f"session {count}", has(0, 0))
            sent(delivery)
    assert 5 < count < 50
    with pytest.raises(BadEnvelopeError, match="let its owner keep the silo's state"):
        delivery.take("a", 1, "t", lacks())
    delivery.forget("a", 1)
    assert sent(delivery) == {}
    delivery.take("b", 2, "s", lacks())
    assert [*sent(delivery)] == ["b"]


def test_silos_that_answer_promptly_go_before_slow_ones(
    delivery: ModelDelivery, clock: list[float]
) -> None:
    slow = [f"slow-{number}" for number in range(MOST_AT_ONCE)]
    for node, name in enumerate(slow):
        delivery.take(name, node, "s", lacks())
    assert [*sent(delivery)] == slow
    clock[0] += SLOW
    delivery.take("quick", 9, "s", lacks())
    for node, name in enumerate(slow[:-1]):
        delivery.take(name, node, "s", has(0, 0))
    delivery.take(slow[-1], 3, "other", lacks())  # does not hide how long it took
    assert [*sent(delivery)] == ["quick", *slow[:-1]]
    delivery.take("quick", 9, "s", has(0, 0))
    assert [*sent(delivery)] == ["quick"], "its next chunk goes before one that waits longer"


def test_bytes_of_a_chunk_that_crosses_the_end_of_a_round_are_counted(
    delivery: ModelDelivery,
) -> None:
    delivery.take("a", 1, "s", lacks())
    sent(delivery)
    delivery.ledger.take(1)
    delivery.take("a", 1, "s", has(0, 0))
    [record] = delivery.ledger.take(2)[0]
    assert record.up == len(has(0, 0)) and record.down == 0


def test_a_model_that_has_changed_stops_the_server(delivery: ModelDelivery) -> None:
    delivery.files.files[0].path.write_bytes(bytes(250))
    with pytest.raises(UserError, match=r"config\.json has changed since this server was started"):
        delivery.take("a", 1, "s", lacks())


def test_the_waiting_line_says_how_far_a_silo_is() -> None:
    client = RemoteClient("a", seen_at=97.0, receiving=(16_000_000, 270_000_000))
    text = step_text.silo_activity(client.activity(100.0))
    assert text == "receiving the model, 16.0 of 270.0 MB, last heard 3 s ago"
