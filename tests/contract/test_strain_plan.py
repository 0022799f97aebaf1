"""Strain test: a plan gives each client other matrices and ranks, and elements are averaged."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from hanse.federation.algorithms.fedavg import FedAvg
from hanse.federation.messages import Reply, Request
from hanse.randomness import RoundContext
from hanse.tensors import layouts
from hanse.tensors.low_rank import A, B
from hanse.tensors.named import add, layout
from parts.layout_plan import LayoutPlan
from toy_learners import LAYER, Toy
from toys import Meddler, Outcome, federate, held_out, same, silos

HEAD = "head"
PLANS = {"c0": (1, ""), "c1": (2, HEAD), "c2": (3, ""), "c3": (2, "")}  # rank, other matrix


def clients() -> dict[str, Toy]:
    return {
        name: replace(toy, rank=PLANS[name][0], beside=PLANS[name][1])
        for name, toy in silos(4).items()
    }


def go(folder: Path, **settings: Any) -> Outcome:
    return federate(LayoutPlan(), clients(), folder, held_out(rank=4, beside=HEAD), **settings)


def test_every_element_is_the_mean_of_the_clients_that_trained_it(tmp_path: Path) -> None:
    taps: list[Meddler] = []

    def tapped(inner: Any) -> Meddler:
        taps.append(Meddler(inner))
        return taps[0]

    outcome = go(tmp_path / "run", rounds=1, network=tapped)
    start = held_out(rank=4, beside=HEAD)(RoundContext(0), {}).tensors()
    replies = [r for r in map(Reply.parse, taps[0].replies) if r.kind == "train"]
    assert len(replies) == 4
    total, weight = ({n: torch.zeros_like(t) for n, t in start.items()} for _ in range(2))
    for reply in replies:
        rank, beside = PLANS[reply.client]
        names = {LAYER + A, LAYER + B, *([beside] if beside else [])}
        assert reply.update.tensors.keys() == names
        assert reply.update.tensors[LAYER + A].shape[0] == rank
        for name, tensor in reply.update.tensors.items():
            block = tuple(slice(size) for size in tensor.shape)
            total[name][block] += reply.update.weight * tensor
            weight[name][block] += reply.update.weight
    mean = {n: torch.nan_to_num(t / weight[n]) for n, t in total.items()}
    for name, tensor in outcome.server_state.algorithm_state["model"].items():
        torch.testing.assert_close(tensor, add(start, mean)[name])
    # The fourth row of A, which no client has, is as it was.
    model = outcome.server_state.algorithm_state["model"]
    assert torch.equal(model[LAYER + A][3], start[LAYER + A][3])
    assert model[HEAD].any()


def test_a_client_is_sent_its_part_and_is_judged_by_it(tmp_path: Path) -> None:
    taps: list[Meddler] = []

    def tapped(inner: Any) -> Meddler:
        taps.append(Meddler(inner))
        return taps[0]

    outcome = go(tmp_path / "run", network=tapped)
    final = outcome.server_state.algorithm_state["model"]
    forms = {name: layout(toy(RoundContext(0), {}).parameters()) for name, toy in clients().items()}
    requests = [Request.parse(message) for message in taps[0].requests][-4:]
    assert all(request.kind == "evaluate" for request in requests)
    for form, request in zip(forms.values(), requests, strict=True):
        sent = request.instruction.tensors
        assert sent.keys() == form.keys()
        assert all(torch.equal(sent[n], t) for n, t in layouts.cut(final, form).items())
    start, end = (outcome.records[at].test["loss"] for at in (0, -1))
    assert end < 0.8 * start


def test_equal_layouts_are_fedavg(tmp_path: Path) -> None:
    server = held_out(rank=4)
    toys = silos(4, rank=4)
    plan = federate(LayoutPlan(), toys, tmp_path / "plan", server).server_state
    fedavg = federate(FedAvg(), toys, tmp_path / "fedavg", server).server_state
    for name, tensor in plan.algorithm_state["model"].items():
        torch.testing.assert_close(tensor, fedavg.algorithm_state["model"][name])


def test_resume_equals_no_stop(tmp_path: Path) -> None:
    go(tmp_path / "stopped", stop_after=1)
    whole = go(tmp_path / "whole").server_state
    assert same(go(tmp_path / "stopped").server_state, whole)
