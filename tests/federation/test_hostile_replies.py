"""Replies of strangers that would end or stall a run: each is refused, and the others go on."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, ClassVar

import pytest
import torch

from hanse.content_hash import content_hash
from hanse.errors import UserError
from hanse.federation.algorithms.fedavg import FedAvg
from hanse.federation.compression.identity import Identity
from hanse.federation.interfaces.aggregator import Aggregator, Exchange
from hanse.federation.interfaces.algorithm import Server, State
from hanse.federation.interfaces.declarations import MEAN, NUMBERS
from hanse.federation.interfaces.results import Aggregate
from hanse.federation.messages import ClientProfile, Reply, Update
from hanse.journal.run_folder import read_ledger
from hanse.randomness import RoundContext
from hanse.tensors.named import Bounded, Layout, Tensors, add, layout
from toys import Meddler, Outcome, federate, silos, with_tensors


@dataclass(frozen=True)
class WithFile(FedAvg):
    """Sends each client a file that it does not need."""

    def prepare(self, server: Server, folder: Path) -> Mapping[str, Path]:
        (folder / "file").write_bytes(b"123")
        return {"file": folder / "file"}


class AtMost(FedAvg):
    """Lets clients send fewer rows of the weight, which a mean cannot add."""

    def update_layout(self, state: State, profile: ClientProfile, context: RoundContext) -> Layout:
        whole = layout(state["model"])
        return {**whole, "weight": Bounded(whole["weight"])}


@dataclass(frozen=True)
class Careless(Identity):
    """A codec that looks up what a stranger has sent; its linearity is inherited."""

    linear: ClassVar[bool] = True

    def decode(self, update: Update, state: Tensors, context: RoundContext) -> Update:
        place = 0 if float(update.tensors["bias"].abs().max()) < 1e6 else 1
        return [update][place]


class Sum(Aggregator):
    """Adds summands up as they are."""

    sums_only: ClassVar[bool] = True
    gives: ClassVar[frozenset[str]] = frozenset({MEAN, NUMBERS})

    def aggregate(self, exchange: Exchange) -> Aggregate:
        total: Tensors = {}
        clients = []
        for profile, summand in exchange.sealed():
            total = add(total, summand) if total else summand
            clients.append(profile.name)
        return exchange.mean(total, clients)


def go(
    folder: Path, algorithm: FedAvg, changed: Callable[[Reply], Reply], **settings: Any
) -> Outcome:
    """One round of three clients, whose replies are changed on their way."""

    def network(inner: Any) -> Meddler:
        return Meddler(inner, changed=changed)

    return federate(algorithm, silos(3), folder / "run", rounds=1, network=network, **settings)


def hostile(reply: Reply) -> Reply:
    """A reply in which the bias of c1's update is too large for `Careless`."""
    if (reply.client, reply.kind) != ("c1", "train"):
        return reply
    bias = torch.full_like(reply.update.tensors["bias"], 1e9)
    return with_tensors(reply, {**reply.update.tensors, "bias": bias})


def test_a_client_that_always_says_it_lost_a_file_is_left_out(tmp_path: Path) -> None:
    replies: list[Reply] = []

    def lost(reply: Reply) -> Reply:
        if (reply.client, reply.kind) != ("c1", "train"):
            return reply
        replies.append(reply)
        assert len(replies) < 9, "the round never ends"
        digest = content_hash(tmp_path / "run" / "files" / "file")
        return replace(reply, update=Update(), error="lost.", lacks=digest)

    outcome = go(tmp_path, WithFile(), lost)
    assert outcome.records[-1].clients == ("c0", "c2")
    assert len(replies) == 2  # the file was sent again once


def test_a_codec_that_fails_on_an_update_refuses_it(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    outcome = go(tmp_path, FedAvg(), hostile, upload=[Careless()])
    assert not [record for record in caplog.records if record.levelname == "ERROR"]
    [warning] = [record for record in caplog.records if "IndexError" in record.getMessage()]
    assert warning.levelname == "WARNING" and not warning.exc_info
    assert outcome.records[-1].clients == ("c0", "c2")
    [error] = [row.error for row in read_ledger(tmp_path / "run") if row.error]
    assert error == "a codec failed to decode it (IndexError: list index out of range)"


def test_a_sum_that_cannot_be_decoded_ends_the_run_in_a_sentence(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"the sum of the updates of c0, c1, c2 cannot be decoded"):
        go(tmp_path, FedAvg(), hostile, upload=[Careless()], aggregator=Sum())
    outcome = go(tmp_path, FedAvg(), lambda reply: reply, upload=[Careless()], aggregator=Sum())
    assert outcome.records[-1].clients == ("c0", "c1", "c2")


def test_fewer_rows_than_the_others_have_no_mean(tmp_path: Path) -> None:
    def shorter(reply: Reply) -> Reply:
        if (reply.client, reply.kind) != ("c1", "train"):
            return reply
        tensors = reply.update.tensors
        return with_tensors(reply, {**tensors, "weight": tensors["weight"][:1]})

    for codecs in ([], [Identity()]):
        outcome = go(tmp_path / str(len(codecs)), AtMost(), shorter, upload=codecs)
        assert outcome.records[-1].clients == ("c0", "c2")


def test_a_sum_of_weights_that_is_zero_is_said(tmp_path: Path) -> None:
    def weightless(reply: Reply) -> Reply:
        tensors = {name: torch.zeros_like(t) for name, t in reply.update.tensors.items()}
        return with_tensors(reply, tensors)

    with pytest.raises(UserError, match=r"no client's update .* in round 1: all weights are 0\."):
        go(tmp_path, FedAvg(), weightless, aggregator=Sum())
