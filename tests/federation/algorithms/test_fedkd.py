"""FedKD against its formulas, written out by hand; and what it sends, and what it keeps."""

import hashlib
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import torch
from torch import Tensor

from hanse.evaluation.perplexity import Perplexity
from hanse.federation.algorithms.fedavg import FedAvg
from hanse.federation.algorithms.fedkd import FedKD
from hanse.federation.compression.svd import SVD
from hanse.federation.interfaces.algorithm import Algorithm, Client
from hanse.federation.messages import ClientProfile, Instruction, Update
from hanse.learners.training.settings import TrainingSettings
from hanse.randomness import RoundContext
from hanse.tensors.named import strip_prefix
from hanse.tensors.serialization import unpack
from toy_learners import Toy, ToyLearner, points
from toys import Meddler, Outcome, federate, silos

WIDTH, POINTS, RATE = 5, 8, 0.5
CONTEXT = RoundContext(3, 1, "c0")
# One step of plain SGD on all points, so that a gradient is a change divided by −RATE.
STEP = TrainingSettings(
    learning_rate=RATE,
    optim="sgd",
    max_grad_norm=0,
    max_steps=1,
    per_device_train_batch_size=POINTS,
)
LOSSES = [(False, False), (True, False), (False, True), (True, True)]
Values = Mapping[str, Tensor]


def toy(mentor: int = WIDTH, own: int = 0) -> Toy:
    return Toy({"train": points(0, POINTS)}, STEP, hidden=own, models={"mentor": mentor})


def trained(algorithm: FedKD, settings: Toy, start: Values) -> tuple[Client, Update]:
    """A client after its first round, and its update."""
    client = Client(ClientProfile("c0", POINTS), settings(CONTEXT, {}), {}, {}, CONTEXT)
    return client, algorithm.train(Instruction(start), client)


def begun(settings: Toy) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """Tensors of mentee and mentor before the step, in float64; none of them is zero."""
    learner = settings(CONTEXT, {})
    draw = torch.Generator().manual_seed(5)
    own = {n: torch.randn(t.shape, generator=draw) for n, t in learner.initial().items()}
    return doubled(own), doubled(learner.models["mentor"].initial())


def doubled(tensors: Values) -> dict[str, Tensor]:
    return {name: t.double().requires_grad_() for name, t in tensors.items()}


def single(tensors: Values) -> dict[str, Tensor]:
    return {name: t.detach().float() for name, t in tensors.items()}


def states(x: Tensor, own: Values) -> Tensor:
    return torch.tanh(x @ own["inner"].T + own["inner bias"]) if "inner" in own else x


def by_hand(
    student: Values, mentor: Values, losses: tuple[bool, bool], w: Tensor, z: float | None = None
) -> tuple[Tensor, Tensor, float]:
    """Lₜ, Lₛ and Z of one batch; z: instead of CEₜ + CEₛ, as if it were a constant."""
    batch = points(0, POINTS)
    x = torch.tensor([point.x for point in batch], dtype=torch.float64)
    y = torch.tensor([point.y for point in batch])
    logs = [
        (states(x, own) @ own["weight"].T + own["bias"]).log_softmax(1) for own in (mentor, student)
    ]
    ce = [-log[torch.arange(POINTS), y].mean() for log in logs]
    z = float(sum(ce).detach()) if z is None else z
    (t, s), p = logs, [log.detach().exp() for log in logs]
    pulls = [(p[1] * (p[1].log() - t)).sum(1).mean(), (p[0] * (p[0].log() - s)).sum(1).mean()]
    h = (states(x, mentor) - states(x, student) @ w.T).square().mean()
    kl, hidden = losses
    terms = [kl * pulled + hidden * h for pulled in pulls]
    return ce[0] + terms[0] / z, ce[1] + terms[1] / z, z


def projection() -> Tensor:
    """W before any training, as drawn."""
    drawn = torch.randn(WIDTH, 4, generator=CONTEXT.generator("projection")) / 2
    return drawn.double().requires_grad_()


def close(value: Tensor, expected: Tensor) -> None:
    torch.testing.assert_close(value.double(), expected, atol=1e-6, rtol=1e-5)


@pytest.mark.parametrize("losses", LOSSES)
def test_a_step_follows_each_models_own_loss(losses: tuple[bool, bool]) -> None:
    student, mentor = begun(toy())
    client, update = trained(FedKD(*losses), toy(), single(student))
    w = projection()
    loss_t, loss_s, _ = by_hand(student, mentor, losses, w)
    slopes = torch.autograd.grad(loss_t, [*mentor.values()], retain_graph=True)
    ends = strip_prefix(client.memory, "mentor.")
    assert ends.keys() == mentor.keys()
    for (name, start), slope in zip(mentor.items(), slopes, strict=True):
        close(ends[name], start.detach() - RATE * slope)
    slopes = torch.autograd.grad(loss_s, [*student.values()], retain_graph=True)
    for name, slope in zip(student, slopes, strict=True):
        close(update.tensors[name], -RATE * slope)
    assert ("projection" in client.memory) == losses[1]
    if losses[1]:
        [slope] = torch.autograd.grad(loss_s, [w])
        close(client.memory["projection"], w.detach() - RATE * slope)
        assert float(slope.abs().max()) > 1e-3


def test_equal_widths_need_no_projection() -> None:
    settings = toy(own=WIDTH)
    student, mentor = begun(settings)
    client, update = trained(FedKD(hidden_states=True), settings, single(student))
    assert "projection" not in client.memory
    identity = torch.eye(WIDTH, dtype=torch.float64)
    _, loss_s, _ = by_hand(student, mentor, (True, True), identity)
    slopes = torch.autograd.grad(loss_s, [*student.values()])
    for name, slope in zip(student, slopes, strict=True):
        close(update.tensors[name], -RATE * slope)


def test_the_gradient_is_that_of_finite_differences_with_a_constant_z() -> None:
    student, mentor = begun(toy())
    client, update = trained(FedKD(), toy(), single(student))
    w = projection().detach()
    *_, z = by_hand(student, mentor, (True, False), w)
    ends = strip_prefix(client.memory, "mentor.")["weight"] - mentor["weight"].detach()
    lost = {"kl": 0.0, "z": 0.0}
    for which, change in enumerate((ends, update.tensors["weight"])):
        for place in ((0, 0), (1, 2), (2, 1)):

            def slope(
                kl: bool, constant: float | None, which: int = which, place: Any = place
            ) -> float:
                """Of one model's loss by one of its own weights; the other model stays."""
                values = []
                for moved in (1e-5, -1e-5):
                    pair = [dict(mentor), dict(student)]
                    pair[which]["weight"] = pair[which]["weight"].detach().clone()
                    pair[which]["weight"][place] += moved
                    losses = by_hand(pair[1], pair[0], (kl, False), w, constant)
                    values.append(float(losses[which].detach()))
                return (values[0] - values[1]) / 2e-5

            gradient = -float(change.detach()[place]) / RATE
            assert gradient == pytest.approx(slope(True, z), abs=1e-4)
            lost["kl"] = max(lost["kl"], abs(gradient - slope(False, z)))
            lost["z"] = max(lost["z"], abs(gradient - slope(True, None)))
    assert min(lost.values()) > 1e-2  # without KL's gradient, or with one of Z


def go(folder: Path, algorithm: Algorithm, taps: list[Meddler], **more: Any) -> Outcome:
    def tapped(inner: Any) -> Meddler:
        taps.append(Meddler(inner))
        return taps[-1]

    learners = silos(3, models={} if type(algorithm) is FedAvg else {"mentor": WIDTH})
    return federate(algorithm, learners, folder, network=tapped, **more)


def memories(folder: Path) -> dict[str, dict[str, Tensor]]:
    """The mentors in the clients' last memories, by client."""
    found = {}
    for name in ("c0", "c1", "c2"):
        [*_, last] = sorted((folder / "clients" / name).glob("*.safetensors"))
        found[name] = strip_prefix(unpack(last.read_bytes(), "memory")[2]["algorithm"], "mentor.")
    return found


def test_without_what_joins_them_the_mentee_is_that_of_fedavg(tmp_path: Path) -> None:
    both = go(tmp_path / "kd", FedKD(distillation=False), [])
    plain = go(tmp_path / "plain", FedAvg(), [])
    assert digests(both) == digests(plain)
    apart = go(tmp_path / "apart", FedKD(), [])
    assert digests(apart) != digests(plain)


def digests(outcome: Outcome) -> dict[str, str]:
    """The hashes of the server's tensors."""
    return {n: digest(t) for n, t in outcome.server_state.algorithm_state["model"].items()}


def test_a_client_is_scored_by_its_mentor(tmp_path: Path) -> None:
    outcome = go(tmp_path / "run", FedKD(), [])
    for name, tensors in memories(tmp_path / "run").items():
        mentor = ToyLearner(replace(silos(3)[name], hidden=WIDTH), RoundContext(0), {})
        mentor.load(tensors)
        loss = Perplexity().evaluate(mentor, "test").metrics["loss"]
        assert outcome.records[-1].client_test[name]["loss"] == loss


@pytest.mark.parametrize("codecs", [(), (SVD(),)])
def test_no_tensor_of_a_mentor_is_sent_and_bytes_do_not_depend_on_losses(
    codecs: tuple[Any, ...], tmp_path: Path
) -> None:
    sizes = []
    for number, losses in enumerate(LOSSES):
        taps: list[Meddler] = []
        folder = tmp_path / str(number)
        go(folder, FedKD(*losses), taps, upload=codecs)
        messages = [safetensors.torch.load(m) for m in (*taps[0].requests, *taps[0].replies)]
        sent = {digest(t) for message in messages for t in message.values()}
        kept = {digest(t) for own in memories(folder).values() for t in own.values()}
        assert kept and sent and not kept & sent
        assert not [name for message in messages for name in message if "mentor" in name]
        named = [{n: t for n, t in m.items() if n.partition("/")[2]} for m in messages]
        sizes.append([{name: t.nbytes for name, t in message.items()} for message in named])
    if not codecs:  # the energy that SVD keeps is that of what was learned
        assert sizes[0] == sizes[1] == sizes[2] == sizes[3]


def digest(tensor: Tensor) -> str:
    return hashlib.sha256(tensor.contiguous().numpy().tobytes()).hexdigest()
