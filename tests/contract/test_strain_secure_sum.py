"""Strain test: a four-phase aggregator with drop-outs, a toy of Bonawitz et al. 2017 (eprint 281).

The server learns the sum of the quantized updates and nothing else, as long as `threshold` clients
stay to the end. A toy: the group is small, and keys come from the run's seed so that tests repeat.
"""

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import product
from pathlib import Path
from typing import Any, ClassVar

import pytest
import torch
from torch import Tensor

from hanse.errors import UserError
from hanse.federation.algorithms.fedavg import FedAvg
from hanse.federation.compatibility import check
from hanse.federation.interfaces.aggregator import Aggregator, Exchange
from hanse.federation.interfaces.algorithm import Client
from hanse.federation.interfaces.declarations import MEAN
from hanse.federation.interfaces.results import Aggregate
from hanse.federation.messages import ClientProfile, Instruction, Reply, Update
from hanse.learners.training.settings import TrainingSettings
from hanse.tensors.named import Layout, Tensors
from hanse.tensors.serialization import Numbers
from toys import Meddler, Outcome, federate, held_out, silos

PRIME = 2**61 - 1  # of the key exchange and of the shares; a value fits into one int64
BASE = 3
RING = 2**40  # sums are taken modulo this
WEIGHT = "#weight"  # the masked weight's place among the tensors
Answers = Mapping[str, Update]


@dataclass(frozen=True)
class SecureSum(Aggregator):
    """Keys, shares, masked inputs, unmasking: Σ wₖ·Δₖ / Σ wₖ of those whose input arrived."""

    sums_only: ClassVar[bool] = True
    gives: ClassVar[frozenset[str]] = frozenset({MEAN})
    threshold: int = 3
    grid: float = 2.0**-16

    # ---- on the server

    def aggregate(self, exchange: Exchange) -> Aggregate:
        everyone = list(exchange.profiles)
        keys = self._enough(
            exchange.ask(
                "keys",
                {name: Instruction() for name in everyone},
                {name: {"keys": whole(2)} for name in everyone},
            )
        )
        book = {name: update.tensors["keys"] for name, update in keys.items()}
        shares = self._enough(
            exchange.ask(
                "shares",
                dict.fromkeys(book, Instruction(book)),
                {name: {other: whole(2) for other in book} for name in book},
            )
        )
        notes = {
            name: Instruction({other: shares[other].tensors[name] for other in shares})
            for name in shares
        }
        inputs = self._enough(exchange.train(notes))
        arrived = {name: float(name in inputs) for name in shares}
        opened = self._enough(
            exchange.ask(
                "unmask",
                {name: Instruction(numbers=arrived) for name in inputs},
                {name: {other: whole(1) for other in shares} for name in inputs},
            )
        )
        return self._opened(exchange, inputs, opened, book, list(shares))

    def _opened(
        self,
        exchange: Exchange,
        inputs: Answers,
        opened: Answers,
        book: Tensors,
        masked_with: Sequence[str],
    ) -> Aggregate:
        """Rebuild the secrets that are left in the sum of the inputs, and take them out."""
        places = {name: 1 + sorted(book).index(name) for name in book}
        total: dict[str, Tensor] = {}
        for update in inputs.values():
            total = plus(total, update.tensors) if total else dict(update.tensors)
        for name in masked_with:
            points = {places[n]: int(update.tensors[name]) for n, update in opened.items()}
            secret = rebuilt(dict(list(points.items())[: self.threshold]))
            if name in inputs:
                total = plus(total, mask(secret, total), -1)
            else:  # its pairwise masks are still in the inputs of the others
                for other in inputs:
                    between = agreed(secret, int(book[other][1]), "mask")
                    total = plus(total, mask(between, total), -1 if other < name else 1)
        signed = {n: torch.where(t >= RING // 2, t - RING, t) for n, t in total.items()}
        weight = float(signed.pop(WEIGHT))
        mean = {n: (t.double() * self.grid / weight).float() for n, t in signed.items()}
        return Aggregate(exchange.decode("", mean), {}, weight, tuple(inputs))

    def _enough(self, answers: Iterable[tuple[ClientProfile, Update]]) -> dict[str, Update]:
        came = {profile.name: update for profile, update in answers}
        if len(came) < self.threshold:
            raise UserError(
                f"only {len(came)} clients are left, but the secure sum needs {self.threshold}; "
                "wait for more, or lower the threshold."
            )
        return came

    def layout(self, expected: Layout) -> Layout:
        wide = {
            n: torch.empty(t.shape, dtype=torch.int64, device="meta") for n, t in expected.items()
        }
        return {**wide, WEIGHT: whole(1)}

    # ---- at the client

    def handle(self, kind: str, instruction: Instruction, client: Client) -> Update:
        if kind == "keys":
            secrets = [client.context.derive(name) % PRIME for name in ("seal", "mask", "self")]
            client.session.clear()
            client.session["secrets"] = secrets
            public = [pow(BASE, secret, PRIME) for secret in secrets[:2]]
            return Update({"keys": torch.tensor(public)})
        if kind == "shares":
            client.session["book"] = instruction.tensors
            return Update(self._shares(client))
        if kind == "unmask":
            return Update(self._revealed(instruction.numbers, client))
        return super().handle(kind, instruction, client)

    def _shares(self, client: Client) -> Tensors:
        """For every client its shares of the mask key and of the self mask, under a common key."""
        (seal_key, mask_key, self_mask), book = client.session["secrets"], client.session["book"]
        if len(book) < self.threshold:
            raise UserError("too few clients to hide among.")
        result = {}
        for place, name in enumerate(sorted(book), start=1):
            pair = [
                share(mask_key, place, self.threshold, client, "mask"),
                share(self_mask, place, self.threshold, client, "self"),
            ]
            key = agreed(seal_key, int(book[name][0]), f"{client.profile.name} to {name}")
            result[name] = sealed(torch.tensor(pair), key)
        return result

    def seal(self, update: Update, note: Instruction, client: Client) -> Update:
        client.session["received"] = note.tensors
        _, mask_key, self_mask = client.session["secrets"]
        me, book = client.profile.name, client.session["book"]
        weighted = {n: (t.double() * update.weight / self.grid) for n, t in update.tensors.items()}
        total: Tensors = {n: t.round().long() % RING for n, t in weighted.items()}
        total = {**total, WEIGHT: torch.tensor([int(update.weight)])}
        layout = total
        total = plus(total, mask(self_mask, layout))
        for other in note.tensors:
            if other != me:
                between = agreed(mask_key, int(book[other][1]), "mask")
                total = plus(total, mask(between, layout), 1 if me < other else -1)
        return Update(total)

    def _revealed(self, arrived: Numbers, client: Client) -> Tensors:
        """Of each client one share: of its self mask if its input arrived, else of its mask key."""
        if client.session.pop("revealed", False) or sum(arrived.values()) < self.threshold:
            raise UserError("a client reveals its shares once, and for enough others only.")
        client.session["revealed"] = True
        seal_key, book = client.session["secrets"][0], client.session["book"]
        result = {}
        for name, sealed_pair in client.session["received"].items():
            key = agreed(seal_key, int(book[name][0]), f"{name} to {client.profile.name}")
            pair = sealed(sealed_pair, key, -1)
            result[name] = pair[1:] if arrived[name] else pair[:1]
        return result


def whole(size: int) -> Tensor:
    """The layout of `size` whole numbers."""
    return torch.empty(size, dtype=torch.int64, device="meta")


def agreed(secret: int, public: int, purpose: str) -> int:
    """What two clients both know once each has the other's public key (Diffie and Hellman)."""
    text = f"{pow(public, secret, PRIME)}/{purpose}"
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:7], "big")


def share(secret: int, place: int, threshold: int, client: Client, purpose: str) -> int:
    """The value at `place` of a random polynomial that is `secret` at 0 (Shamir)."""
    rest = [client.context.derive(f"{purpose} {power}") % PRIME for power in range(1, threshold)]
    return sum(c * pow(place, power, PRIME) for power, c in enumerate([secret, *rest])) % PRIME


def rebuilt(points: Mapping[int, int]) -> int:
    """The secret behind the shares at these places (Lagrange's formula at 0)."""
    total = 0
    for at, value in points.items():
        for other in points:
            if other != at:
                value = value * other * pow(other - at, -1, PRIME) % PRIME
        total += value
    return total % PRIME


def sealed(pair: Tensor, key: int, sign: int = 1) -> Tensor:
    """Two numbers under a one-time pad; the sign -1 takes it off."""
    pad = torch.randint(PRIME, (2,), generator=torch.Generator().manual_seed(key))
    return torch.tensor([(int(a) + sign * int(b)) % PRIME for a, b in zip(pair, pad, strict=True)])


def mask(seed: int, like: Tensors) -> Tensors:
    """Random numbers of the ring, in the shapes of `like`."""
    draw = torch.Generator().manual_seed(seed)
    return {name: torch.randint(RING, like[name].shape, generator=draw) for name in sorted(like)}


def plus(a: Tensors, b: Tensors, sign: int = 1) -> dict[str, Tensor]:
    """a ± b in the ring."""
    return {name: (a[name] + sign * b[name]) % RING for name in a}


# ---- the tests

PHASES = ("keys", "shares", "train", "unmask", "never")
NAMES = ("c0", "c1", "c2", "c3")
# Any one client and any phase; then two pairs of them, and any two phases.
PAIRS = [("c0",), ("c1",), ("c2",), ("c3",), ("c0", "c2"), ("c1", "c3")]
PATTERNS = [
    dict(zip(pair, leaving, strict=True))
    for pair in PAIRS
    for leaving in product(PHASES[:-1], repeat=len(pair))
]


def go(folder: Path, rule: Aggregator | None, leaving: Mapping[str, str], **more: Any) -> Outcome:
    """One round (or more) in which each client falls silent in its phase of `leaving`."""

    def lost(client: str, kind: str, round: int) -> bool:
        left = PHASES.index(leaving.get(client, "never"))
        return kind in PHASES and PHASES.index(kind) >= left

    settings: dict[str, Any] = {
        "rounds": 1,
        "network": lambda inner: Meddler(inner, lost),
        "server": held_out(),
        **more,
    }
    return federate(FedAvg(), silos(4), folder, aggregator=rule, **settings)


def near(a: Outcome, b: Outcome, tolerance: float) -> bool:
    """Whether two runs' models agree."""
    left, right = a.server_state.algorithm_state["model"], b.server_state.algorithm_state["model"]
    return all(float((left[name] - right[name]).abs().max()) <= tolerance for name in right)


def test_drop_outs_in_any_phase_give_the_mean_of_the_survivors(tmp_path: Path) -> None:
    rule = SecureSum(threshold=2)
    means: dict[tuple[str, ...], Outcome] = {}
    for number, leaving in enumerate(PATTERNS):
        summed = go(tmp_path / f"sum {number}", rule, leaving)
        stay = tuple(name for name in NAMES if leaving.get(name, "unmask") == "unmask")
        if stay not in means:
            silent = {name: "train" for name in NAMES if name not in stay}
            means[stay] = go(tmp_path / "-".join(stay), None, silent)
        assert summed.records[-1].clients == tuple(stay), leaving
        # Each client's rounding is at most half a step, and its weight at least one example.
        assert near(summed, means[stay], rule.grid), leaving
        assert summed.records[-1].weight == means[stay].records[-1].weight
    assert len(means) == 7  # all four, all but one, all but a pair


@pytest.mark.parametrize("phase", PHASES[:-1])
def test_too_few_clients_stop_the_round(tmp_path: Path, phase: str) -> None:
    leaving = {"c1": phase, "c2": phase}
    with pytest.raises(UserError, match="only 2 clients are left"):
        go(tmp_path / "run", SecureSum(threshold=3), leaving)
    assert len(list((tmp_path / "run" / "state").iterdir())) == 1  # round 0 alone
    assert go(tmp_path / "run", SecureSum(threshold=2), leaving).records[-1].round == 1


def test_masked_update_tells_nothing(tmp_path: Path) -> None:
    networks: dict[str, Meddler] = {}

    def inputs(label: str, rule: Aggregator | None) -> dict[str, Tensor]:
        def tapped(inner: Any) -> Meddler:
            networks[label] = Meddler(inner)
            return networks[label]

        server = held_out(features=100)
        federate(
            FedAvg(),
            silos(4, features=100),
            tmp_path / label,
            server,
            rounds=1,
            aggregator=rule,
            network=tapped,
        )
        found = {}
        for reply in map(Reply.parse, networks[label].replies):
            if reply.kind == "train":
                found[reply.client] = reply.update.tensors["weight"].double().flatten()
        return found

    plain, masked = inputs("mean", None), inputs("sum", SecureSum())
    for name in NAMES:
        pair = torch.stack([plain[name], masked[name]])
        assert abs(float(torch.corrcoef(pair)[0, 1])) < 0.2
        assert 0.4 < float(masked[name].mean()) / RING < 0.6  # spread over the whole ring


def test_clients_remember_through_all_phases(tmp_path: Path) -> None:
    keep = TrainingSettings(learning_rate=0.05, optim="sgd", momentum=0.9, optimizer_state="keep")
    runs = [
        federate(
            FedAvg(), silos(4, keep), tmp_path / str(number), held_out(), rounds=3, aggregator=rule
        )
        for number, rule in enumerate((None, SecureSum()))
    ]
    assert near(runs[0], runs[1], 1e-3)
    reset = silos(4, replace(keep, optimizer_state="reset"))
    assert not near(runs[0], federate(FedAvg(), reset, tmp_path / "reset", held_out()), 1e-2)


@dataclass(frozen=True)
class Picky(FedAvg):
    """Wants to see each update."""

    def combine(self, updates: Sequence[tuple[ClientProfile, Update]]) -> Aggregate:
        return Aggregate({}, {}, 0.0, ())


def test_an_algorithm_that_combines_by_itself_is_refused() -> None:
    check(FedAvg(), (), SecureSum())
    with pytest.raises(UserError, match="SecureSum sees only sums, but Picky"):
        check(Picky(), (), SecureSum())
