"""Releases: what was noised is durable before it is used, and after a crash not drawn again."""

import shutil
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, ClassVar

import pytest
import torch
from torch import Tensor

from hanse.errors import UserError
from hanse.federation.aggregators.mean import Mean
from hanse.federation.algorithms.fedavg import FedAvg
from hanse.federation.client import ClientEndpoint, respond
from hanse.federation.client_memory import MemoryStore
from hanse.federation.interfaces.aggregator import Aggregator, Exchange
from hanse.federation.interfaces.declarations import MEAN
from hanse.federation.interfaces.halves import Client
from hanse.federation.interfaces.results import Aggregate, Memory
from hanse.federation.interfaces.transform import Transform
from hanse.federation.messages import ClientProfile, Instruction, Reply, Request, Update
from hanse.federation.method import Method
from hanse.federation.pipeline import Pipeline, Pipelines
from hanse.journal.checkpoints import Checkpoint, checkpoints, latest
from hanse.journal.records import Mechanism, ReleaseRecord
from hanse.journal.run_folder import read_ledger, read_releases, read_rounds
from hanse.learners.training.settings import TrainingSettings
from hanse.randomness import RoundContext
from hanse.tensors.named import RunningMean, Tensors
from parts.noised_mean import NoisedMean, NoisedUpdates
from stopping import die, die_at_write, killed
from toys import Meddler, Outcome, federate, same, silos

KEEP = TrainingSettings(learning_rate=0.1, optim="sgd", momentum=0.9, optimizer_state="keep")


def go(folder: Path, mechanism: Transform | None, rounds: int = 3, **more: Any) -> Outcome:
    """Three clients whose optimizers remember."""
    mechanisms = [mechanism] if mechanism else []
    return federate(FedAvg(), silos(3, KEEP), folder, rounds=rounds, mechanisms=mechanisms, **more)


def model(outcome: Outcome) -> dict[str, Tensor]:
    return dict(outcome.server_state.algorithm_state["model"])


def content(folder: Path, record: ReleaseRecord) -> Checkpoint:
    """The content of a server's release."""
    [file] = (folder / "releases").glob(f"round-{record.round:05d}-{record.digest}.safetensors")
    return Checkpoint.parse(file.read_bytes())


# ---- the server's half


def test_the_log_says_what_was_released(tmp_path: Path) -> None:
    outcome = go(tmp_path / "run", NoisedMean(clip=0.5, noise_multiplier=0.1))
    lines = read_releases(tmp_path / "run")
    numbers = {"clip": 0.5, "noise_multiplier": 0.1}
    for line, round in zip(lines, outcome.records[1:], strict=True):
        assert line.mechanisms == (Mechanism("NoisedMean", numbers),)
        assert (line.round, line.clients, line.weight) == (round.round, round.clients, round.weight)
        assert line.numbers == round.train and 0 <= round.time - line.time < 60


def test_noise_is_the_systems_or_the_tests(tmp_path: Path) -> None:
    noised, again = (go(tmp_path / name, NoisedMean()) for name in "ab")
    assert not same(noised.server_state, again.server_state)
    tested = [go(tmp_path / name, NoisedMean(test_noise=True)) for name in "cd"]
    assert same(tested[0].server_state, tested[1].server_state)


def test_nothing_is_written_without_noise(tmp_path: Path) -> None:
    go(tmp_path / "run", None)
    assert not [path for path in (tmp_path / "run").rglob("*") if "release" in path.name]


@pytest.mark.parametrize("mechanism", [NoisedMean(test_noise=True), NoisedUpdates(test_noise=True)])
def test_a_stopped_run_ends_as_a_whole_one(tmp_path: Path, mechanism: Transform) -> None:
    whole = go(tmp_path / "whole", mechanism)
    for round in (0, 1, 2):
        folder = tmp_path / f"stopped {round}"
        go(folder, mechanism, stop_after=round)
        assert same(go(folder, mechanism).server_state, whole.server_state)


def test_a_server_killed_between_draw_and_step_goes_on_with_the_same_noise(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, networks = tmp_path / "run", []

    def network(inner: Any) -> Meddler:
        networks.append(Meddler(inner))
        return networks[-1]

    before = model(go(folder, NoisedMean(), stop_after=1))
    monkeypatch.setattr(FedAvg, "step", die)
    assert killed(lambda: go(folder, NoisedMean(), rounds=2))
    monkeypatch.undo()
    first, released = read_releases(folder)
    checkpoint = latest(folder)
    assert (first.round, released.round) == (1, 2) and checkpoint is not None
    assert checkpoint.round == 1 and len(read_rounds(folder)) == 2
    noised = content(folder, released).groups["aggregate"]
    after = go(folder, NoisedMean(), rounds=2, network=network)
    for name, tensor in model(after).items():
        assert torch.equal(tensor, before[name] + noised[name])
    assert read_releases(folder) == [first, released]
    kinds = [Request.parse(request).kind for request in networks[0].requests]
    assert kinds == ["evaluate"] * 3
    # The round's replies are in the ledger as if the server had never been away.
    rows = [row for row in read_ledger(folder) if row.kind == "train"]
    assert [(row.round, row.client) for row in rows[3:]] == [(2, "c0"), (2, "c1"), (2, "c2")]
    assert [(row.down, row.up) for row in rows[3:]] == [(row.down, row.up) for row in rows[:3]]
    assert after.records[2].train["loss"] == released.numbers["loss"] > 0
    # The clients' memories of the round count, since their updates did.
    assert after.server_state.last_counted_rounds == {"c0": 2, "c1": 2, "c2": 2}
    assert go(folder, NoisedMean()).records[3].clients == ("c0", "c1", "c2")


def test_a_round_that_is_repeated_after_a_damaged_checkpoint_has_its_noise(tmp_path: Path) -> None:
    folder = tmp_path / "run"
    whole = go(folder, NoisedMean())
    lines = read_releases(folder)
    sorted(checkpoints(folder))[-1].write_bytes(b"damaged")
    assert same(go(folder, NoisedMean()).server_state, whole.server_state)
    assert read_releases(folder) == lines


def test_a_damaged_release_ends_the_run_before_anything_is_drawn(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "run"
    go(folder, NoisedMean(), stop_after=1)
    monkeypatch.setattr(FedAvg, "step", die)
    assert killed(lambda: go(folder, NoisedMean(), rounds=2))
    monkeypatch.undo()
    file = max((folder / "releases").iterdir())
    file.write_bytes(file.read_bytes()[:-1])
    monkeypatch.setattr(NoisedMean, "finish", die)
    with pytest.raises(UserError, match=r"round-00002.* must not be drawn again"):
        go(folder, NoisedMean(), rounds=2)


def used(folder: Path) -> dict[str, Tensor]:
    """The change that round 2 made by what was released, at the server or at the clients."""
    if (folder / "releases.jsonl").exists():
        return dict(content(folder, read_releases(folder)[-1]).groups["aggregate"])
    mean = RunningMean()
    for client in sorted((folder / "clients").iterdir()):
        digest = read_releases(client)[-1].digest
        message = client / "releases" / f"round-00002-{digest}.safetensors"
        update = Reply.parse(message.read_bytes()).update
        mean.add(update.tensors, update.weight)
    return mean.value()


@pytest.mark.parametrize(
    ("mechanism", "files", "before_and_after"),
    [
        (NoisedMean(), ["releases", "ledger"], {0, 1}),
        (NoisedUpdates(), ["clients/c1", "clients/c2"], {1, 2}),
    ],
)
def test_killed_at_any_write_of_a_release_what_is_durable_is_used_and_nothing_else(
    tmp_path: Path, mechanism: Transform, files: list[str], before_and_after: set[int]
) -> None:
    """files: how the files begin at whose writes the process is killed."""
    start = tmp_path / "start"
    before = model(go(start, mechanism, stop_after=1))
    logs = [file.relative_to(start) for file in start.rglob("releases.jsonl")]
    released: list[int] = []  # lines of the round, by the write at which the process was killed

    def killed_at(number: int, folder: Path) -> bool:
        def work() -> None:
            die_at_write(number, *(folder / name for name in files))
            go(folder, mechanism, rounds=2)

        return killed(work)

    while {*released} != before_and_after:
        folder = tmp_path / f"{len(released)}"
        shutil.copytree(start, folder)
        assert killed_at(len(released) + 1, folder)
        lines = {log: (folder / log).read_bytes() for log in logs}
        released.append(sum(len(text.splitlines()) - 1 for text in lines.values()))
        after = model(go(folder, mechanism, rounds=2))
        for log, text in lines.items():
            assert (folder / log).read_bytes().startswith(text)
            assert [line.round for line in read_releases((folder / log).parent)] == [1, 2]
        change = used(folder)
        assert all(torch.equal(t, before[name] + change[name]) for name, t in after.items())
    assert len(released) > 4


# ---- the client's half


@dataclass
class Site:
    """One client that answers requests; `trained` counts how often it was trained."""

    folder: Path
    trained: int = 0
    rule: Aggregator = field(default_factory=Mean)
    mechanism: Transform = field(default_factory=NoisedUpdates)

    def respond(self, request: Request) -> Reply:
        """The reply of a process that has just been started."""
        site = self

        @dataclass(frozen=True)
        class Counted(FedAvg):
            def train(self, instruction: Instruction, client: Client) -> Update:
                site.trained += 1
                return super().train(instruction, client)

        upload = Pipeline("upload", mechanisms=(self.mechanism,))
        endpoint = ClientEndpoint(
            ClientProfile("c0", 8),
            silos(1)["c0"],
            Method(Counted(), self.rule, Pipelines(upload)),
            {},
            MemoryStore(self.folder),
            seed=0,
        )
        return Reply.parse(respond(endpoint, request.pack()))

    def request(self, round: int = 1, shift: float = 0.0) -> Request:
        tensors = silos(1)["c0"](RoundContext(0), {}).tensors()
        return Request("train", round, 0, Instruction({n: t + shift for n, t in tensors.items()}))


def test_the_same_request_gets_the_same_bytes_and_another_one_new_noise(tmp_path: Path) -> None:
    site = Site(tmp_path)
    first, again = (site.respond(site.request()) for _ in range(2))
    assert first.pack() == again.pack() and site.trained == 1

    # The mean of many draws for one update would have hardly any noise.
    other, back, twice = (site.respond(site.request(shift=shift)) for shift in (1.0, 0.0, 1.0))
    assert site.trained == 2 and not same_tensors(first, other)
    assert first.pack() == back.pack() and other.pack() == twice.pack()
    lines = read_releases(tmp_path)
    assert [(line.round, line.clients) for line in lines] == [(1, ("c0",))] * 2
    assert lines[0].request != lines[1].request
    assert lines[0].numbers == first.update.numbers and lines[0].weight == 8


class Lock(Mean):
    """Adds the aggregator's note to what leaves a client."""

    sums_only: ClassVar[bool] = True
    gives: ClassVar[frozenset[str]] = frozenset({MEAN})

    def aggregate(self, exchange: Exchange) -> Aggregate:
        raise NotImplementedError

    def seal(self, summand: Tensors, note: Instruction, client: Client) -> Tensors:
        return {name: tensor + note.numbers["mask"] for name, tensor in summand.items()}


def test_a_repeated_round_seals_the_same_noise_anew(tmp_path: Path) -> None:
    """A paused round is asked again with other masks; the update under them stays."""
    site = Site(tmp_path, rule=Lock())
    first, other = (
        site.respond(replace(site.request(), aggregator_note=Instruction({}, {"mask": mask})))
        for mask in (0.0, 64.0)
    )
    assert site.trained == 1 and len(read_releases(tmp_path)) == 1
    for name, tensor in first.update.tensors.items():
        torch.testing.assert_close(other.update.tensors[name], tensor + 64.0)


class Shared(NoisedUpdates):
    """Noise that protects sums over clients only."""

    noise: ClassVar[frozenset[str]] = frozenset({"share"})


def test_a_share_of_noise_is_drawn_anew_for_other_masks(tmp_path: Path) -> None:
    """The difference of two sums of the same shares would have hardly any noise."""
    site = Site(tmp_path, rule=Lock(), mechanism=Shared())
    requests = [
        replace(site.request(), aggregator_note=Instruction({}, {"mask": mask}))
        for mask in (0.0, 0.0, 64.0)
    ]
    first, again, other = (site.respond(request).update.tensors for request in requests)
    assert site.trained == 2 and len(read_releases(tmp_path)) == 2
    for name, tensor in first.items():
        assert torch.equal(again[name], tensor)
    assert any(float((other[n] - t - 64.0).abs().max()) > 1e-3 for n, t in first.items())


class Once(Lock):
    """Opens one sum of a round."""

    opens_once: ClassVar[bool] = True


def test_a_share_of_noise_stays_where_one_sum_of_a_round_is_opened(tmp_path: Path) -> None:
    """A server could have the same sum opened twice, and take the mean of both."""
    site = Site(tmp_path, rule=Once(), mechanism=Shared())
    first, other = (
        site.respond(replace(site.request(), aggregator_note=Instruction({}, {"mask": mask})))
        for mask in (0.0, 64.0)
    )
    assert site.trained == 1 and len(read_releases(tmp_path)) == 1
    for name, tensor in first.update.tensors.items():
        torch.testing.assert_close(other.update.tensors[name], tensor + 64.0)


def test_a_client_keeps_an_update_while_a_server_may_ask_again(tmp_path: Path) -> None:
    site = Site(tmp_path)
    replies = {round: site.respond(site.request(round)).pack() for round in (1, 2, 3)}
    assert [site.respond(site.request(round)).pack() for round in (3, 2)] == [
        replies[3],
        replies[2],
    ]
    assert site.trained == 3 and len(list((tmp_path / "releases").iterdir())) == 2
    assert site.respond(site.request(1)).pack() != replies[1]
    assert [line.round for line in read_releases(tmp_path)] == [1, 2, 3, 1]


def test_a_damaged_update_is_not_noised_again(tmp_path: Path) -> None:
    site = Site(tmp_path)
    site.respond(site.request())
    [file] = (tmp_path / "releases").iterdir()
    file.write_bytes(file.read_bytes()[:-1])
    assert "must not be drawn again" in site.respond(site.request()).error
    assert site.trained == 1 and len(read_releases(tmp_path)) == 1


def same_tensors(a: Reply, b: Reply) -> bool:
    return all(torch.equal(t, b.update.tensors[name]) for name, t in a.update.tensors.items())


# ---- declarations


def test_a_half_that_does_not_exist_draws_no_noise() -> None:
    with pytest.raises(TypeError, match=r"Typo\.noise names finished"):
        type("Typo", (NoisedMean,), {"noise": frozenset({"finished"})})


def test_a_subclass_inherits_what_draws_noise() -> None:
    class Other(NoisedUpdates):
        def encode(
            self, update: Update, memory: Memory, state: Tensors, context: RoundContext
        ) -> Update:
            return super().encode(update, memory, state, context)

    assert Other.noise == {"encode"}


def test_a_download_that_draws_noise_when_it_encodes_is_refused() -> None:
    class Download(NoisedUpdates):
        payloads: ClassVar[tuple[str, ...]] = ("model",)

    with pytest.raises(UserError, match=r"Download draws noise when it encodes.*; leave it out"):
        Method(FedAvg(), Mean(), Pipelines(download=Pipeline("download", (Download(),))))
