"""FedAdapter: trials of three groups, growth without a jump, and winners by their numbers."""

import logging
from collections import defaultdict
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn import Parameter

from hanse.errors import UserError
from hanse.federation.algorithms import fedadapter
from hanse.federation.algorithms.fedadapter import GROUPS, SAME, FedAdapter
from hanse.federation.interfaces.algorithm import Server
from hanse.federation.interfaces.results import Memory, State
from hanse.federation.interfaces.trained_tensors import DEPTH, WIDTH
from hanse.federation.messages import Request
from hanse.learners.training.settings import TrainingSettings
from hanse.randomness import RoundContext
from hanse.tensors import layouts
from hanse.tensors.named import layout, shapes
from hanse.tensors.serialization import Numbers
from toy_learners import CLASSES, FEATURES, Batch, Toy, ToyLearner
from toys import Meddler, Outcome, federate, held_out, same, silos

LAYERS, INNER = 3, 6
TRAINING = TrainingSettings(learning_rate=0.05, per_device_train_batch_size=4)
# Rounds of 4 steps take 4 · (1 + depth) seconds, and bytes next to nothing.
SLOW: dict[str, Any] = {"rate": 1e6, "step_seconds": 1.0, "layer_seconds": 1.0}
FAST = FedAdapter(width=2, wider=2, budget=3.0, **SLOW)


class Growing(ToyLearner):
    """Bottlenecks side by side, one in each layer: Σ up·tanh(down·x) over the active ones."""

    def __init__(self, toy: Toy, context: RoundContext, optimizer_state: Memory) -> None:
        super().__init__(toy, context, optimizer_state)
        self.configure({DEPTH: LAYERS, WIDTH: INNER})

    def configure(self, numbers: Numbers) -> None:
        depth, width = int(numbers[DEPTH]), min(int(numbers[WIDTH]), INNER)
        draw, self._start = torch.Generator().manual_seed(3), {}
        for number in range(LAYERS):
            down = torch.randn(INNER, FEATURES, generator=draw)
            if number >= LAYERS - depth:
                self._start[f"{number}.down"] = down[:width].clone()
                self._start[f"{number}.up"] = torch.zeros(CLASSES, width)
        self._live = {name: Parameter(tensor.clone()) for name, tensor in self._start.items()}

    def initial(self) -> Mapping[str, Tensor]:
        return self._start

    def forward(self, batch: Batch) -> Tensor:
        logits = torch.zeros(len(batch.x), CLASSES)
        for number in range(LAYERS):
            if f"{number}.down" in self._live:
                inner = torch.tanh(batch.x @ self._live[f"{number}.down"].T)
                logits = logits + inner @ self._live[f"{number}.up"].T
        return logits


@dataclass(frozen=True)
class GrowingToy(Toy):
    """Makes `Growing` learners."""

    def __call__(self, context: RoundContext, optimizer_state: Memory) -> Growing:
        return Growing(self, context, optimizer_state)


def growing(toy: Toy) -> GrowingToy:
    return GrowingToy(**{**vars(toy), "training": replace(TRAINING, max_steps=4)})


SERVER = growing(held_out())


def go(folder: Path, algorithm: FedAdapter = FAST, clients: int = 4, **more: Any) -> Outcome:
    learners = {name: growing(toy) for name, toy in silos(clients).items()}
    return federate(algorithm, learners, folder, SERVER, **{"rounds": 12, **more})


def instructed(taps: list[Meddler], kind: str = "train") -> list[tuple[int, int, int]]:
    """Round, depth and width of each instruction."""
    requests = [r for tap in taps for r in map(Request.parse, tap.requests) if r.kind == kind]
    numbers = [(r.round, r.instruction.numbers) for r in requests]
    return [(round, int(own[DEPTH]), int(own[WIDTH])) for round, own in numbers]


def tapped(taps: list[Meddler]) -> Callable[[Any], Meddler]:
    def tap(inner: Any) -> Meddler:
        taps.append(Meddler(inner))
        return taps[-1]

    return tap


def sizes(state: State) -> tuple[int, int, int]:
    """Trial, depth and width."""
    size = state["size"]
    return int(size["trial"]), int(size["depth"]), int(size["width"])


def server(round: int = 1, rounds: int = 9) -> Server:
    context = RoundContext(0, round, rounds=rounds)
    return Server(SERVER(context, {}), 4, context)


def won(group: str, monkeypatch: pytest.MonkeyPatch) -> State:
    """The state after a trial that a group has won, after all groups have trained."""
    state = dict(FAST.init(server()))
    draw = torch.Generator().manual_seed(7)
    for name in GROUPS:
        state[name] = {
            key: torch.randn(tensor.shape, generator=draw) for key, tensor in state[name].items()
        }
    scores = iter([float(name == group) for name in GROUPS])
    monkeypatch.setattr(fedadapter, "_accuracy", lambda *_: next(scores))
    return {"before": state[group], **FAST._decided(state, server())}


@pytest.mark.parametrize("group", GROUPS)
def test_what_grows_has_the_outputs_of_the_winner_whose_weights_all_inherit(
    group: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    after = won(group, monkeypatch)
    winner, batch = after["before"], server().learner.batch(SERVER.splits["test"])
    sent = {"deeper": (2, 2), "wider": (1, 4), "same": (1, 2)}[group]
    assert sizes(after) == (2, *sent)
    outputs: list[Tensor] = []
    for part, size in [(winner, sent), *((after[g], FAST._sizes(after)[g]) for g in GROUPS)]:
        learner = server().learner
        learner.configure({DEPTH: size[0], WIDTH: size[1]})
        learner.load(part)
        outputs.append(learner.forward(batch))
        inherited = layouts.cut(part, layout(winner))
        assert all(torch.equal(inherited[name], tensor) for name, tensor in winner.items())
    whole = server().learner
    whole.load(after["model"])
    for grown in (*outputs[1:], whole.forward(batch)):
        torch.testing.assert_close(grown, outputs[0], atol=1e-6, rtol=1e-6)
    assert outputs[0].norm() > 1
    assert len({str(shapes(after[name])) for name in GROUPS}) == 3


def test_depth_and_width_never_shrink_and_groups_are_siblings(tmp_path: Path) -> None:
    taps: list[Meddler] = []
    outcome = go(tmp_path / "run", rounds=20, network=tapped(taps))
    by_round = defaultdict(set)
    for round, depth, width in instructed(taps):
        by_round[round].add((depth, width))
    least = [(min(d for d, _ in own), min(w for _, w in own)) for own in by_round.values()]
    for (depth, width), own in zip(least, by_round.values(), strict=True):
        assert own <= {(depth, width), (depth + 1, width), (depth, width + 2)}
    assert all(a[0] <= b[0] and a[1] <= b[1] for a, b in pairwise(least))
    trial, depth, width = sizes(outcome.server_state.algorithm_state)
    assert trial > 3 and (depth > 1 or width > 2)
    # After the last round all clients score the winner, and the server has it, too.
    assert set(instructed(taps, "evaluate")) == {(20, depth, width)}
    state = outcome.server_state.algorithm_state
    part = layouts.cut(state["model"], layout(state[SAME]))
    assert all(torch.equal(part[name], tensor) for name, tensor in state[SAME].items())


@pytest.mark.parametrize(
    ("scores", "winner"),
    [
        ((0.9, 8e-05, 0.5), (1, 2)),  # as texts, 8e-05 would be the largest
        ((0.5, 0.5, 0.5), (1, 2)),
        ((0.09, 0.1, 0.1), (2, 2)),
        ((0.1, 0.2, 0.3), (1, 4)),
    ],
)
def test_the_winner_has_the_largest_number_and_is_the_smallest_of_equals(
    scores: tuple[float, ...], winner: tuple[int, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    given = iter(scores)
    monkeypatch.setattr(fedadapter, "_accuracy", lambda *_: next(given))
    assert sizes(FAST._decided(FAST.init(server()), server()))[1:] == winner


def test_each_group_trains_the_rounds_that_fit_into_its_time(tmp_path: Path) -> None:
    """With 4 steps a round of depth 1 takes 8 seconds, and of depth 2 12 seconds."""
    taps: list[Meddler] = []
    algorithm = replace(FAST, budget=5.0)  # 25 seconds at depth 1
    go(tmp_path / "run", algorithm, clients=3, rounds=3, network=tapped(taps))
    rounds = defaultdict(set)
    for round, *size in instructed(taps):
        rounds[tuple(size)].add(round)
    assert rounds == {(1, 2): {1, 2, 3}, (2, 2): {1, 2}, (1, 4): {1, 2, 3}}


@pytest.mark.parametrize("clients", [1, 2, 5])
def test_all_groups_train_whatever_the_number_of_clients(tmp_path: Path, clients: int) -> None:
    taps: list[Meddler] = []
    go(tmp_path / "run", clients=clients, rounds=3, network=tapped(taps))
    assert {(d, w) for _, d, w in instructed(taps)} >= {(1, 2), (2, 2), (1, 4)}


@pytest.mark.parametrize("stop", range(7))
def test_resume_in_the_midst_of_trials_equals_no_stop(tmp_path: Path, stop: int) -> None:
    own: dict[str, Any] = {"rounds": 8, "fraction_train": 0.75}
    whole = go(tmp_path / "whole", **own)
    assert sizes(whole.server_state.algorithm_state) > (3, 1, 2)
    go(tmp_path / "stopped", **own, stop_after=stop)
    assert same(go(tmp_path / "stopped", **own).server_state, whole.server_state)


def test_nothing_to_grow_is_said_and_trains_on(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING):
        outcome = go(tmp_path / "run", replace(FAST, depth=LAYERS, width=INNER), rounds=4)
    assert "begins with the whole adapter, so nothing can grow" in caplog.text
    state = outcome.server_state.algorithm_state
    assert shapes(state[SAME]) == shapes(state["model"])
    assert outcome.records[-1].test["loss"] < outcome.records[0].test["loss"]


@pytest.mark.parametrize(("name", "most"), [("depth", LAYERS), ("width", INNER)])
def test_a_first_part_that_the_adapter_lacks_is_refused(
    tmp_path: Path, name: str, most: int
) -> None:
    sentence = f"fedadapter has {name}: {most + 1}, which is more than the adapter"
    with pytest.raises(UserError, match=sentence):
        go(tmp_path / "run", replace(FAST, **{name: most + 1}), rounds=1)


def test_the_server_needs_validation_rows(tmp_path: Path) -> None:
    splits = {name: rows for name, rows in SERVER.splits.items() if name != "validation"}
    learners = {name: growing(toy) for name, toy in silos(4).items()}
    without = GrowingToy(**{**vars(SERVER), "splits": splits})
    with pytest.raises(UserError, match=r"there are none; hold some out with data\.validation"):
        federate(FAST, learners, tmp_path / "run", without, rounds=6)
