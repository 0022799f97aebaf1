"""A silo's answers to a server's letters, without a network between them."""

import logging
from dataclasses import replace
from pathlib import Path

import pytest

import hanse
from hanse.assembly import Simulation, simulate
from hanse.loading import load
from hanse.messages import Order, Reply, Request
from hanse.resident import Resident
from hanse.runtimes.letters import WHO, Answer, Letter
from hanse.settings import dump
from hanse.silo.models import hash_of
from hanse.silo.policy import Policy
from hanse.silo.settings import Rows, Silo


@pytest.fixture
def server(experiment_file: Path) -> Simulation:
    return simulate(load(experiment_file, ["cohort=off"]))


@pytest.fixture
def letter(server: Simulation) -> Letter:
    values = server.experiment.resolved() | {"output_dir": None}
    model = hash_of(server.experiment.model.model_name_or_path)
    return Letter("a1", dump(values), server.division.digest, model or "")


@pytest.fixture
def resident(review_file: Path, tmp_path: Path) -> Resident:
    rows, state = Rows(path=str(review_file)), tmp_path / "state"
    policy = Policy()
    return Resident(
        Silo(name="silo-1", server="127.0.0.1:1", data=rows, state=state, policy=policy)
    )


def _train(server: Simulation) -> bytes:
    return Request("train", 1, 0, Order(server.learner.initial())).pack()


def test_who_is_there_is_said_before_anything_is_loaded(resident: Resident) -> None:
    answer = Answer.parse(resident.answer(WHO))
    assert (answer.name, answer.profile, resident.loaded) == ("silo-1", None, 0)


def test_a_request_that_comes_again_is_answered_alike_and_trained_once(
    resident: Resident, letter: Letter, server: Simulation, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    asked = replace(letter, request=_train(server)).pack()
    first, again = (Answer.parse(resident.answer(asked)) for _ in range(2))
    assert first.error == ""
    assert Reply.parse(first.body).update.numbers["steps"] == 3
    assert again == first
    assert caplog.text.count("answered train") == 1
    assert resident.loaded == 1


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"version": "9.8"}, f"the server has hanse 9.8, this silo {hanse.__version__}"),
        ({"model": "5e" * 32}, "silo-1 has another base model than the server"),
        ({"rows": "5e" * 32}, "are not those that the server divides"),
        ({"settings": "rounds: [1"}, "the server's experiment"),
    ],
)
def test_what_does_not_fit_is_refused_and_said(
    resident: Resident, letter: Letter, changed: dict[str, str], said: str
) -> None:
    answer = Answer.parse(resident.answer(replace(letter, **changed).pack()))
    assert said in answer.error
    assert answer.profile is None
    assert resident.refused == 1


def test_what_is_no_letter_is_refused(resident: Resident) -> None:
    assert Answer.parse(resident.answer(b"?")).error
