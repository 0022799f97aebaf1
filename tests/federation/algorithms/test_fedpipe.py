"""FedPipe: scores of matrices in local training, and means over those who train a matrix."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
import torch
from scipy.stats import spearmanr
from torch import Tensor
from torch.nn import Parameter

from hanse.errors import UserError
from hanse.federation.aggregators.mean import Mean
from hanse.federation.algorithms.fedpipe import SCORES, FedPipe, Importance, matrices
from hanse.federation.algorithms.flexlora import FlexLoRA
from hanse.federation.compression.int8 import Int8
from hanse.federation.compression.zstd import Zstd
from hanse.federation.interfaces.trained_tensors import SHARE
from hanse.federation.messages import Reply, Request
from hanse.federation.method import Method
from hanse.federation.pipeline import Pipeline, Pipelines
from hanse.federation.speed.link_rounds import SAMPLE, link_round, sample
from hanse.journal.run_folder import read_ledger
from hanse.learners.training.settings import TrainingSettings
from hanse.randomness import RoundContext
from hanse.tensors.low_rank import A, B, layers
from toy_learners import CLASSES, LAYER, Batch, Point, Toy, ToyLearner, points
from toys import Meddler, Outcome, federate, held_out, same, silos

TRAINING = TrainingSettings(learning_rate=0.1, per_device_train_batch_size=4, optim="sgd")
NOISE = 24  # the features after the four that tell the classes
STRENGTHS = (1.0, 0.5, 0.25, 0.12, 0.06)  # of matrices that read the same four features


class Planted(ToyLearner):
    """LoRA around several frozen matrices; each reads its own block of features."""

    def __init__(self, toy: "PlantedToy", context: RoundContext, memory: dict[str, Tensor]) -> None:
        super().__init__(toy, context, memory)
        draw = torch.Generator().manual_seed(1)
        self.reads = toy.reads
        self._live = {}
        for name, (columns, _) in toy.reads.items():
            a = torch.randn(2, len(columns), generator=draw)
            self._live |= {name + A: Parameter(a), name + B: Parameter(torch.zeros(CLASSES, 2))}
        self._start = {name: p.detach().clone() for name, p in self._live.items()}

    def initial(self) -> Mapping[str, Tensor]:
        return self._start

    def forward(self, batch: Batch) -> Tensor:
        logits = torch.zeros(len(batch.x), CLASSES)
        for name, (columns, strength) in self.reads.items():
            product = batch.x[:, columns] @ self._live[name + A].T @ self._live[name + B].T
            logits = logits + strength * product
        return logits


@dataclass(frozen=True)
class PlantedToy(Toy):
    """Makes `Planted` learners; reads: by matrix, its features, and what its product is times."""

    reads: Mapping[str, tuple[Sequence[int], float]] = ()  # type: ignore[assignment]

    def __call__(self, context: RoundContext, optimizer_state: dict[str, Tensor]) -> Planted:
        return Planted(self, context, optimizer_state)


def noisy(seed: int, number: int) -> tuple[Point, ...]:
    """Points whose first four features tell the class, and whose others tell nothing."""
    draw = torch.Generator().manual_seed(seed)
    return tuple(
        Point((*point.x, *torch.randn(NOISE, generator=draw).tolist()), point.y)
        for point in points(seed, number)
    )


def scored(
    reads: Mapping[str, Any], rows: Mapping[str, Sequence[Point]], folder: Path, rounds: int = 1
) -> Outcome:
    """A probe by silos with these rows."""
    toys = {name: PlantedToy({"train": own}, TRAINING, reads=reads) for name, own in rows.items()}
    server = PlantedToy({"train": noisy(9, 8), "test": noisy(8, 8)}, TRAINING, reads=reads)
    return federate(FedPipe(probe=True), toys, folder, server, rounds=rounds)


def test_the_one_matrix_that_can_reduce_the_loss_ranks_first(tmp_path: Path) -> None:
    blocks = [range(4 + 4 * i, 8 + 4 * i) for i in range(NOISE // 4)]
    reads = {f"m{i}": (block, 1.0) for i, block in enumerate(blocks)}
    for place in ("m0", "m3", "m5"):
        planted = {**reads, place: (range(4), 1.0)}
        rows = {"c0": noisy(1, 60), "c1": noisy(2, 40)}
        state = scored(planted, rows, tmp_path / place).server_state.algorithm_state
        found = dict(zip(matrices(state["model"]), state[SCORES][SCORES].tolist(), strict=True))
        others = [score for name, score in found.items() if name != place]
        assert found[place] > 1.5 * max(others) > 0


def test_scores_of_two_halves_of_a_silos_rows_agree(
    tmp_path: Path, record_property: Callable[[str, object], None]
) -> None:
    reads = {f"m{i}": (range(4), strength) for i, strength in enumerate(STRENGTHS)}
    rows, halves = noisy(3, 120), []
    for part in (0, 1):
        outcome = scored(reads, {"c0": rows[part::2]}, tmp_path / str(part))
        halves.append(outcome.server_state.algorithm_state[SCORES][SCORES])
    agreement = float(spearmanr(*halves).statistic)
    record_property("rank correlation of the halves' scores", agreement)
    assert agreement >= 0.9


def test_the_server_has_the_mean_by_examples_and_one_number_of_each_matrix_travels(
    tmp_path: Path,
) -> None:
    reads = {f"m{i}": (range(4), strength) for i, strength in enumerate(STRENGTHS)}
    rows = {"c0": noisy(1, 60), "c1": noisy(2, 20)}
    alone = [
        scored(reads, {name: own}, tmp_path / name).server_state.algorithm_state
        for name, own in rows.items()
    ]
    both = scored(reads, rows, tmp_path / "both").server_state.algorithm_state
    held, start = both["model"], alone[0]["model"]
    assert all(torch.equal(held[name], tensor) for name, tensor in start.items())  # none trained
    wanted = 0.75 * alone[0][SCORES][SCORES] + 0.25 * alone[1][SCORES][SCORES]
    torch.testing.assert_close(both[SCORES][SCORES], wanted)
    assert both[SCORES][SCORES].shape == (len(STRENGTHS),)


def test_scores_of_unlike_matrices_are_averaged_by_their_names(tmp_path: Path) -> None:
    every = {f"m{i}": (range(4), strength) for i, strength in enumerate(STRENGTHS)}
    rows = {"c0": noisy(1, 60), "c1": noisy(2, 20)}
    parts = {"c0": ("m1", "m0"), "c1": ("m1", "m2", "m4")}
    toys = {
        name: PlantedToy({"train": own}, TRAINING, reads={m: every[m] for m in parts[name]})
        for name, own in rows.items()
    }
    server = PlantedToy({"train": noisy(9, 8), "test": noisy(8, 8)}, TRAINING, reads=every)
    alone, (both,) = (
        [
            federate(FedPipe(probe=True), own, tmp_path / "-".join(own), server, rounds=2)
            .server_state.algorithm_state[SCORES][SCORES]
            .tolist()
            for own in federations
        ]
        for federations in ([{name: toy} for name, toy in toys.items()], [toys])
    )
    first, second = alone
    assert both[1] == pytest.approx(0.75 * first[1] + 0.25 * second[1]) != first[1]
    assert both == pytest.approx([first[0], both[1], second[2], 0.0, second[4]])
    assert first[0] > 0 and second[2] > 0 and second[4] > 0


def test_smoothing_is_that_of_a_loop_over_all_numbers() -> None:
    draw = torch.Generator().manual_seed(0)
    shapes = {"x" + A: (2, 3), "x" + B: (4, 2)}
    live = {name: Parameter(torch.randn(s, generator=draw)) for name, s in shapes.items()}
    importance, seen = Importance(0.8, 0.6), []
    for _ in range(7):
        for parameter in live.values():
            parameter.data += torch.randn(parameter.shape, generator=draw)
            parameter.grad = torch.randn(parameter.shape, generator=draw)
        seen.append(
            {n: (p.detach().clone(), p.grad.clone()) for n, p in live.items() if p.grad is not None}
        )
        assert not importance.note(live).detach().any()
    wanted = 0.0
    for name, shape in shapes.items():
        total = 0.0
        for i in range(shape[0]):
            for j in range(shape[1]):
                smooth = unsure = 0.0
                for step in seen:
                    now = abs(float(step[name][0][i, j] * step[name][1][i, j]))
                    smooth = 0.8 * smooth + 0.2 * now
                    unsure = 0.6 * unsure + 0.4 * abs(now - smooth)
                total += smooth * unsure
        wanted += total / (shape[0] * shape[1])
    assert float(importance.scores()) == pytest.approx(wanted, rel=1e-5)


def test_steps_without_an_effect_of_the_adapter_do_not_count() -> None:
    live = {"x" + A: Parameter(torch.ones(2, 3)), "x" + B: Parameter(torch.zeros(4, 2))}
    for parameter in live.values():
        parameter.grad = torch.ones_like(parameter)
    importance = Importance()
    importance.note(live)
    assert float(importance.scores()) == 0.0
    live["x" + B].data.fill_(1.0)
    importance.note(live)
    assert float(importance.scores()) == pytest.approx(2 * 0.15 * 0.85 * 0.15)


# ---- rounds

RANKS, SCALES = {"c0": 1, "c1": 2, "c2": 4}, {"c0": 2.0, "c1": 0.5, "c2": 1.0}


def test_equal_layouts_are_flexlora(tmp_path: Path) -> None:
    toys, server = silos(3, TRAINING, rank=2), held_out(TRAINING, rank=2)
    own, other = (
        federate(algorithm, toys, tmp_path / type(algorithm).__name__, server).server_state
        for algorithm in (FedPipe(), FlexLoRA())
    )
    for name, tensor in own.algorithm_state["model"].items():
        assert torch.equal(tensor, other.algorithm_state["model"][name])


def mixed(folder: Path, **settings: Any) -> tuple[Outcome, Meddler]:
    """Clients of unequal ranks and scalings, and what passed through the network."""
    taps: list[Meddler] = []

    def tapped(inner: Any) -> Meddler:
        taps.append(Meddler(inner))
        return taps[0]

    toys = {
        name: replace(toy, rank=RANKS[name], scale=SCALES[name])
        for name, toy in silos(3, TRAINING).items()
    }
    numbers = {name: {"rank": float(RANKS[name]), "scaling": SCALES[name]} for name in RANKS}
    server = held_out(TRAINING, rank=4)
    return federate(
        FedPipe(), toys, folder, server, numbers=numbers, network=tapped, **settings
    ), taps[0]


def test_the_mean_of_unequal_ranks_is_that_of_the_products(tmp_path: Path) -> None:
    outcome, tap = mixed(tmp_path / "run", rounds=2)
    replies = [r for r in map(Reply.parse, tap.replies) if (r.kind, r.round) == ("train", 2)]
    assert {r.client: len(r.update.tensors[LAYER + A]) for r in replies} == RANKS
    total = sum(reply.update.weight for reply in replies)
    wanted = torch.zeros(CLASSES, 4, dtype=torch.float64)
    for reply in replies:
        factors = layers(reply.update.tensors)[LAYER]
        product = factors.up.double() @ factors.down.double()
        wanted += reply.update.weight / total * SCALES[reply.client] * product
    model = layers(outcome.server_state.algorithm_state["model"])[LAYER]
    assert (model.up.double() @ model.down.double() - wanted).abs().max() < 1e-5


def test_it_resumes_with_unequal_ranks(tmp_path: Path) -> None:
    mixed(tmp_path / "stopped", stop_after=1)
    gone_on = mixed(tmp_path / "stopped")[0].server_state
    assert same(gone_on, mixed(tmp_path / "whole")[0].server_state)


def slow(reply: Reply) -> Reply:
    """A training reply that says a second for each step, three at c1, and none at c2."""
    numbers = dict(reply.update.numbers)
    if reply.kind == "train":
        numbers["seconds"] = numbers["steps"] * {"c0": 1.0, "c1": 3.0, "c2": 0.0}[reply.client]
    return replace(reply, update=replace(reply.update, numbers=numbers))


def test_a_client_that_is_slower_than_planned_is_asked_for_fewer_steps_after_a_stop_too(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    expected = {f"c{n}": 2.0 + n for n in range(3)}  # as many seconds as steps; c9 is not asked
    planned = FedPipe(expected_seconds={**expected, "c9": 1.0})
    toys, server = silos(3, TRAINING, rank=2), held_out(TRAINING, rank=2)
    taps: list[Meddler] = []

    def tapped(inner: Any) -> Meddler:
        taps.append(Meddler(inner, changed=slow))
        return taps[-1]

    def shares() -> dict[tuple[int, str], float]:
        """The share of steps that each client was asked for, if not for all, by round."""
        pairs = zip(map(Request.parse, taps[-1].requests), taps[-1].replies, strict=True)
        return {
            (request.round, Reply.parse(reply).client): share
            for request, reply in pairs
            if request.kind == "train"
            and (share := request.instruction.numbers.get(SHARE)) is not None
        }

    whole = federate(planned, toys, tmp_path / "whole", server, rounds=3, network=tapped)
    # The toy makes all its steps, and says so: 9 s are what is expected of them by now.
    assert shares() == {(round, "c1"): pytest.approx(4 / 9) for round in (2, 3)}
    assert "after round 1, all steps of c1 take 9 s, not 3 s; it is asked for 44.4 %" in caplog.text
    assert caplog.text.count("reported no seconds in round") == 1
    assert " c2 reported no seconds in round 1" in caplog.text
    assert caplog.text.count("of its steps from now on") == 1
    federate(planned, toys, tmp_path / "stopped", server, rounds=3, stop_after=1, network=tapped)
    gone_on = federate(planned, toys, tmp_path / "stopped", server, rounds=3, network=tapped)
    assert shares() == {(round, "c1"): pytest.approx(4 / 9) for round in (2, 3)}
    assert same(gone_on.server_state, whole.server_state)


def test_a_probe_with_expected_seconds_is_refused() -> None:
    with pytest.raises(ValueError, match="a probe follows no plan"):
        FedPipe(probe=True, expected_seconds={"c0": 1.0})


def test_a_matrix_is_averaged_over_those_who_train_it_and_stays_where_nobody_does(
    tmp_path: Path,
) -> None:
    every = {f"m{i}": (range(4), 1.0) for i in range(3)}
    parts = {"c0": ("m0", "m1"), "c1": ("m1",)}
    taps: list[Meddler] = []

    def tapped(inner: Any) -> Meddler:
        taps.append(Meddler(inner))
        return taps[0]

    toys = {
        name: PlantedToy(
            {"train": noisy(i, 20 + 20 * i)}, TRAINING, reads={m: every[m] for m in names}
        )
        for i, (name, names) in enumerate(parts.items())
    }
    server = PlantedToy({"train": noisy(9, 8), "test": noisy(8, 8)}, TRAINING, reads=every)
    outcome = federate(FedPipe(), toys, tmp_path / "run", server, rounds=2, network=tapped)
    replies = [r for r in map(Reply.parse, taps[0].replies) if (r.kind, r.round) == ("train", 2)]
    sent = {reply.client: (reply.update.weight, layers(reply.update.tensors)) for reply in replies}
    assert {name: tuple(own) for name, (_, own) in sent.items()} == parts
    requests = [Request.parse(m) for m in taps[0].requests]
    asked = [r.instruction.tensors for r in requests if (r.kind, r.round) == ("train", 2)]
    assert [tuple(layers(tensors)) for tensors in asked] == [*parts.values()]
    model = layers(outcome.server_state.algorithm_state["model"])
    (first, both), (second, other) = sent["c0"], sent["c1"]
    torch.testing.assert_close(model["m0"].product(), both["m0"].product(), atol=1e-6, rtol=0)
    mean = (first * both["m1"].product() + second * other["m1"].product()) / (first + second)
    torch.testing.assert_close(model["m1"].product(), mean, atol=1e-6, rtol=0)
    assert not model["m2"].up.any() and model["m2"].down.any()


def test_a_codec_that_would_change_scores_is_refused() -> None:
    coded = Pipelines(Pipeline("upload", (Int8(),)))
    with pytest.raises(UserError, match="FedPipe with probe sends a few scores, which Int8 would"):
        Method(FedPipe(probe=True), Mean(), coded)
    Method(FedPipe(), Mean(), coded)
    Method(FedPipe(probe=True), Mean(), Pipelines(Pipeline("upload", (Zstd(),))))


@pytest.mark.parametrize(("large", "numbers"), [(True, 1000), (True, 10), (False, 1000)])
def test_messages_that_time_links_have_one_norm_whoever_sends_them(
    large: bool, numbers: int
) -> None:
    contexts = [RoundContext(0, 2, client) for client in ("c0", "c1")]
    drawn = [sample(large, numbers, context)[SAMPLE] for context in contexts]
    torch.testing.assert_close(torch.stack([d.norm() for d in drawn]), torch.ones(2))


def test_rounds_after_the_first_of_a_probe_time_links_and_change_nothing(tmp_path: Path) -> None:
    reads = {f"m{i}": (range(4), strength) for i, strength in enumerate(STRENGTHS)}
    rows = {"c0": noisy(1, 60), "c1": noisy(2, 20)}
    once = scored(reads, rows, tmp_path / "once").server_state
    timed = scored(reads, rows, tmp_path / "timed", rounds=5).server_state
    assert same(once, timed)
    state = timed.algorithm_state
    trained = [r for r in read_ledger(tmp_path / "timed") if r.kind == "train"]
    numbers = sum(t.numel() for f in layers(state["model"]).values() for t in (f.up, f.down))
    empty = {r.client: r for r in trained if r.round == 4}
    for record in (r for r in trained if r.round > 1):
        kind, least = link_round(record.round), empty[record.client]
        extra = record.down - least.down, record.up - least.up
        assert kind is not None
        wanted = [4 * (numbers - 1) * large for large in (kind.down, kind.up)]
        assert extra == pytest.approx(wanted, abs=16)  # and what their headers differ by
