"""FedMD: the order of a round, the mean in closed form, bytes by the formula, and refusals."""

import struct
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from hanse.errors import UserError
from hanse.experiment.loading import load
from hanse.federation.algorithms.feddistill import FedDistill
from hanse.federation.interfaces.algorithm import Client, Server
from hanse.federation.interfaces.results import State, TrainResult
from hanse.federation.messages import ClientProfile, Instruction, Reply, Update
from hanse.randomness import RoundContext
from hanse.tensors import top_k
from hanse.tensors.named import layout_bytes
from toy_learners import CLASSES, Toy, ToyLearner, points
from toys import held_out, silos

PROFILE, CONTEXT = ClientProfile("c0", 8), RoundContext(0, 1, "c0")
ROWS = 30
REPORTED = 8  # bytes of each plain number of a message


class Recorded(ToyLearner):
    """Notes what it was trained on."""

    fits: list[str]

    def fit(self, *args: Any, **settings: Any) -> TrainResult:
        objective, split = settings.get("objective"), settings.get("split", "train")
        self.fits.append(f"{type(objective).__name__} {split}" if objective else split)
        return super().fit(*args, **settings)


def recorded(toy: Toy, fits: list[str]) -> Recorded:
    learner = Recorded(toy, CONTEXT, {})
    learner.fits = fits
    return learner


def begun(algorithm: FedDistill) -> State:
    return algorithm.init(Server(held_out()(RoundContext(0), {}), 3, RoundContext(0)))


def trained(algorithm: FedDistill, toy: Toy, state: State, memory: dict[str, Tensor]) -> Update:
    instruction = algorithm.instruction(state, PROFILE, CONTEXT)
    return algorithm.train(instruction, Client(PROFILE, toy(CONTEXT, {}), memory, {}, CONTEXT))


def test_a_client_digests_the_mean_and_then_revisits_its_own_rows() -> None:
    algorithm, toy = FedDistill(public_first=True), silos(1)["c0"]
    state, memory, fits = begun(algorithm), dict[str, Tensor](), list[str]()
    learned = {"logits": trained(algorithm, toy, state, {}).tensors}
    for known in (state, {**state, **learned}):
        instruction = algorithm.instruction(known, PROFILE, CONTEXT)
        client = Client(PROFILE, recorded(toy, fits), memory, {}, CONTEXT)
        algorithm.train(instruction, client)
    assert fits == ["public", "train", "Imitation public", "train"]
    fits.clear()
    algorithm.init(Server(recorded(held_out(), fits), 3, RoundContext(0)))
    replace(algorithm, public_first=False).init(
        Server(recorded(held_out(), fits), 3, RoundContext(0))
    )
    assert fits == ["public"]


def test_the_mean_of_all_classes_is_that_of_the_distributions() -> None:
    """Every client counts the same, whatever its number of examples."""
    algorithm = FedDistill(temperature=2.0)
    state, updates, expected = begun(algorithm), [], torch.zeros(ROWS, CLASSES)
    for number, toy in enumerate(silos(3).values()):
        memory: dict[str, Tensor] = {}
        update = trained(algorithm, toy, state, memory)
        updates.append((ClientProfile(f"c{number}", 10**number), update))
        learner = toy(CONTEXT, {})
        learner.load(memory)
        with torch.no_grad():
            logits = learner.forward(learner.batch(learner.examples("public")))
        expected += (logits / 2.0).softmax(dim=1) / 3
    mean = algorithm.combine(updates).tensors
    torch.testing.assert_close(top_k.dense(mean, CLASSES).exp(), expected, atol=1e-5, rtol=1e-5)
    assert expected.std() > 0.05


@pytest.mark.parametrize(("dtype", "e"), [("float32", 4), ("float16", 2)])
@pytest.mark.parametrize("k", [1, 2])
def test_a_message_has_the_bytes_of_the_formula_and_its_frame(k: int, dtype: Any, e: int) -> None:
    algorithm = FedDistill(k=k, dtype=dtype)
    state = begun(algorithm)
    update = trained(algorithm, silos(1)["c0"], state, {})
    formula = ROWS * (k * (e + 4) + e)
    assert layout_bytes(algorithm.update_layout(state, PROFILE, CONTEXT)) == formula
    message = Reply("c0", "train", 1, update).pack()
    frame = 8 + struct.unpack("<Q", message[:8])[0]
    plain = REPORTED * (len(update.numbers) + 3)  # with round, weight and keeps_memory
    assert len(message) == frame + plain + formula
    down = algorithm.instruction({**state, "logits": update.tensors}, PROFILE, CONTEXT).tensors
    assert sum(tensor.nbytes for tensor in down.values()) == formula


def test_all_classes_need_no_rest() -> None:
    algorithm = FedDistill()
    update = trained(algorithm, silos(1)["c0"], begun(algorithm), {})
    assert {n: tuple(t.shape) for n, t in update.tensors.items()} == {
        "values": (ROWS, CLASSES),
        "indices": (ROWS, CLASSES),
    }


def test_numbers_of_two_bytes_teach_almost_the_same() -> None:
    ends = []
    for dtype in ("float32", "float16"):
        algorithm = FedDistill(k=2, dtype=dtype)
        state = begun(algorithm)
        updates = [(PROFILE, trained(algorithm, toy, state, {})) for toy in silos(2).values()]
        learner = held_out()(RoundContext(0, 1), {})
        server = Server(learner, 2, RoundContext(0, 1))
        ends.append(algorithm.step(state, algorithm.combine(updates), server)["model"])
    for name, tensor in ends[0].items():
        torch.testing.assert_close(tensor, ends[1][name], atol=1e-3, rtol=0)
        assert not torch.equal(tensor, held_out()(CONTEXT, {}).initial()[name])


def test_more_classes_than_there_are_cannot_be_kept() -> None:
    with pytest.raises(UserError, match=r"k is 4, .* has 3 classes; set .* to 3 at most"):
        begun(FedDistill(k=CLASSES + 1))


def test_other_public_rows_or_label_words_are_refused_before_a_client_trains() -> None:
    algorithm, toy = FedDistill(), silos(1)["c0"]
    instruction = algorithm.instruction(begun(algorithm), PROFILE, CONTEXT)
    fewer = replace(toy, splits={**toy.splits, "public": points(1000, 29)})
    fits: list[str] = []
    for learner, numbers, sentence in [
        (recorded(fewer, fits), {}, "29 labelled rows of 3 .* server 30 labelled rows of 3"),
        (recorded(toy, fits), {"classes": 2.0}, "rows of 3 classes, .* of 2 classes; bring"),
        (
            recorded(toy, fits),
            {"labels": 255.0},
            "server 30 labelled rows with the hash 0000000000ff",
        ),
    ]:
        sent = Instruction({}, {**instruction.numbers, **numbers})
        with pytest.raises(UserError, match=f"the public data of c0 have .*{sentence}"):
            algorithm.train(sent, Client(PROFILE, learner, {}, {}, CONTEXT))
    assert fits == []


def test_a_client_checks_what_the_server_sends() -> None:
    algorithm, toy = FedDistill(k=1), silos(1)["c0"]
    state = begun(algorithm)
    known = trained(algorithm, toy, state, {}).tensors
    for part, sentence in [
        ({name: part[1:] for name, part in known.items()}, "logits of 29 rows, but 30 public"),
        ({**known, "rest": torch.full((ROWS,), torch.nan)}, "values that are not finite"),
    ]:
        with pytest.raises(UserError, match=f"the server's predictions .*: .*{sentence}"):
            trained(algorithm, toy, {**state, "logits": part}, {})


def test_the_settings_without_public_rows_are_refused(experiment_file: Path) -> None:
    with pytest.raises(UserError, match=r"feddistill needs public rows .*; write a file"):
        load(experiment_file, ["algorithm=feddistill"])
