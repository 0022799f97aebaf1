"""What every algorithm promises, whatever it is; a new file in algorithms/ is found by itself."""

import importlib
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from contract.cases import PERSONAL, Case, built, every_algorithm, files_of, remembering
from hanse import registry
from hanse.federation.interfaces.algorithm import Algorithm, Client, Server
from hanse.federation.interfaces.learner import Learner
from hanse.federation.interfaces.results import Aggregate, State
from hanse.federation.messages import PREPARE, ClientProfile, Update, validate_update
from hanse.journal.run_folder import read_ledger
from hanse.randomness import RoundContext
from hanse.tensors.named import zeros
from hanse.tensors.serialization import unpack
from toys import federate, held_out, same, silos, told

LEARNED = 0.75  # the loss after five rounds, as a share of that before the first, is below this


def server_half(case: Case, number: int = 0) -> tuple[Learner, Server]:
    """A learner, and the server that holds it."""
    learner = held_out(**case.adapter)(RoundContext(0, number), {})
    server = Server(learner, 4, RoundContext(0, number))
    server.files = files_of(built(case), server)
    return learner, server


def first_updates(
    case: Case, algorithm: Algorithm, state: State
) -> list[tuple[ClientProfile, Update]]:
    """What two clients make of the first round's order."""
    result = []
    for name, toy in silos(2, **case.adapter).items():
        profile = ClientProfile(name, len(toy.splits["train"]), told(toy))
        context = RoundContext(0, 1, name)
        instruction = algorithm.instruction(state, profile, context)
        assert instruction is not None
        learner = toy(context, {})
        learner.configure(instruction.numbers)
        client = Client(profile, learner, {}, {}, context, files=server_half(case)[1].files)
        result.append((profile, algorithm.train(instruction, client)))
    return result


@every_algorithm
def test_learns(case: Case, tmp_path: Path) -> None:
    learners, server = silos(4, run=5, **case.adapter), held_out(**case.adapter)
    outcome = federate(built(case), learners, tmp_path / "run", server, rounds=5)
    start, end = (outcome.records[at].test["loss"] for at in (0, -1))
    if case.name in PERSONAL:
        own = [scores["loss"] for scores in outcome.records[-1].client_test.values()]
        end = sum(own) / len(own)
    assert end < LEARNED * start


@every_algorithm
def test_resume_equals_no_stop(case: Case, tmp_path: Path) -> None:
    training = remembering(built(case))

    def go(folder: str, stop: int | None = None) -> Any:
        settings: dict[str, Any] = {"rounds": 4, "fraction_train": 0.5, "stop_after": stop}
        learners, server = silos(4, training, run=4, **case.adapter), held_out(**case.adapter)
        return federate(built(case), learners, tmp_path / folder, server, **settings)

    whole = go("whole")
    for stop in range(4):
        go(f"stopped {stop}", stop)
        gone_on = go(f"stopped {stop}")
        assert same(gone_on.server_state, whole.server_state)
        assert [r.test for r in gone_on.records if r.test] == [
            r.test for r in whole.records if r.test
        ]
        assert memories(tmp_path / f"stopped {stop}") == memories(tmp_path / "whole")
        # A server that was started again offers its files again.
        ledgers = [read_ledger(tmp_path / at) for at in (f"stopped {stop}", "whole")]
        rows = [[row for row in ledger if row.kind != PREPARE] for ledger in ledgers]
        assert len(rows[0]) == len(rows[1])
    # Something was kept, so that it could have been lost.
    assert memories(tmp_path / "whole") or training.optimizer_state == "reset"


def memories(folder: Path) -> dict[str, list[float]]:
    """What every client remembers, by client, round, part and name."""
    found = {}
    for file in sorted((folder / "clients").glob("c*/*")):
        for part, tensors in unpack(file.read_bytes(), "memory")[2].items():
            for name, tensor in tensors.items():
                found[f"{file.relative_to(folder)} {part} {name}"] = tensor.flatten().tolist()
    return found


@every_algorithm
def test_updates_are_what_the_server_expects(case: Case) -> None:
    algorithm = built(case)
    state = algorithm.init(server_half(case)[1])
    for profile, update in first_updates(case, algorithm, state):
        assert all(isinstance(t, Tensor) for t in update.tensors.values())
        assert all(isinstance(name, str) for name in update.tensors)
        validate_update(update, algorithm.update_layout(state, profile, RoundContext(0, 1)))
        assert update.weight > 0


@every_algorithm
def test_step_leaves_the_state_as_it_was(case: Case) -> None:
    algorithm = built(case)
    _, server = server_half(case, 1)
    state = algorithm.init(server)
    for _ in range(2):  # the second step meets what the first one has left behind
        before = copied(state)
        updates = first_updates(case, algorithm, state)
        if algorithm.combines:
            combined = algorithm.combine(updates)
        else:
            draw = torch.Generator().manual_seed(1)
            like = zeros(algorithm.update_layout(state, updates[0][0], RoundContext(0, 1)))
            noise = {n: torch.randn(t.shape, generator=draw).to(t.dtype) for n, t in like.items()}
            numbers = updates[0][1].numbers
            combined = Aggregate(noise, numbers, 2.0, tuple(p.name for p, _ in updates))
        after = algorithm.step(state, combined, server)
        assert state.keys() == before.keys()
        for group, tensors in before.items():
            assert all(torch.equal(t, state[group][name]) for name, t in tensors.items())
        old, new = algorithm.model(state), algorithm.model(after)
        assert old.keys() != new.keys() or any(not torch.equal(t, new[n]) for n, t in old.items())
        state = after


def copied(state: State) -> dict[str, dict[str, Tensor]]:
    """The state, in memory of its own."""
    return {group: {n: t.clone() for n, t in tensors.items()} for group, tensors in state.items()}


@every_algorithm
def test_state_holds_what_the_server_learner_loads(case: Case) -> None:
    algorithm = built(case)
    learner, server = server_half(case)
    learner.load(algorithm.model(algorithm.init(server)))


@pytest.mark.parametrize("name", registry.names("federation/algorithms"))
def test_first_docstring_lines_are_there(name: str) -> None:
    module = importlib.import_module(f"hanse.federation.algorithms.{name}")
    for documented in (module, registry.find("federation/algorithms", name)):
        # A dataclass without a docstring of its own gets its signature, as in "FedAvg()".
        first = (vars(documented).get("__doc__") or "").strip().splitlines()[:1]
        assert first, f"{documented} has no docstring"
        assert len(first[0]) > 20
        assert not first[0].startswith(f"{documented.__name__}(")
