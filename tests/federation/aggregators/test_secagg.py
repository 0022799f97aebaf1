"""Secure aggregation in a federation of toys: drop-outs, pauses, what the server receives."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest
import torch
from scipy.stats import chi2

from hanse.errors import UserError
from hanse.federation.aggregators.mean import Mean
from hanse.federation.aggregators.secagg import SESSION, SecAgg
from hanse.federation.algorithms.fedavg import FedAvg
from hanse.federation.algorithms.fednova import FedNova
from hanse.federation.interfaces.aggregator import Aggregator
from hanse.federation.messages import Reply
from hanse.tensors.named import from_bytes, to_bytes
from toys import Meddler, Outcome, federate, held_out, same, silos, with_tensors

LATE = ("c3", "train")  # a client and a phase
PHASES = ("keys", "shares", "train", "survivors", "unmask")
NAMES = tuple(f"c{number}" for number in range(11))
RULE = SecAgg(threshold=7)
# The largest rounding of a mean: half a step of each client times the largest weight, by the
# weights; the toys' weights are 8, 12, …, 48.
ROUNDING = 0.51 * RULE.clip / (2**31 // 11) * 48 * 11 / sum(range(8, 52, 4))


def go(folder: Path, rule: Aggregator | None, leaving: Mapping[str, str], **more: Any) -> Outcome:
    """One round (or more) in which each client falls silent in its phase of `leaving`."""

    def lost(client: str, kind: str, round: int) -> bool:
        left = leaving.get(client)
        return left is not None and kind in PHASES and PHASES.index(kind) >= PHASES.index(left)

    settings: dict[str, Any] = {
        "rounds": 1,
        "network": lambda inner: Meddler(inner, lost),
        "server": held_out(),
        **more,
    }
    return federate(FedAvg(), silos(11), folder, aggregator=rule, **settings)


def distance(a: Outcome, b: Outcome) -> float:
    """The largest difference of two runs' models."""
    left, right = (o.server_state.algorithm_state["model"] for o in (a, b))
    return max(float((left[name] - right[name]).abs().max()) for name in right)


@pytest.mark.parametrize("phase", PHASES)
def test_drop_outs_in_any_phase_give_the_mean_of_the_survivors(tmp_path: Path, phase: str) -> None:
    late = PHASES.index(phase) > PHASES.index("train")  # its masked summand is in the sum
    for number in range(5):
        gone = NAMES[1 : 1 + 2 * number : 2]
        summed = go(tmp_path / f"sum {number}", RULE, dict.fromkeys(gone, phase))
        silent = {} if late else dict.fromkeys(gone, "train")
        plain = go(tmp_path / f"plain {number}", None, silent)
        assert summed.records[-1].clients == plain.records[-1].clients
        assert len(summed.records[-1].clients) == 11 - len(silent)
        assert distance(summed, plain) <= ROUNDING * 2  # fewer survivors, a smaller sum of weights
        assert summed.records[-1].weight == plain.records[-1].weight


@pytest.mark.parametrize("phase", PHASES)
def test_one_drop_out_too_many_gives_no_output(tmp_path: Path, phase: str) -> None:
    with pytest.raises(UserError, match="only 6 of 7 clients' updates could be used in round 1"):
        go(tmp_path / "run", RULE, dict.fromkeys(NAMES[:5], phase))
    assert len(list((tmp_path / "run" / "state").iterdir())) == 1  # round 0 alone


class Returning(Meddler):
    """A network on which silent clients come back while the round is paused."""

    pauses = 0

    def wait_for(self, clients: Sequence[str], required: int) -> bool:
        assert required == 7
        self.lost = lambda client, kind, round: False
        self.pauses += 1
        return True


@pytest.mark.parametrize("phase", PHASES)
def test_a_paused_round_is_repeated_with_new_secrets(tmp_path: Path, phase: str) -> None:
    networks: list[Returning] = []

    def network(inner: Any) -> Returning:
        def lost(client: str, kind: str, round: int) -> bool:
            return client in NAMES[:5] and kind == phase

        networks.append(Returning(inner, lost))
        return networks[-1]

    paused = go(tmp_path / "paused", RULE, {}, network=network, rounds=2)
    assert networks[0].pauses == 1
    assert [record.clients for record in paused.records[1:]] == [NAMES, NAMES]
    whole = go(tmp_path / "whole", RULE, {}, rounds=2)
    assert same(paused.server_state, whole.server_state)  # masks cancel to the last bit
    keys: dict[tuple[str, int], set[bytes]] = {}
    for reply in map(Reply.parse, networks[0].replies):
        if reply.kind == "keys":
            own = keys.setdefault((reply.client, reply.round), set())
            own.add(to_bytes(reply.update.tensors["keys"])[4:100])
    assert {len(own) for (_, round), own in keys.items() if round == 2} == {1}
    assert max(len(own) for (_, round), own in keys.items() if round == 1) == 2


def test_numbers_are_summed(tmp_path: Path) -> None:
    runs = [
        federate(FedNova(), silos(11), tmp_path / str(number), held_out(), aggregator=rule)
        for number, rule in enumerate((None, RULE))
    ]
    assert distance(*runs) < 1e-5
    for plain, other in zip(runs[0].records[1:], runs[1].records[1:], strict=True):
        assert other.train["sum_a"] == pytest.approx(plain.train["sum_a"], rel=1e-6)
        assert other.train["clipped"] == 0


def test_a_round_records_its_threshold_and_who_dropped_out(tmp_path: Path) -> None:
    leaving = {"c1": "keys", "c2": "train", "c3": "survivors"}  # c3's update is in the sum
    numbers = go(tmp_path / "run", RULE, leaving).records[-1].train
    assert (numbers["threshold"], numbers["dropped_out"]) == (7, 2)


def test_what_users_are_told_of_a_round() -> None:
    terms = SecAgg(threshold=7, clip=2.0).describe(11)
    assert terms[0] == SecAgg(threshold=7).plan(11).sentence()
    assert "cut at ±2 and rounded to steps of 2e-08 (32 bits each)" in terms[1]
    assert "no loss, step count or score of a single client" in terms[2]
    assert SecAgg().describe(2) == terms[2:], "two silos may be all that are there for now"
    assert Mean().describe(11) == ()


def test_a_smaller_graph_gives_the_same_sum(tmp_path: Path) -> None:
    graph = SecAgg(neighbours=8, colluders=0.0)
    assert graph.plan(11).neighbours == 8
    whole = [go(tmp_path / f"{n}", rule, {"c3": "train"}) for n, rule in enumerate((graph, RULE))]
    assert same(whole[0].server_state, whole[1].server_state)


def test_the_server_receives_uniform_words(tmp_path: Path) -> None:
    networks: list[Meddler] = []

    def tapped(inner: Any) -> Meddler:
        networks.append(Meddler(inner))
        return networks[-1]

    for label, rule in (("plain", None), ("summed", RULE)):
        federate(
            FedAvg(),
            silos(11, features=2000),
            tmp_path / label,
            held_out(features=2000),
            rounds=1,
            aggregator=rule,
            network=tapped,
        )
    plain, masked = (
        {
            reply.client: reply.update
            for reply in map(Reply.parse, network.replies)
            if reply.kind == "train"
        }
        for network in networks
    )
    for name in NAMES:
        bytes_ = np.frombuffer(to_bytes(masked[name].tensors["weight"].view(torch.uint8)), np.uint8)
        counts = np.bincount(bytes_, minlength=256)
        expected = len(bytes_) / 256
        chi_square = float(((counts - expected) ** 2 / expected).sum())
        assert chi2.sf(chi_square, 255) > 1e-9
        pair = [u[name].tensors["weight"].double().flatten() for u in (plain, masked)]
        assert abs(float(torch.corrcoef(torch.stack(pair))[0, 1])) < 6 / len(pair[0]) ** 0.5
        assert not masked[name].numbers
        assert masked[name].weight == 1.0  # of every client


def test_secrets_are_gone_after_the_round(tmp_path: Path) -> None:
    sessions: list[dict[str, Any]] = []
    original = SecAgg.handle

    def watched(self: SecAgg, kind: str, instruction: Any, client: Any) -> Any:
        sessions.append(client.session)
        return original(self, kind, instruction, client)

    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(SecAgg, "handle", watched)
        go(tmp_path / "run", RULE, {})
    assert len(sessions) == 44  # four steps of eleven clients
    assert not any(SESSION in session for session in sessions)


def wrong(client: str) -> Any:
    """A client that sends wrong shares of others' secrets."""

    def changed(reply: Reply) -> Reply:
        if reply.kind != "unmask" or reply.client != client:
            return reply
        shares = {name: from_bytes(b"\0" * 33) for name in reply.update.tensors}
        return with_tensors(reply, shares)

    return changed


def test_a_wrong_share_is_left_out(tmp_path: Path) -> None:
    def lost(client: str, kind: str, round: int) -> bool:
        return client == "c10" and kind in PHASES[2:]

    runs = [
        go(tmp_path / str(n), RULE, {}, network=lambda inner, c=c: Meddler(inner, lost, c))
        for n, c in enumerate((None, wrong("c0")))
    ]
    assert same(runs[0].server_state, runs[1].server_state)


def test_too_many_wrong_shares_end_the_round(tmp_path: Path) -> None:
    def lost(client: str, kind: str, round: int) -> bool:
        return client in ("c7", "c8", "c9", "c10") and kind in PHASES[2:]

    with pytest.raises(UserError, match="the shares of c0's secret do not fit together"):
        go(tmp_path / "run", RULE, {}, network=lambda inner: Meddler(inner, lost, wrong("c0")))


def test_clipped_numbers_are_counted(tmp_path: Path) -> None:
    narrow = go(tmp_path / "run", SecAgg(threshold=7, clip=1e-3), {})
    assert narrow.records[-1].train["clipped"] > 10


def test_a_server_that_was_killed_goes_on_from_the_opened_sum(tmp_path: Path) -> None:
    class KilledError(Exception):
        """The server is gone."""

    class Fragile(FedAvg):
        """A server that is killed in its step, when the sum has been opened."""

        needs: ClassVar[frozenset[str]] = frozenset()

        def step(self, state: Any, combined: Any, server: Any) -> Any:
            raise KilledError

    with pytest.raises(KilledError):
        federate(Fragile(), silos(11), tmp_path / "run", held_out(), rounds=1, aggregator=RULE)
    networks: list[Meddler] = []

    def tapped(inner: Any) -> Meddler:
        networks.append(Meddler(inner))
        return networks[-1]

    resumed = go(tmp_path / "run", RULE, {"c3": "keys"}, network=tapped)
    assert not [r for r in map(Reply.parse, networks[0].replies) if r.kind in PHASES]
    assert same(resumed.server_state, go(tmp_path / "whole", RULE, {}).server_state)


def test_too_few_updates_for_the_run_open_no_sum(tmp_path: Path) -> None:
    networks: list[Meddler] = []

    def network(inner: Any) -> Meddler:
        networks.append(Meddler(inner, lambda name, kind, round: (name, kind) == LATE))
        return networks[-1]

    with pytest.raises(UserError, match="only 10 of 11 clients' updates"):
        go(tmp_path / "run", RULE, {}, network=network, quorum=11)
    kinds = {reply.kind for reply in map(Reply.parse, networks[0].replies)}
    assert kinds == {"keys", "shares", "train"}


def test_a_weight_that_cannot_be_is_refused(tmp_path: Path) -> None:
    def heavier(reply: Reply) -> Reply:
        if reply.kind != "train" or reply.client != "c0":
            return reply
        tensors = {n: t.clone() for n, t in reply.update.tensors.items()}
        tensors["#weight"] += 2**50
        return with_tensors(reply, tensors)

    with pytest.raises(UserError, match=r"the weights of c0, .* at most 308 is due"):
        go(tmp_path / "run", RULE, {}, network=lambda inner: Meddler(inner, changed=heavier))


def test_a_false_word_in_a_masked_update_is_seen(tmp_path: Path) -> None:
    def garbage(reply: Reply) -> Reply:
        if reply.kind != "train" or reply.client != "c0":
            return reply
        tensors = {
            name: torch.randint_like(t, -(2**31), 2**31 - 1) if t.dtype == torch.int32 else t
            for name, t in reply.update.tensors.items()
        }
        return with_tensors(reply, tensors)

    with pytest.raises(UserError, match="has numbers that no sum of theirs can have"):
        go(tmp_path / "run", RULE, {}, network=lambda inner: Meddler(inner, changed=garbage))


def test_keys_on_which_no_secret_can_rest_are_left_out(tmp_path: Path) -> None:
    def zeros(reply: Reply) -> Reply:
        if reply.kind != "keys" or reply.client != "c0":
            return reply
        keys = reply.update.tensors["keys"].clone()
        keys[4:36] = 0
        return with_tensors(reply, {"keys": keys})

    outcome = go(tmp_path / "run", RULE, {}, network=lambda inner: Meddler(inner, changed=zeros))
    assert outcome.records[-1].clients == NAMES[1:]
