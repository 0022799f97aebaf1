"""The bytes that hanse check predicts, beside those of the run."""

import zlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import pytest
import torch

from hanse.experiment.loading import load
from hanse.federation.algorithms.fedavg import FedAvg
from hanse.federation.compression.bf16 import BF16
from hanse.federation.interfaces.algorithm import Client, Server
from hanse.federation.interfaces.declarations import UPDATES
from hanse.federation.interfaces.results import Aggregate, Memory, State
from hanse.federation.interfaces.transform import Transform
from hanse.federation.messages import ClientProfile, Instruction, Update
from hanse.journal.ledger import Ledger
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
    to_bytes,
)
from samples import Outcome, reviews, write_lines

ZIP = f"{__file__}:Zip"
SECURE_SUM = Path(__file__).parents[2] / "parts" / "secure_sum.py"


@dataclass(frozen=True)
class Zip(Transform):
    """Compressed bytes of varying length; the server broadcasts the shapes.

    level: of zlib; 0: as long as the longest.
    """

    linear = False
    payloads = ("change", "model")
    level: int = 9

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
    asked, sent = [], Ledger.sent

    def counted(self: Ledger, client: str, kind: str, size: int) -> None:
        asked.append(kind)
        sent(self, client, kind, size)

    monkeypatch.setattr(Ledger, "sent", counted)
    words = ["num_clients=40", "data.partition=iid", "data.client_test=0"]
    text = "clients: {silo-07: {train: {max_steps: 1}}}\n"
    experiment_file.write_text(experiment_file.read_text() + text)
    found = estimate.preview(load(experiment_file, words))
    assert len(found.traffic["train"]) == found.clients == 40
    assert asked == ["train", "train"], "one for each of two kinds of clients"


@pytest.mark.parametrize(
    "setting",
    [
        "compression=bf16",
        "compression={upload: bf16, download: bf16, error_feedback: true}",
        "clients={silo-2: {compression: {upload: bf16, download: bf16}}}",
        "compression={upload: int4, download: int8, error_feedback: true}",
        "compression={upload: sign, download: {nf4: {rounding: stochastic}}}",
        "clients={silo-1: {compression: [top_k, int8]}, silo-2: {compression: rand_k}}",
        f"compression={{upload: [{{{ZIP}: {{level: 0}}}}], download: [{{{ZIP}: {{level: 0}}}}]}}",
    ],
    ids=[
        *("upload", "both ways with error feedback", "of one client", "int4 and int8"),
        *("sign and nf4", "top_k and rand_k", "longest blobs"),
    ],
)
def test_codecs_of_fixed_length_are_predicted_to_the_byte(
    experiment_file: Path, setting: str
) -> None:
    experiment = load(experiment_file, [setting, "rounds=2"])
    traffic = estimate.preview(experiment).traffic
    assert run_rows(traffic, simulation.run(experiment)) == predicted(traffic, rounds=2)
    for size in traffic["train"].values():
        assert (size.down, size.up) == (size.most_down, size.most_up)


@pytest.mark.parametrize("name", ["feddistill", "fedmkt"])
def test_a_round_in_which_predictions_travel_down_is_predicted_to_the_byte(
    experiment_file: Path, tmp_path: Path, tiny_gpt2: Path, name: str
) -> None:
    """In the first round the server has none yet."""
    public = f"data.public={write_lines(tmp_path / 'public.jsonl', reviews(8, seed=5))}"
    own = f"clients={{silo-2: {{model: {{model_name_or_path: {tiny_gpt2}}}}}}}"
    words = [public, own, f"algorithm={{{name}: {{k: 8, dtype: float16}}}}", "rounds=3"]
    experiment = load(experiment_file, [*words, "objective=sft", "evaluation.tasks=[perplexity]"])
    traffic = estimate.preview(experiment).traffic
    rows = run_rows(traffic, simulation.run(experiment))
    assert rows[3:] == predicted(traffic, rounds=2)
    assert all(
        row[2] < later[2] - 8 * 8 * 6 for row, later in zip(rows[:3], rows[3:6], strict=True)
    )


def test_a_round_in_which_a_product_travels_down_is_predicted(experiment_file: Path) -> None:
    """A fresh adapter has none."""
    own = "clients={silo-2: {adapter: {lora: {r: 2, lora_alpha: 4}}}}"
    experiment = load(experiment_file, ["algorithm=flexlora", own, "rounds=2"])
    traffic = estimate.preview(experiment).traffic
    rows = run_rows(traffic, simulation.run(experiment))
    assert rows[3:] == predicted(traffic, rounds=1)
    assert all(row[2] < later[2] for row, later in zip(rows[:3], rows[3:], strict=True))


def test_layouts_that_the_algorithm_chooses_are_told_apart(experiment_file: Path) -> None:
    experiment = load(experiment_file, [f"algorithm={__file__}:Halves", "rounds=1"])
    traffic = estimate.preview(experiment).traffic
    assert run_rows(traffic, simulation.run(experiment)) == predicted(traffic, rounds=1)
    assert len({size.up for size in traffic["train"].values()}) == 2


def test_codecs_of_varying_length_are_bounded(
    experiment_file: Path, hanse: Callable[..., Outcome]
) -> None:
    longest, usual = (
        load(experiment_file, ["rounds=2", f"compression={{upload: [{zip_}], download: [{zip_}]}}"])
        for zip_ in (f"{{{ZIP}: {{level: {level}}}}}" for level in (0, 9))
    )
    bounds, sizes = (estimate.preview(settings).traffic["train"] for settings in (longest, usual))
    for _, client, down, up in run_rows({"train": sizes}, simulation.run(usual)):
        size = sizes[client]
        assert (size.most_down, size.most_up) == (bounds[client].down, bounds[client].up)
        assert down <= size.most_down and up <= size.most_up
        assert size.down < size.most_down and size.up < size.most_up
        assert up == pytest.approx(size.up, rel=0.05)
    out = hanse("check", "--trust", experiment_file, f"compression={ZIP}").out
    most = f"(at most {max(size.most_up for size in sizes.values()):,}) bytes up"
    assert most in out and out.count("(at most ") == 2, "one way, and of a round"


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
    encoded, trained = [], []
    encode, train = BF16.encode, FedAvg.train

    def counted_encode(
        self: BF16, update: Update, memory: Memory, state: Tensors, context: RoundContext
    ) -> Update:
        encoded.append(context.client)
        return encode(self, update, memory, state, context)

    def counted_train(self: FedAvg, instruction: Instruction, client: Client) -> Update:
        trained.append(client.profile.name)
        return train(self, instruction, client)

    monkeypatch.setattr(BF16, "encode", counted_encode)
    monkeypatch.setattr(FedAvg, "train", counted_train)
    own = "clients.silo-2.compression.error_feedback=true"
    estimate.preview(load(experiment_file, ["compression=bf16", own]))
    assert encoded == ["silo-1", "silo-2"]
    assert len(trained) == 3 and len({*trained}) == 1, "compression changes neither time nor update"


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
