"""Constants of an adapter: made by the server, sent to each client once, the same everywhere."""

import os
import shutil
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from hanse.deployment.silo.agreement import sent
from hanse.errors import UserError
from hanse.federation.algorithms.fedavg import FedAvg
from hanse.federation.constants import Constants, ConstantStore
from hanse.federation.interfaces.results import Memory
from hanse.federation.interfaces.transport import Transport
from hanse.federation.messages import Instruction, Reply, Request
from hanse.journal.run_folder import read_ledger
from hanse.randomness import RoundContext
from hanse.tensors.serialization import MessageError
from toy_learners import Batch, Toy, ToyLearner
from toys import Meddler, Outcome, federate, held_out, same, silos


class Place:
    """A process on some machine: it makes learners, and computes constants in a way of its own.

    error: what its processor makes of rounding.
    """

    def __init__(self, toy: Toy, error: float) -> None:
        self.toy, self.error = toy, error
        self.there: Constants | None = None  # what this process has in memory

    def __call__(self, context: RoundContext, optimizer_state: Memory) -> "Bent":
        return Bent(self, context, optimizer_state)


class Bent(ToyLearner):
    """Softmax regression on features that are multiplied by constants."""

    def __init__(self, place: Place, context: RoundContext, optimizer_state: Memory) -> None:
        super().__init__(place.toy, context, optimizer_state)
        self.place = place

    def constants(self) -> Constants:
        if self.place.there is None:
            drawn = torch.randn(4, generator=torch.Generator().manual_seed(7))
            self.place.there = Constants.of({"bend": drawn + self.place.error})
        return self.place.there

    def has_constants(self, digest: str) -> bool:
        return (self.place.there.digest if self.place.there else "") == digest

    def put_constants(self, constants: Constants) -> None:
        self.place.there = constants

    def forward(self, batch: Batch) -> Tensor:
        return super().forward(replace(batch, x=batch.x * self.constants().tensors["bend"]))


def go(
    folder: Path, errors: Mapping[str, float] | None = None, server: float = 0.0, **settings: Any
) -> Outcome:
    """Three rounds of FedAvg; each machine errs in its own way. New processes each time."""
    learners = {name: Place(toy, (errors or {}).get(name, 0.0)) for name, toy in silos(3).items()}
    return federate(FedAvg(), learners, folder, Place(held_out(), server), **settings)


def test_all_have_the_servers(tmp_path: Path) -> None:
    alike = go(tmp_path / "alike")
    unlike = go(tmp_path / "unlike", {"c0": 0.3, "c1": -0.2, "c2": 0.1})
    assert same(alike.server_state, unlike.server_state)
    assert alike.records[-1].client_test.keys() == {"c0", "c1", "c2"}
    for a, b in zip(alike.records, unlike.records, strict=True):
        assert a.test == b.test and a.bytes == b.bytes
    assert not same(alike.server_state, go(tmp_path / "other", server=0.3).server_state)


def test_they_are_sent_once(tmp_path: Path) -> None:
    seen: list[Meddler] = []

    def network(inner: Transport) -> Meddler:
        seen.append(Meddler(inner))
        return seen[0]

    go(tmp_path / "run", network=network)
    requests = [Request.parse(message) for message in seen[0].requests]
    assert [(r.round, bool(r.given)) for r in requests if r.kind == "train"] == [
        *[(1, True)] * 3,
        *[(2, False)] * 3,
        *[(3, False)] * 3,
    ]
    assert len({r.constants for r in requests}) == 1 and len(requests[0].constants) == 64
    rows = read_ledger(tmp_path / "run")
    sizes = [row.down for row in rows if row.kind == "train"]
    first = requests[0]
    assert sizes[0] - sizes[3] == len(first.pack()) - len(replace(first, given={}).pack()) > 16


def test_who_joins_later_is_sent_them_then(tmp_path: Path) -> None:
    whole = go(tmp_path / "run", fraction_train=0.34, rounds=4)
    assert whole.server_state.holding <= {"c0", "c1", "c2"}
    assert [r.client_test.keys() for r in whole.records[-1:]] == [{"c0", "c1", "c2"}]


@pytest.mark.parametrize("stop", [0, 1, 2])
def test_resume_equals_no_stop_on_whatever_machine(tmp_path: Path, stop: int) -> None:
    whole = go(tmp_path / "whole")
    go(tmp_path / "stopped", stop_after=stop)
    gone_on = go(tmp_path / "stopped", {"c0": 1.0, "c1": 2.0}, server=3.0)
    assert same(whole.server_state, gone_on.server_state)
    assert [r.test for r in gone_on.records] == [r.test for r in whole.records]
    rows = [
        [(row.client, row.kind, row.down) for row in read_ledger(tmp_path / at)]
        for at in ("whole", "stopped")
    ]
    assert rows[0] == rows[1]


def test_a_client_that_has_lost_them_is_sent_them_again(tmp_path: Path) -> None:
    whole = go(tmp_path / "whole")
    go(tmp_path / "run", stop_after=1)
    shutil.rmtree(tmp_path / "run" / "clients" / "constants")
    gone_on = go(tmp_path / "run", {"c0": 1.0, "c1": 2.0, "c2": 3.0})
    assert same(whole.server_state, gone_on.server_state)
    rows = [row for row in read_ledger(tmp_path / "run") if row.kind == "train"]
    # One client's were the whole machine's, and it writes them down for all.
    assert [row.round for row in rows] == [1, 1, 1, 2, 2, 2, 2, 3, 3, 3]
    assert not any(row.error for row in rows)


def test_a_damaged_file_counts_as_lost(tmp_path: Path) -> None:
    store, kept = ConstantStore(tmp_path), Constants.of({"bend": torch.ones(4)})
    store.keep(kept)
    assert (found := store.find(kept.digest)) and found.digest == kept.digest
    [file] = tmp_path.iterdir()
    file.write_bytes(file.read_bytes()[:-1] + b"x")
    assert store.find(kept.digest) is None
    store.keep(kept)
    assert store.read(kept.digest).digest == kept.digest


def test_a_server_without_its_file_does_not_go_on(tmp_path: Path) -> None:
    go(tmp_path / "run", stop_after=1)
    shutil.rmtree(tmp_path / "run" / "constants")
    with pytest.raises(UserError, match=r"is missing or damaged.*begin a new run"):
        go(tmp_path / "run")


def test_changed_on_the_way_they_are_refused(tmp_path: Path) -> None:
    class Altering(Meddler):
        def send(self, client: str, message: bytes) -> None:
            request = Request.parse(message)
            if client == "c1" and request.given:
                request = replace(request, given={"bend": request.given["bend"] + 1})
            super().send(client, request.pack())

    outcome = go(tmp_path / "run", network=Altering)
    assert outcome.records[1].clients == ("c0", "c2")
    errors = [row for row in read_ledger(tmp_path / "run") if row.error]
    assert errors[0].client == "c1" and "other constants" in errors[0].error


def test_a_client_cannot_ask_for_ever(tmp_path: Path) -> None:
    digest = go(tmp_path / "plain").server_state.constants.digest

    def always(reply: Reply) -> Reply:
        mine = reply.client == "c1" and reply.round > 1
        return replace(reply, error="it lacks them.", lacks=digest) if mine else reply

    outcome = go(tmp_path / "run", network=lambda inner: Meddler(inner, changed=always))
    assert outcome.records[2].clients == ("c0", "c2")


def test_a_hash_is_no_path() -> None:
    with pytest.raises(MessageError, match="hash"):
        Request.parse(Request("train", 1, constants="../" * 20 + "aaaa").pack())


def test_silos_agree_on_the_constants_whoever_is_sent_them() -> None:
    def request(word: str, **given: Any) -> Request:
        return Request(
            "train", 1, instruction=Instruction({"w": torch.ones(2)}), constants=word * 64, **given
        )

    first, held = (
        sent(request("a", given={"bend": torch.ones(4)}), "job"),
        sent(request("a"), "job"),
    )
    assert first == held != sent(request("b"), "job")


def test_the_same_bytes_of_another_type_are_other_constants() -> None:
    """A server could send one silo whole numbers of the same bytes, and all would agree."""
    plain = torch.tensor([[1.0, 2.0]])
    for other in (plain.view(torch.int32), plain.T):
        assert Constants.of({"bend": plain}).digest != Constants.of({"bend": other}).digest


def test_a_client_keeps_no_constants_that_are_not_its_learners(tmp_path: Path) -> None:
    """Whatever a server sends would fill its disk; LoRA, as this learner, has none at all."""
    sent: list[str] = []

    class Flooding(Meddler):
        def send(self, client: str, message: bytes) -> None:
            request = Request.parse(message)
            more = Constants.of({"more": torch.full((1000,), float(len(sent)))})
            sent.append(more.digest)
            flooded = replace(request, constants=more.digest, given=more.tensors)
            super().send(client, flooded.pack())

    with suppress(UserError, TypeError):
        federate(FedAvg(), silos(2), tmp_path / "run", network=Flooding)
    assert sent and not (tmp_path / "run" / "clients" / "constants").exists()


def test_a_client_keeps_the_newest_constants_for_itself(tmp_path: Path) -> None:
    store = ConstantStore(tmp_path / "constants", most=2)
    whole = [Constants.of({"bend": torch.full((4,), float(number))}) for number in range(4)]
    for number, one in enumerate(whole):
        store.keep(one)
        os.utime(tmp_path / "constants" / f"{one.digest}.safetensors", (number, number))
    assert [store.find(one.digest) is not None for one in whole] == [False, False, True, True]
    assert {file.stat().st_mode & 0o777 for file in (tmp_path / "constants").iterdir()} == {0o600}


class Unequal(Meddler):
    """A network that gives c0 constants of its own in one request, and names none in the next."""

    def send(self, client: str, message: bytes) -> None:
        request = Request.parse(message)
        if request.kind == "train" and client == "c0":
            own = Constants.of({"bend": torch.zeros(4)})
            first = replace(request, kind="a phase", constants=own.digest, given=own.tensors)
            self.inner.send(client, first.pack())
        if request.kind == "train":
            message = replace(request, constants="", given={}).pack()
        super().send(client, message)

    def receive(self, timeout: float | None) -> tuple[str, bytes] | None:
        """The next reply that is not to the request before."""
        while (arrived := super().receive(timeout)) is not None:
            if Reply.parse(arrived[1]).kind != "a phase":
                break
        return arrived


def test_those_of_an_earlier_request_are_not_used_where_none_are_named(tmp_path: Path) -> None:
    """Silos that compare a request without their hash would train unlike each other, unnoticed."""
    with pytest.raises(UserError, match="c0: c0 no longer has the constants of the adapter"):
        go(tmp_path / "run", network=Unequal, rounds=1, quorum=3)
