"""One client of three answers with odd updates: no algorithm's run ends by it, or is led by it.

Each round of a run meets another odd update, so that one run shows them all. The norm is bounded as
in deployments.
"""

import json
import math
import struct
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from hanse.experiment.sections import Deployment
from hanse.federation.messages import Reply, Update
from hanse.journal.run_folder import read_ledger
from hanse.tensors.named import all_finite, norm
from toys import Meddler, Outcome, federate, held_out, same, silos

from .cases import CASES, Case, built, every_algorithm

LIAR = "c1"
RATIO = Deployment().max_norm_ratio
Change = Callable[[Reply], Reply]
Named = dict[str, Tensor]


def tensors(change: Callable[[Named], Mapping[str, Tensor]]) -> Change:
    """A change of the reply's tensors."""

    def changed(reply: Reply) -> Reply:
        update = replace(reply.update, tensors=change(dict(reply.update.tensors)))
        return replace(reply, update=update)

    return changed


def first(change: Callable[[Tensor], Tensor]) -> Change:
    """A change of the first tensor of floats."""

    def changed(named: Named) -> Named:
        name = min(name for name, tensor in named.items() if tensor.is_floating_point())
        return {**named, name: change(named[name])}

    return tensors(changed)


def one_value(value: float) -> Change:
    """One value of the first tensor is another."""

    def poke(tensor: Tensor) -> Tensor:
        flat = tensor.flatten().clone()
        flat[0] = value
        return flat.reshape(tensor.shape)

    return first(poke)


def weight(value: float) -> Change:
    return lambda reply: replace(reply, update=replace(reply.update, weight=value))


def numbers(change: Callable[[dict[str, float]], Mapping[str, float]]) -> Change:
    """A change of the reply's plain numbers."""

    def changed(reply: Reply) -> Reply:
        update = replace(reply.update, numbers=change(dict(reply.update.numbers)))
        return replace(reply, update=update)

    return changed


def number(name: str, value: float) -> Change:
    return numbers(lambda n: {**n, name: value})


REFUSED: dict[str, Change] = {
    "a tensor is missing": tensors(lambda t: {n: t[n] for n in sorted(t)[1:]}),
    "no tensors": tensors(lambda t: {}),
    "one tensor more": tensors(lambda t: {**t, "more": torch.zeros(1)}),
    "renamed": tensors(lambda t: {n.upper(): own for n, own in t.items()}),
    "one dimension more": first(lambda t: t[None]),
    "another rank": first(lambda t: torch.cat([t, t])),
    "flattened": tensors(lambda t: {n: own.reshape(-1, 1, 1) for n, own in t.items()}),
    "float64": first(lambda t: t.double()),
    "float16": first(lambda t: t.half()),
    "whole numbers": first(lambda t: t.long()),
    "not a number": one_value(math.nan),
    "infinite": one_value(math.inf),
    "1e30": one_value(1e30),
    "3e38 everywhere": tensors(
        lambda t: {
            n: torch.full_like(o, 3e38) if o.is_floating_point() else o for n, o in t.items()
        }
    ),
    "weight -1": weight(-1.0),
    "weight 1e12": weight(1e12),
    "twice the weight that is its own": lambda reply: replace(
        reply, update=replace(reply.update, weight=2 * reply.update.weight)
    ),
    "weight not a number": weight(math.nan),
    "a number not a number": number("loss", math.nan),
    "a number of 1e308": number("loss", 1e308),
    "half a surrogate pair": lambda reply: replace(
        reply, update=Update(), error="no \ud800\x1b[2J"
    ),
    "in another's name": lambda reply: replace(reply, client="c0"),
}
REPORTED: dict[str, Callable[[str], Change]] = {  # of a number that the step uses
    "missing": lambda name: numbers(lambda n: {k: v for k, v in n.items() if k != name}),
    "-1": lambda name: number(name, -1.0),
    "1e30": lambda name: number(name, 1e30),
    "1e4": lambda name: number(name, 1e4),
}
HARMLESS: dict[str, Change] = {
    "weight 0": weight(0.0),
    "no numbers": numbers(lambda n: {}),
    "all numbers 0": numbers(lambda n: dict.fromkeys(n, 0.0)),
    "all numbers 1e30": numbers(lambda n: dict.fromkeys(n, 1e30)),
    "numbers of odd names": numbers(lambda n: {**n, "\x1b[2J": 1.0, "a/b\n": 2.0, "": 3.0}),
    "zeros": tensors(lambda t: {n: torch.zeros_like(own) for n, own in t.items()}),
    "turned round": tensors(lambda t: {n: -own for n, own in t.items()}),
    "ten times as large": tensors(lambda t: {n: 10 * own for n, own in t.items()}),
    "as small as can be": tensors(lambda t: {n: own * 1e-38 for n, own in t.items()}),
}


def flood(tensors: int, data: int) -> bytes:
    """A reply with so many tensors, the first of which has so many bytes."""
    meta = {"format": "hanse/1", "message": "reply", "kind": "train", "client": LIAR}
    meta |= {"numbers": ["round", "weight"], "groups": ["update"]}  # type: ignore[dict-item]
    start = 16 + data
    header: dict[str, Any] = {"__metadata__": {"hanse": json.dumps(meta)}}
    header["#"] = {"dtype": "F64", "shape": [2], "data_offsets": [0, 16]}
    header["update/t"] = {"dtype": "U8", "shape": [data], "data_offsets": [16, start]}
    empty = {"dtype": "U8", "shape": [0], "data_offsets": [start, start]}
    header |= {f"update/{number}": empty for number in range(tensors)}
    text = json.dumps(header).encode()
    return struct.pack("<Q", len(text)) + text + struct.pack("<dd", 1.0, 1.0) + bytes(data)


BYTES = {
    "180,000 tensors": flood(180_000, 0),
    "64 MiB": flood(0, 64 * 2**20),
    "nothing": b"",
    "noise": b"\x80\x04" * 500,
}


class Liar(Meddler):
    """A network in which one client's answers to training are odd, in each round in another way."""

    def __init__(self, inner: Any, odd: list[Change | bytes]) -> None:
        super().__init__(inner)
        self.odd = odd

    def receive(self, timeout: float | None) -> tuple[str, bytes] | None:
        found = super().receive(timeout)
        if found is None or found[0] != LIAR:
            return found
        reply = Reply.parse(found[1])
        if reply.kind != "train":
            return found
        change = self.odd[reply.round - 1]
        return LIAR, change if isinstance(change, bytes) else change(reply).pack()


def go(case: Case, folder: Path, odd: list[Change | bytes] | None, rounds: int) -> Outcome:
    """A run of three clients; odd: what one of them answers, None: nothing."""
    learners, server = silos(3, run=rounds, **case.adapter), held_out(**case.adapter)

    def network(inner: Any) -> Meddler:
        if odd is not None:
            return Liar(inner, odd)
        return Meddler(inner, lost=lambda client, kind, round: (client, kind) == (LIAR, "train"))

    settings: dict[str, Any] = {"rounds": rounds, "max_norm_ratio": RATIO, "network": network}
    return federate(built(case), learners, folder, server, **settings)


@every_algorithm
def test_what_is_refused_leaves_no_trace(case: Case, tmp_path: Path) -> None:
    odd: dict[str, Change | bytes] = {**REFUSED, **BYTES}
    for name in built(case).numbers:
        odd |= {f"{name} {what}": change(name) for what, change in REPORTED.items()}
    outcome = go(case, tmp_path / "run", [*odd.values()], len(odd))
    rows = [row for row in read_ledger(tmp_path / "run") if row.kind == "train"]
    said = {row.round: row.error for row in rows if row.client == LIAR}
    assert [what for number, what in enumerate(odd, 1) if not said[number]] == []
    assert not any(row.error for row in rows if row.client != LIAR)
    assert all(record.clients == ("c0", "c2") for record in outcome.records[1:])
    assert same(outcome.server_state, go(case, tmp_path / "without", None, len(odd)).server_state)


@every_algorithm
def test_what_is_not_refused_does_no_harm(case: Case, tmp_path: Path) -> None:
    """It may be counted, within the bounds; the model stays small, and the others take part."""
    outcome = go(case, tmp_path / "run", [*HARMLESS.values()], len(HARMLESS))
    assert len(outcome.records) == 1 + len(HARMLESS)
    assert all({"c0", "c2"} <= set(record.clients) for record in outcome.records[1:])
    assert all(map(all_finite, outcome.server_state.algorithm_state.values()))
    model = outcome.run.method.algorithm.model(outcome.server_state.algorithm_state)
    assert norm({name: t for name, t in model.items() if t.is_floating_point()}) < 1e4
    assert math.isfinite(outcome.records[-1].test["loss"])


def test_there_are_as_many_odd_updates_as_promised() -> None:
    assert len(CASES) * (len(REFUSED) + len(BYTES) + len(HARMLESS)) >= 320
