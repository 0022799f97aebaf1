"""The bytes that hanse check predicts, beside those of the run."""

import zlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import pytest
import torch

from hanse.experiment.assembly import assemble
from hanse.experiment.loading import load
from hanse.federation.aggregators.mean import Mean
from hanse.federation.algorithms.fedavg import FedAvg
from hanse.federation.interfaces.algorithm import Client, Server
from hanse.federation.interfaces.declarations import UPDATES
from hanse.federation.interfaces.results import Aggregate, Memory, State
from hanse.federation.interfaces.transform import Transform
from hanse.federation.messages import ClientProfile, Instruction, Request, Update
from hanse.federation.method import Method
from hanse.federation.pipeline import Pipeline, Pipelines
from hanse.journal.run_folder import read_ledger
from hanse.planning.preview import estimate
from hanse.planning.preview.traffic import Phases
from hanse.randomness import RoundContext
from hanse.simulation import run as simulation
from hanse.tensors.named import (
    Layout,
    Tensors,
    blob,
    from_bytes,
    largest,
    layout,
    map_tensors,
    to_bytes,
)
from samples import Outcome

SECURE_SUM = Path(__file__).parents[2] / "parts" / "secure_sum.py"


@dataclass(frozen=True)
class Half(Transform):
    """Half the bytes: bfloat16."""

    linear = False
    payloads = ("change", "model")

    def layout(self, expected: Layout, state: Tensors) -> Layout:
        return {n: torch.empty_like(largest(t), dtype=torch.bfloat16) for n, t in expected.items()}

    def encode(
        self, update: Update, memory: Memory, state: Tensors, context: RoundContext
    ) -> Update:
        return replace(update, tensors=map_tensors(torch.Tensor.bfloat16, update.tensors))

    def decode(self, update: Update, state: Tensors, context: RoundContext) -> Update:
        return replace(update, tensors=map_tensors(torch.Tensor.float, update.tensors))


@dataclass(frozen=True)
class Zip(Transform):
    """Compressed bytes of varying length; the server broadcasts the shapes.

    level: of zlib; 0: as long as the longest.
    """

    linear = False
    payloads = ("change", "model")
    level: int

    def init(self, expected: Layout) -> Tensors:
        return {name: torch.tensor(largest(t).shape) for name, t in expected.items()}

    def layout(self, expected: Layout, state: Tensors) -> Layout:
        zeros = {name: bytes(4 * largest(t).numel()) for name, t in expected.items()}
        return {name: blob(len(zlib.compress(data, 0))) for name, data in zeros.items()}

    def encode(
        self, update: Update, memory: Memory, state: Tensors, context: RoundContext
    ) -> Update:
        data = {name: t.contiguous().numpy().tobytes() for name, t in update.tensors.items()}
        blobs = {name: from_bytes(zlib.compress(d, self.level)) for name, d in data.items()}
        return replace(update, tensors=blobs)

    def decode(self, update: Update, state: Tensors, context: RoundContext) -> Update:
        data = {name: zlib.decompress(to_bytes(t)) for name, t in update.tensors.items()}
        shapes = {name: state[name].tolist() for name in data}
        tensors = {
            name: torch.frombuffer(bytearray(d), dtype=torch.float32).view(shapes[name])
            for name, d in data.items()
        }
        return replace(update, tensors=tensors)


@dataclass(frozen=True)
class Halves(FedAvg):
    """Clients with less than 50 rows send half of the matrices."""

    needs = frozenset({UPDATES})
    clients_may_differ = "layout"

    def update_layout(self, state: State, profile: ClientProfile, context: RoundContext) -> Layout:
        return layout(_half(state["model"], profile))

    def train(self, instruction: Instruction, client: Client) -> Update:
        update = super().train(instruction, client)
        return replace(update, tensors=_half(update.tensors, client.profile))

    def combine(self, updates: Sequence[tuple[ClientProfile, Update]]) -> Aggregate:
        return Aggregate({}, {}, 1.0, tuple(profile.name for profile, _ in updates))

    def step(self, state: State, combined: Aggregate, server: Server) -> State:
        return state


def _half(tensors: Tensors, profile: ClientProfile) -> Tensors:
    names = sorted(tensors)[:: 2 if profile.examples < 50 else 1]
    return {name: tensors[name] for name in names}


def pipelines(
    up: Transform | None = None,
    down: Transform | None = None,
    feedback: bool = False,
    owner: str = "",
) -> Pipelines:
    """One codec in each direction, or none."""
    return Pipelines(
        Pipeline("upload", (up,) if up else (), error_feedback=feedback, owner=owner),
        Pipeline("download", (down,) if down else (), error_feedback=feedback, owner=owner),
    )


def run_rows(traffic: Phases, folder: Path) -> list[tuple[str, str, int, int]]:
    """The rows of a run's ledger whose kinds are in the prediction."""
    rows = [row for row in read_ledger(folder) if row.kind in traffic]
    return [(row.kind, row.client, row.down, row.up) for row in rows]


def predicted(traffic: Phases, rounds: int) -> list[tuple[str, str, int, int]]:
    """The same rows, as predicted for each of so many rounds."""
    return rounds * [
        (kind, client, size.down, size.up)
        for kind, clients in traffic.items()
        for client, size in clients.items()
    ]


def test_many_clients_are_not_asked_one_by_one(
    experiment_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    packed, pack = [], Request.pack

    def counted(self: Request) -> bytes:
        packed.append(self.kind)
        return pack(self)

    monkeypatch.setattr(Request, "pack", counted)
    words = ["num_clients=40", "data.partition=iid", "data.client_test=0"]
    text = "clients: {silo-07: {train: {max_steps: 1}}}\n"
    experiment_file.write_text(experiment_file.read_text() + text)
    found = estimate.preview(load(experiment_file, words))
    assert len(found.traffic["train"]) == found.clients == 40
    assert packed == ["train", "train"], "one for each of two kinds of clients"


@pytest.mark.parametrize(
    "method",
    [
        Method(FedAvg(), Mean(), pipelines(Half())),
        Method(FedAvg(), Mean(), pipelines(Half(), Half(), feedback=True)),
        Method(FedAvg(), Mean(), own={"silo-2": pipelines(Half(), Half(), owner="silo-2")}),
        Method(FedAvg(), Mean(), pipelines(Zip(0), Zip(0))),
    ],
    ids=["upload", "error feedback", "one client's own", "longest blobs"],
)
def test_codecs_of_fixed_length_are_predicted_to_the_byte(
    experiment_file: Path, method: Method, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(assemble, "build_method", lambda experiment: method)
    experiment = load(experiment_file, ["rounds=2"])
    traffic = estimate.preview(experiment).traffic
    assert run_rows(traffic, simulation.run(experiment)) == predicted(traffic, rounds=2)
    for size in traffic["train"].values():
        assert (size.down, size.up) == (size.most_down, size.most_up)


def test_layouts_that_the_algorithm_chooses_are_told_apart(
    experiment_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(assemble, "build_method", lambda experiment: Method(Halves(), Mean()))
    experiment = load(experiment_file, ["rounds=1"])
    traffic = estimate.preview(experiment).traffic
    assert run_rows(traffic, simulation.run(experiment)) == predicted(traffic, rounds=1)
    assert len({size.up for size in traffic["train"].values()}) == 2


def test_codecs_of_varying_length_are_bounded(
    experiment_file: Path, monkeypatch: pytest.MonkeyPatch, hanse: Callable[..., Outcome]
) -> None:
    experiment = load(experiment_file, ["rounds=2"])

    def use(level: int) -> Phases:
        method = Method(FedAvg(), Mean(), pipelines(Zip(level), Zip(level)))
        monkeypatch.setattr(assemble, "build_method", lambda experiment: method)
        return estimate.preview(experiment).traffic

    longest, usual = use(0)["train"], use(9)["train"]
    for _, client, down, up in run_rows({"train": usual}, simulation.run(experiment)):
        size = usual[client]
        assert (size.most_down, size.most_up) == (longest[client].down, longest[client].up)
        assert down <= size.most_down and up <= size.most_up
        assert size.down < size.most_down and size.up < size.most_up
        assert up == pytest.approx(size.up, rel=0.05)
    out = hanse("check", experiment_file).out
    most = f"(at most {max(size.most_up for size in usual.values()):,}) bytes up"
    assert most in out and out.count("(at most ") == 3, "each way, and of a round"


@pytest.mark.parametrize("fraction", [1.0, 0.6])
def test_phases_are_predicted_to_the_byte(experiment_file: Path, fraction: float) -> None:
    words = [f"aggregator={SECURE_SUM}:SecureSum", f"fraction_train={fraction}"]
    experiment = load(experiment_file, [*words, "rounds=1"])
    traffic = estimate.preview(experiment).traffic
    assert list(traffic) == ["keys", "train", "shares", "unmask"]
    assert {len(clients) for clients in traffic.values()} == {2 if fraction < 1 else 3}
    assert run_rows(traffic, simulation.run(experiment)) == predicted(traffic, rounds=1)
    for size in traffic["shares"].values():  # one share for each client, eight bytes a value
        assert size.up > len(traffic["keys"]) * 8 * estimate.preview(experiment).trained


def test_an_update_is_encoded_once_for_each_kind_of_clients(
    experiment_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    encoded: list[str] = []
    encode = Half.encode

    def counted(
        self: Half, update: Update, memory: Memory, state: Tensors, context: RoundContext
    ) -> Update:
        encoded.append(context.client)
        return encode(self, update, memory, state, context)

    monkeypatch.setattr(Half, "encode", counted)
    method = Method(FedAvg(), Mean(), pipelines(Half()))
    monkeypatch.setattr(assemble, "build_method", lambda experiment: method)
    estimate.preview(load(experiment_file))
    assert encoded == ["silo-1"]


def test_too_few_clients_for_a_rule_are_refused(
    experiment_file: Path, hanse: Callable[..., Outcome], tmp_path: Path
) -> None:
    rule = f"aggregator={{{SECURE_SUM}:SecureSum: {{threshold: 7}}}}"
    code, _, err = hanse("check", "--trust", experiment_file, rule)
    assert code == 2
    assert "SecureSum needs 7 clients, but of the 3 in a round only 3 are left; let more" in err
    assert not (tmp_path / "runs").exists()


def test_check_prints_each_phase(
    experiment_file: Path, hanse: Callable[..., Outcome], tmp_path: Path
) -> None:
    words = [experiment_file, f"aggregator={SECURE_SUM}:SecureSum", "fraction_train=0.6"]
    code, out, err = hanse("check", "--trust", *words)
    traffic = estimate.preview(load(experiment_file, words[1:])).traffic
    key, update = (traffic[kind]["silo-1"] for kind in ("keys", "train"))
    assert code == 0
    assert f"a client   keys: {key.down} bytes down and {key.up} bytes up in each round" in out
    assert f"a client   train: {update.down:,} bytes down and {update.up:,} bytes up" in out
    total = sum(s.down + s.up for clients in traffic.values() for s in clients.values())
    assert f"a round    {total:,} bytes with 2 of 3 clients" in out
    assert "answered" not in err, "nobody trains for a round that is not part of a run"
    assert not (tmp_path / "runs").exists()
