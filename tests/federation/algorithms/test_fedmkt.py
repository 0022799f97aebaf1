"""FedMKT: who teaches whom, the bytes of a message, and refusals."""

import struct
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from hanse.errors import UserError
from hanse.federation.algorithms.fedmkt import TOKENS, FedMKT
from hanse.federation.exchange.screening import NormBound
from hanse.federation.interfaces.algorithm import Client, Server
from hanse.federation.interfaces.results import State, TrainResult
from hanse.federation.interfaces.token_alignment import Correspondence
from hanse.federation.messages import ClientProfile, Instruction, Reply, Update
from hanse.learners.training.settings import TrainingSettings
from hanse.randomness import RoundContext
from hanse.tensors import top_k
from hanse.tensors.named import Tensors, layout_bytes
from hanse.tensors.serialization import MessageError
from toy_learners import CLASSES, Toy, ToyLearner
from toys import held_out, silos

PROFILE, CONTEXT = ClientProfile("c0", 8), RoundContext(0, 1, "c0")
LABELS = 30
TRAINING = TrainingSettings(learning_rate=0.1, per_device_train_batch_size=8, max_steps=40)


class Recorded(ToyLearner):
    """Notes what it was trained on, and how many public rows it learned from others."""

    fits: list[str]

    def fit(self, *args: Any, **settings: Any) -> TrainResult:
        objective, split = settings.get("objective"), settings.get("split", "train")
        taken = int(objective.knowledge.taken.sum()) if objective else 0
        self.fits.append(f"{split} {taken}" if objective else split)
        return super().fit(*args, **settings)


def recorded(toy: Toy, fits: list[str]) -> Recorded:
    learner = Recorded(toy, CONTEXT, {})
    learner.fits = fits
    return learner


class Small(Recorded):
    """A model with fewer tokens than the server's, which has five."""

    def correspondences(self, split: str, other: Tensors) -> tuple[Correspondence, Correspondence]:
        labels, known = other["labels"], torch.arange(CLASSES)
        up = Correspondence(torch.arange(LABELS), known, labels, CLASSES + 2)
        return up, Correspondence(torch.arange(LABELS), known, labels, CLASSES)


class Setting:
    """A server that has prepared its file, and the requests of one round."""

    def __init__(self, algorithm: FedMKT, folder: Path, server: Toy | None = None) -> None:
        self.algorithm, self.fits = algorithm, list[str]()
        learner = recorded(server or held_out(), self.fits)
        self.server = Server(learner, 2, RoundContext(0, 1))
        self.server.files = algorithm.prepare(self.server, folder)
        self.state: State = algorithm.init(self.server)

    def update(self, toy: Toy, memory: dict[str, Tensor], fits: list[str] | None = None) -> Update:
        instruction = self.algorithm.instruction(self.state, PROFILE, CONTEXT)
        learner = recorded(toy, [] if fits is None else fits)
        client = Client(PROFILE, learner, memory, {}, CONTEXT, files=self.server.files)
        return self.algorithm.train(instruction, client)

    def step(self, *updates: Update) -> None:
        pairs = [(ClientProfile(f"c{n}", 8), update) for n, update in enumerate(updates)]
        combined = self.algorithm.combine(pairs)
        self.state = self.algorithm.step(self.state, combined, self.server)


def loss(toy: Toy, tensors: Any) -> float:
    learner = toy(CONTEXT, {})
    learner.load(tensors)
    batch = learner.batch(learner.examples("public"))
    return float(torch.nn.functional.cross_entropy(learner.forward(batch), batch.targets).detach())


def perfect(update: Update, wrong_by: int = 0) -> Update:
    """An update of a teacher that knows all labels, or is sure of the classes beside them."""
    labels = torch.tensor([point.y for point in held_out().splits["public"]])
    values = torch.full((LABELS, 1), -0.01)
    rest = torch.expm1(values[:, 0].neg()).log() - 0.01
    indices = ((labels + wrong_by) % CLASSES)[:, None].int()
    return replace(update, tensors={"values": values, "indices": indices, "rest": rest})


def test_the_server_learns_from_a_perfect_teacher_and_not_from_a_bad_one(tmp_path: Path) -> None:
    algorithm = FedMKT(k=1, label_weight=0.0)
    own = Setting(algorithm, tmp_path, held_out(TRAINING))
    start = dict(own.state["model"])
    update = own.update(silos(1)["c0"], {})
    bad = perfect(update, wrong_by=1)
    own.step(bad)
    assert own.fits == ["public 0"]
    assert all(torch.equal(t, start[name]) for name, t in own.state["model"].items())
    own.step(bad, perfect(update))
    assert own.fits[1:] == [f"public {LABELS}"]
    assert loss(held_out(), own.state["model"]) < 0.5 * loss(held_out(), start)


def test_a_client_takes_rows_that_the_server_predicts_better(tmp_path: Path) -> None:
    own, toy, memory = Setting(FedMKT(k=1), tmp_path), silos(1)["c0"], dict[str, Tensor]()
    fits: list[str] = []
    update = own.update(toy, memory, fits)
    for wrong_by, taken in ((0, LABELS), (1, 0)):
        known = perfect(update, wrong_by).tensors
        own.state = {**own.state, "knowledge": known}
        own.update(toy, dict(memory), fits)
        assert fits[-2:] == [f"public {taken}", "train"]
    assert fits[0] == "train" and len(fits) == 5


@pytest.mark.parametrize(("dtype", "e"), [("float32", 4), ("float16", 2)])
@pytest.mark.parametrize("k", [1, 2])
def test_a_message_has_the_bytes_of_the_formula(k: int, dtype: Any, e: int, tmp_path: Path) -> None:
    own = Setting(FedMKT(k=k, dtype=dtype), tmp_path)
    update = own.update(silos(1)["c0"], {})
    formula = LABELS * (k * (e + 4) + e)  # one label in each public row
    assert layout_bytes(own.algorithm.update_layout(own.state, PROFILE, CONTEXT)) == formula
    message = Reply("c0", "train", 1, update).pack()
    frame = 8 + struct.unpack("<Q", message[:8])[0]
    assert len(message) == frame + 8 * (len(update.numbers) + 3) + formula
    own.step(update)
    down = own.algorithm.instruction(own.state, PROFILE, CONTEXT).tensors
    assert sum(tensor.nbytes for tensor in down.values()) == formula


def test_classes_without_a_logit_are_no_reason_to_refuse_an_update(tmp_path: Path) -> None:
    """Whatever its logits, a row is a distribution."""
    own = Setting(FedMKT(k=2, dtype="float16"), tmp_path)
    updates = [own.update(toy, {}) for toy in silos(3).values()]
    values = updates[0].tensors["values"].clone()
    values[:, 1] = torch.finfo(torch.float16).min
    updates[0] = replace(updates[0], tensors={**updates[0].tensors, "values": values})
    pairs = [(ClientProfile(f"c{n}", 8), update) for n, update in enumerate(updates)]
    reasons = list[str]()
    bound = NormBound(50.0, own.algorithm)
    left = [*bound.screen(pairs, lambda name, reason: reasons.append(f"{name}: {reason}"))]
    assert len(left) == 3 and not reasons


def test_bad_messages_and_settings_are_refused(tmp_path: Path) -> None:
    own = Setting(FedMKT(k=1), tmp_path)
    update = own.update(silos(1)["c0"], {})
    own.algorithm.validate(update, own.state, PROFILE)
    huge = {**update.tensors, "rest": torch.full((LABELS,), 3e38)}
    with pytest.raises(MessageError, match="logits have values beyond 65,504"):
        own.algorithm.validate(replace(update, tensors=huge), own.state, PROFILE)
    unsure = {**update.tensors, "values": update.tensors["values"] + 30}
    with pytest.raises(MessageError, match="logits are above those of any probability"):
        own.algorithm.validate(replace(update, tensors=unsure), own.state, PROFILE)
    with pytest.raises(UserError, match=r"k is 4, .* has 3 tokens; set .* to 3 at most"):
        FedMKT(k=CLASSES + 1).init(own.server)
    own.server.files[TOKENS].write_bytes(b"nothing")
    with pytest.raises(UserError, match=r"the server's tokens cannot be read: .*; it must"):
        own.update(silos(1)["c0"], {})


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"values": torch.full((LABELS, 1), torch.nan)}, "logits have values that are not finite"),
        ({"rest": torch.full((LABELS,), 1e6)}, "logits have values beyond 65,504"),
        ({"indices": torch.full((LABELS, 1), CLASSES, dtype=torch.int32)}, "classes other than 0"),
        ({n: torch.ones(9, 1) for n in ("values",)}, "in equal shapes"),
        ({}, "there are logits of 29 rows, but 30 public ones"),
    ],
)
def test_a_client_checks_what_the_server_sends(
    change: dict[str, Tensor], sentence: str, tmp_path: Path
) -> None:
    own, fits = Setting(FedMKT(k=1), tmp_path), list[str]()
    known = perfect(own.update(silos(1)["c0"], {})).tensors
    short = {name: part[1:] for name, part in known.items()}
    own.state = {**own.state, "knowledge": {**known, **change} if change else short}
    with pytest.raises(UserError, match=f"server's predictions cannot be used: .*{sentence}"):
        own.update(silos(1)["c0"], {}, fits)
    assert fits == []


def test_a_silo_with_fewer_tokens_fills_its_predictions_up(tmp_path: Path) -> None:
    """Without `k`, which nobody has set too high."""
    own, fits = Setting(FedMKT(), tmp_path), list[str]()
    learner = Small(silos(1)["c0"], CONTEXT, {})
    learner.fits = fits
    client = Client(PROFILE, learner, {}, {}, CONTEXT, files=own.server.files)
    known = top_k.top_k(torch.randn(LABELS, CLASSES + 2), CLASSES + 2)
    update = own.algorithm.train(Instruction(known), client)
    top_k.check(update.tensors, CLASSES + 2)
    assert update.tensors["values"].shape == (LABELS, CLASSES + 2)
    assert fits[0].startswith("public ") and fits[1:] == ["train"]


def test_a_silo_with_fewer_tokens_than_k_is_refused_before_tokens_are_aligned(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delattr(ToyLearner, "correspondences")
    client = Client(PROFILE, silos(1)["c0"](CONTEXT, {}), {}, {}, CONTEXT)
    with pytest.raises(UserError, match=r"k is 4, but the model of c0 has 3 tokens; set"):
        FedMKT(k=CLASSES + 1).train(Instruction({}), client)
