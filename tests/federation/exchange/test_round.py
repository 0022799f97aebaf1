"""The schema gate: an update that is not what was asked for is as good as none."""

import math
import random
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from hanse.errors import UserError
from hanse.federation import messages
from hanse.federation.algorithms.fedavg import FedAvg
from hanse.federation.algorithms.hetlora import HetLoRA
from hanse.federation.algorithms.scaffold import Scaffold
from hanse.federation.exchange.screening import NormBound, outliers, refuse_large
from hanse.federation.messages import ClientProfile, Reply, Update
from hanse.federation.privacy.example_dp import ExampleDp
from hanse.journal.checkpoints import latest
from hanse.journal.run_folder import read_ledger
from hanse.tensors import serialization
from hanse.tensors.serialization import MessageError
from toys import Meddler, Outcome, federate, same, silos, with_tensors

Change = Callable[[Reply], Reply]


def tensors(change: Callable[[dict[str, Tensor]], dict[str, Tensor]]) -> Change:
    """A change of the reply's tensors."""
    return lambda reply: with_tensors(reply, change(dict(reply.update.tensors)))


def poked(value: float) -> Change:
    """One value among all of the reply's is another."""

    def change(found: dict[str, Tensor]) -> dict[str, Tensor]:
        found["weight"] = found["weight"].clone()
        found["weight"][1, 2] = value
        return found

    return tensors(change)


def weight(value: float) -> Change:
    """The reply has another weight."""
    return lambda reply: replace(reply, update=replace(reply.update, weight=value))


def number(name: str, value: float) -> Change:
    """The reply has another, or one more, plain number."""

    def change(reply: Reply) -> Reply:
        numbers = {**reply.update.numbers, name: value}
        return replace(reply, update=replace(reply.update, numbers=numbers))

    return change


REFUSED = {
    "missing": tensors(lambda t: {"weight": t["weight"]}),
    "none at all": tensors(lambda t: {}),
    "extra": tensors(lambda t: {**t, "more": torch.zeros(1)}),
    "renamed": tensors(lambda t: {"weight": t["weight"], "Bias": t["bias"]}),
    "transposed": tensors(lambda t: {**t, "weight": t["weight"].T.contiguous()}),
    "flattened": tensors(lambda t: {**t, "weight": t["weight"].flatten()}),
    "one dimension more": tensors(lambda t: {**t, "bias": t["bias"][None]}),
    "broadcastable": tensors(lambda t: {**t, "bias": t["bias"][:1].clone()}),
    "float64": tensors(lambda t: {n: v.double() for n, v in t.items()}),
    "float16": tensors(lambda t: {n: v.half() for n, v in t.items()}),
    "whole numbers": tensors(lambda t: {n: v.long() for n, v in t.items()}),
    "not a number": poked(math.nan),
    "infinite": poked(math.inf),
    "infinite below": poked(-math.inf),
    "negative weight": weight(-1.0),
    "huge weight": weight(1e13),
    "infinite weight": weight(math.inf),
    "weight not a number": weight(math.nan),
    "number not a number": number("loss", math.nan),
    "infinite number": number("steps", math.inf),
}


def go(folder: Path, max_norm_ratio: float | None = None, **settings: Any) -> Outcome:
    """Two rounds of FedAvg over three clients."""
    network = lambda inner: Meddler(inner, **settings)  # noqa: E731
    bound = {"max_norm_ratio": max_norm_ratio}
    return federate(FedAvg(), silos(3), folder, rounds=2, network=network, **bound)


def only_c1(change: Change) -> Change:
    """`change`, for the updates of one client."""

    def changed(reply: Reply) -> Reply:
        return change(reply) if (reply.client, reply.kind) == ("c1", "train") else reply

    return changed


@pytest.fixture(scope="module")
def without(tmp_path_factory: pytest.TempPathFactory) -> Outcome:
    """The run in which c1 is never heard of."""
    silent = lambda client, kind, round: (client, kind) == ("c1", "train")  # noqa: E731
    return go(tmp_path_factory.mktemp("without") / "run", lost=silent)


@pytest.mark.parametrize("what", REFUSED)
def test_a_refused_update_leaves_no_trace(tmp_path: Path, what: str, without: Outcome) -> None:
    outcome = go(tmp_path / "run", changed=only_c1(REFUSED[what]))
    assert same(outcome.server_state, without.server_state)
    assert outcome.records[-1].clients == ("c0", "c2")
    errors = [row for row in read_ledger(tmp_path / "run") if row.error]
    assert [row.client for row in errors] == ["c1", "c1"]
    assert all(row.error for row in errors)


@pytest.mark.parametrize(
    ("message", "said"),
    [(b"", "its reply was refused"), (Reply("c0", "train", 1).pack(), "in the name of 'c0'")],
)
def test_what_is_no_reply_of_its_sender_ends_the_wait_for_it(
    tmp_path: Path, message: bytes, said: str, without: Outcome
) -> None:
    class Noise(Meddler):
        def receive(self, timeout: float | None) -> tuple[str, bytes] | None:
            found = super().receive(timeout)
            mine = found is not None and found[0] == "c1" and Reply.parse(found[1]).kind == "train"
            return ("c1", message) if mine else found

    outcome = federate(FedAvg(), silos(3), tmp_path / "run", rounds=2, network=Noise)
    assert same(outcome.server_state, without.server_state)
    errors = [row for row in read_ledger(tmp_path / "run") if row.error]
    assert len(errors) == 2 and all(said in row.error for row in errors)
    assert [row.up for row in errors] == [len(message)] * 2


@pytest.mark.parametrize("value", [0.0, 5.0, 12.0])
def test_an_allowed_weight_is_used(tmp_path: Path, value: float, without: Outcome) -> None:
    outcome = go(tmp_path / "run", changed=only_c1(weight(value)))
    assert outcome.records[-1].weight == 8 + value + 16
    assert same(outcome.server_state, without.server_state) == (value == 0)


@pytest.mark.parametrize(
    "name", ["up", "down", "client", "kind", "error", "round", "late", "unused"]
)
def test_a_number_cannot_rewrite_the_ledger(tmp_path: Path, name: str) -> None:
    plain, named = go(tmp_path / "plain"), go(tmp_path / "named", changed=only_c1(number(name, 7)))
    assert named.records[-1].round == plain.records[-1].round == 2
    for column in ("client", "kind", "round", "down"):
        rows = [
            [getattr(r, column) for r in read_ledger(tmp_path / at)] for at in ("plain", "named")
        ]
        assert rows[0] == rows[1]
    rows = read_ledger(tmp_path / "named")
    assert all(row.up > 100 and not row.error and row.late is None for row in rows)


def test_tensors_come_in_one_order() -> None:
    """Sums and random draws over all tensors depend on it; safetensors gives another each time."""
    sent = Update({name: torch.ones(1) for name in "hgfedcba"})
    message = Reply("c0", "train", 1, sent).pack()
    orders = {tuple(Reply.parse(message).update.tensors) for _ in range(20)}
    assert orders == {tuple("abcdefgh")}


@pytest.mark.parametrize("seed", range(8))
def test_replies_may_come_in_any_order(tmp_path: Path, seed: int) -> None:
    """Some wait while others are counted and more come in; each is counted once, as its own."""

    def shuffled(replies: list[bytes]) -> list[bytes]:
        return random.Random(seed).sample(replies, len(replies))

    def nine(folder: str, **settings: Any) -> Outcome:
        network = lambda inner: Meddler(inner, **settings)  # noqa: E731
        return federate(FedAvg(), silos(9), tmp_path / folder, rounds=2, network=network)

    as_asked, any_order = nine("as asked"), nine("any order", rearranged=shuffled)
    assert same(as_asked.server_state, any_order.server_state)
    own, other = (read_ledger(tmp_path / name) for name in ("as asked", "any order"))
    assert [row.client for row in own] == [row.client for row in other]


def test_a_weight_beyond_the_declared_examples_is_refused(tmp_path: Path, without: Outcome) -> None:
    """With a weight of 10¹², an update of 12 examples would make the mean its own."""
    outcome = go(tmp_path / "run", changed=only_c1(weight(13.0)))
    assert same(outcome.server_state, without.server_state)
    assert "the weight 13 is not between 0 and 12" in _errors(tmp_path / "run")[0]


def _errors(folder: Path) -> list[str]:
    return [row.error for row in read_ledger(folder) if row.error]


@pytest.mark.parametrize("value", [1e3, 1e30, 3e38])
def test_an_update_far_beyond_the_others_is_refused(
    tmp_path: Path, value: float, without: Outcome
) -> None:
    change = only_c1(poked(value))
    if value < 1e38:
        taken = go(tmp_path / "taken", changed=change)
        assert not same(taken.server_state, without.server_state), (
            "the attack works without a bound"
        )
    outcome = go(tmp_path / "run", changed=change, max_norm_ratio=50.0)
    assert same(outcome.server_state, without.server_state)
    assert "times the others' median" in _errors(tmp_path / "run")[0]


def test_updates_that_are_protected_one_by_one_are_compared_too(tmp_path: Path) -> None:
    """ExampleDp hides rows at each client and limits no update."""
    pytest.importorskip("dp_accounting")
    part = ExampleDp(epsilon=None, noise_multiplier=1.0)
    network = lambda inner: Meddler(inner, changed=only_c1(poked(3e38)))  # noqa: E731
    more = {"network": network, "mechanisms": [part], "max_norm_ratio": 50.0}
    outcome = federate(FedAvg(), silos(3), tmp_path / "run", rounds=1, **more)
    assert outcome.records[-1].clients == ("c0", "c2")
    assert "times the others' median" in _errors(tmp_path / "run")[0]


def test_a_bound_that_nobody_exceeds_changes_nothing(tmp_path: Path) -> None:
    bounded = go(tmp_path / "bounded", max_norm_ratio=50.0)
    assert same(bounded.server_state, go(tmp_path / "free").server_state)


def test_a_model_that_is_not_finite_is_not_committed(tmp_path: Path) -> None:
    """Every restart would go on from it and fail."""

    def huge(reply: Reply) -> Reply:
        far = {name: torch.full_like(t, 3e38) for name, t in reply.update.tensors.items()}
        update = replace(reply.update, tensors=far, numbers={})
        return replace(reply, update=update) if reply.kind == "train" else reply

    with pytest.raises(UserError, match="the model after round 2 would hold values that are not"):
        go(tmp_path / "run", changed=huge)
    assert latest(tmp_path / "run").round == 1  # type: ignore[union-attr]


@pytest.mark.parametrize("what", ["bytes", "tensors"])
def test_a_reply_that_is_costly_to_read_is_refused_unread(
    tmp_path: Path, what: str, without: Outcome, monkeypatch: pytest.MonkeyPatch
) -> None:
    """300 MiB where 60 bytes are due, or a header of 180,000 tensors, which takes seconds."""
    many = {f"t{number}": torch.zeros(0) for number in range(20_000)}
    large = {"bytes": {"weight": torch.zeros(10**6)}, "tensors": many}[what]
    message = Reply("c1", "train", 1, Update(large)).pack()

    class Flood(Meddler):
        def receive(self, timeout: float | None) -> tuple[str, bytes] | None:
            found = super().receive(timeout)
            mine = found is not None and found[0] == "c1" and Reply.parse(found[1]).kind == "train"
            return ("c1", message) if mine else found

    parsed: list[int] = []
    real = serialization.read
    monkeypatch.setattr(
        messages, "read", lambda data, *more: parsed.append(len(data)) or real(data, *more)
    )
    outcome = federate(FedAvg(), silos(3), tmp_path / "run", rounds=2, network=Flood)
    assert same(outcome.server_state, without.server_state)
    assert len(message) not in parsed
    assert "are due" in _errors(tmp_path / "run")[0]


def test_a_small_reply_with_a_large_header_is_refused(tmp_path: Path) -> None:
    due = {"weight": torch.empty(10**6, device="meta")}
    header = Reply("c1", "train", 1, Update({f"t{n}": torch.zeros(1) for n in range(2000)})).pack()
    with pytest.raises(MessageError, match=r"its header has .* where at most"):
        refuse_large(header, due)
    refuse_large(Reply("c1", "train", 1, Update({"weight": torch.zeros(10**6)})).pack(), due)


def test_norms_are_compared_with_the_others_alone() -> None:
    def found(**norms: float) -> list[str]:
        return [*dict(outliers({name: {"norm": own} for name, own in norms.items()}, 50.0))]

    assert found(a=1e30) == []
    assert found(a=1e30, b=1.0) == ["a"]
    assert found(a=1.0, b=2.0, c=120.0) == ["c"]
    assert found(a=0.0, b=0.0, c=0.0) == []
    assert found(a=math.nan, b=1.0, c=2.0) == ["a"], "no comparison with it is ever true"
    assert found(a=math.inf, b=math.inf, c=2.0) == ["a", "b"]


def test_an_odd_score_of_a_client_that_did_not_train_ends_nothing(tmp_path: Path) -> None:
    """Its refusal belongs to the request to evaluate: there is none to train in this round."""

    def odd(reply: Reply) -> Reply:
        return number("loss", math.nan)(reply) if reply.kind == "evaluate" else reply

    network = lambda inner: Meddler(inner, changed=odd)  # noqa: E731
    settings = {"rounds": 1, "fraction_train": 0.34, "network": network}
    outcome = federate(FedAvg(), silos(3), tmp_path / "run", **settings)  # type: ignore[arg-type]
    assert not outcome.records[-1].client_test and len(outcome.records) == 2
    rows = read_ledger(tmp_path / "run")
    assert [row.kind for row in rows if row.error] == ["evaluate"] * 3


def test_a_product_far_beyond_the_others_is_refused() -> None:
    """Two factors of ordinary norms may have a product that is far from it."""

    def update(up: float) -> Update:
        a, b = torch.full((2, 50), 10.0), torch.full((3, 2), up)
        return Update({"x.lora_A.weight": a, "x.lora_B.weight": b}, {}, 1.0)

    updates = [(ClientProfile(n, 9), update(up)) for n, up in [("a", 0.1), ("b", 0.1), ("c", 9.0)]]
    for algorithm, left in ((FedAvg(), ["a", "b", "c"]), (HetLoRA(), ["a", "b"])):
        refused: dict[str, str] = {}
        bound = NormBound(50.0, algorithm)
        kept = bound.screen(updates, refused.__setitem__)
        assert [profile.name for profile, _ in kept] == left
        assert all("its norm of products" in why for why in refused.values())


def test_updates_that_wait_on_disk_keep_the_order_of_their_tensors() -> None:
    """Noise on an aggregate is drawn in this order, in a simulation without screening, too."""
    updates = [
        (ClientProfile(n, 9), Update({"z": torch.ones(2), "a": torch.ones(3)})) for n in "xy"
    ]
    kept = NormBound(50.0, FedAvg()).screen(updates, lambda name, why: None)
    assert [list(update.tensors) for _, update in kept] == [["z", "a"], ["z", "a"]]


def test_a_control_variate_hides_no_change() -> None:
    """It is many times as large as the change, whose norm beside it could be anything."""

    def update(change: float) -> Update:
        return Update({"model/w": torch.full((4,), change), "control/w": torch.full((4,), 100.0)})

    updates = [(ClientProfile(n, 9), update(by)) for n, by in [("a", 1), ("b", 1), ("c", 4000)]]
    for algorithm, left in ((FedAvg(), ["a", "b", "c"]), (Scaffold(), ["a", "b"])):
        refused: dict[str, str] = {}
        bound = NormBound(50.0, algorithm)
        kept = bound.screen(updates, refused.__setitem__)
        assert [profile.name for profile, _ in kept] == left
        assert all("its norm of the change is 8e+03" in why for why in refused.values())


def test_a_client_that_outweighs_all_others_is_named(caplog: pytest.LogCaptureFixture) -> None:
    """How many examples it has is its own word."""

    def said(*weights: float) -> list[str]:
        caplog.clear()
        updates = [
            (ClientProfile(f"c{place}", 10**12), Update({"w": torch.ones(2)}, {}, weight))
            for place, weight in enumerate(weights)
        ]
        bound = NormBound(50.0, FedAvg())
        assert len([*bound.screen(updates, lambda name, why: None)]) == len(weights)
        return [record.getMessage() for record in caplog.records]

    assert said(10, 10, 20) == said(10, 20) == said(5) == said() == []
    (line,) = said(10, 1e12, 20)
    assert "c1 has the weight 1e+12, and those of all others together 30" in line
