"""Figures of a silo's machine: measured for a probe alone, and only where the policy lets them."""

from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from hanse.deployment.envelopes import Envelope, SiloReply
from hanse.deployment.server.job_text import job_text
from hanse.deployment.silo import machine_figures
from hanse.deployment.silo.enforcement import rounded
from hanse.deployment.silo.job import received
from hanse.deployment.silo.machine_figures import FILE, MachineFigures
from hanse.deployment.silo.policy import Policy
from hanse.deployment.silo.settings import Rows, SiloSettings
from hanse.deployment.silo.worker import SiloWorker
from hanse.experiment.assembly.assemble import simulate
from hanse.experiment.loading import load
from hanse.federation.messages import Instruction, Reply, Request, Update
from hanse.learners.adapted_model import AdaptedModel
from hanse.learners.models.model_hash import hash_of
from hanse.planning.devices.silo_figures import PREFIX, SiloFigures
from hanse.planning.fedpipe import step_probes
from hanse.tensors import json_text
from machine_profiles import PROFILE
from policy_checks import silo

PROBE = "algorithm={fedpipe: {probe: true}}"
Answer = Callable[..., tuple[dict[str, float], Path]]


@pytest.fixture
def answer(
    experiment_file: Path, review_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Answer:
    """Trains at a silo with a policy; the numbers that leave, and the silo's state."""
    monkeypatch.setattr("hanse.planning.devices.profile.measure", lambda: PROFILE)
    monkeypatch.setattr(step_probes, "MOST_PROBES", 3)

    def train(*words: str, round: int = 1, **policy: object) -> tuple[dict[str, float], Path]:
        server = simulate(load(experiment_file, ["clients_per_pass=off", *words]))
        own = {"data_settings": ("template", "labels"), "min_examples": 1, **policy}
        rows, state = Rows(path=str(review_file)), tmp_path / "state"
        settings = SiloSettings(
            name="silo-1",
            server="127.0.0.1:1",
            data=rows,
            state=state,
            policy=Policy.model_validate(own),
        )
        model = hash_of(server.experiment.model.model_name_or_path)
        text = job_text(server.experiment)
        request = Request("train", round, 0, Instruction(server.learner.initial())).pack()
        envelope = Envelope("a1", text, server.dataset.digest, model or "", request=request)
        reply = Reply.parse(SiloReply.parse(SiloWorker(settings).answer(envelope.pack())).body)
        assert not reply.error
        return dict(reply.update.numbers), state

    return train


def of_machine(numbers: dict[str, float]) -> dict[str, float]:
    return {name: value for name, value in numbers.items() if name.startswith(PREFIX)}


def test_they_leave_with_the_scores_and_the_silo_keeps_what_has_left(
    answer: Answer, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    numbers, state = answer(PROBE, profile="allow", metrics=("loss",))
    figures = SiloFigures.read(numbers)
    assert figures is not None and len(figures.steps) == 3 and figures.layers == 2
    assert figures.float32 == PROFILE.float32 and figures.memory_held > 0
    assert of_machine(numbers) == figures.numbers() and "loss" in numbers
    kept = json_text.parse_object((state / FILE).read_bytes())
    assert kept == {"run": "a1", "numbers": of_machine(numbers)}
    assert "leave by policy.profile: 2 cores" in caplog.text


@pytest.mark.parametrize(
    ("words", "policy", "said"),
    [
        ((PROBE,), {"metrics": ("*",)}, "do not leave, by policy.profile: refuse"),
        (("algorithm=fedpipe",), {"profile": "allow"}, ""),
        ((), {"profile": "allow"}, ""),
    ],
)
def test_nothing_is_measured_where_the_policy_refuses_or_no_plan_asks(
    answer: Answer,
    monkeypatch: pytest.MonkeyPatch,
    words: tuple[str, ...],
    policy: dict[str, object],
    said: str,
) -> None:
    calls: list[object] = []
    monkeypatch.setattr(machine_figures, "measured", lambda *own: calls.append(own))
    numbers, state = answer(*words, **policy)
    assert not calls and numbers and not of_machine(numbers) and not (state / FILE).exists()
    log = state / "refusals.jsonl"
    assert said in (log.read_text(encoding="utf-8") if said else "")


def test_a_silo_that_has_started_anew_measures_nothing_while_its_link_is_timed(
    answer: Answer, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls: list[object] = []
    monkeypatch.setattr(machine_figures, "measured", lambda *own: calls.append(own))
    numbers, state = answer(PROBE, round=2, profile="allow")
    assert not calls and not of_machine(numbers) and not (state / FILE).exists()


def test_figures_tell_no_more_of_the_count_of_rows_than_its_rounding(
    answer: Answer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(step_probes, "MOST_PROBES", 8)
    words = ("num_clients=8", "train.per_device_train_batch_size=64")
    numbers, _ = answer(PROBE, *words, profile="allow", count_rounding=3)
    figures = SiloFigures.read(numbers)
    assert figures is not None and figures.mean == round(figures.mean)
    assert max(step.rows for step in figures.steps) == 4  # 7 rows, told as 6


@pytest.mark.parametrize("step", [1, 2, 3, 5, 10])
def test_silos_whose_counts_are_rounded_alike_measure_batches_of_the_same_size(step: int) -> None:
    sizes: dict[int, set[int]] = {}
    for count in range(1, 100):
        size = machine_figures._surely_there(count, step)
        assert 1 <= size <= count
        sizes.setdefault(rounded(count, step), set()).add(size)
    assert all(len(own) == 1 for own in sizes.values())


def test_no_pattern_of_numbers_lets_figures_leave() -> None:
    name = PREFIX + "cores"
    assert not Policy(metrics=("*", name)).allows_number(name)
    assert Policy(metrics=(), profile="allow").allows_number(name)


def test_a_silo_that_cannot_measure_itself_sends_its_scores(
    answer: Answer, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def fails(*words: object) -> None:
        raise RuntimeError("no memory is left")

    monkeypatch.setattr(step_probes, "probed", fails)
    numbers, state = answer(PROBE, profile="allow")
    assert numbers["loss"] > 0 and not of_machine(numbers) and not (state / FILE).exists()
    assert "this machine cannot be measured" in caplog.text


def test_a_measurement_that_failed_is_not_tried_again_in_a_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tries = []

    def fails(*words: object) -> None:
        tries.append(words)
        raise RuntimeError("no memory is left")

    monkeypatch.setattr(machine_figures, "measured", fails)
    learner = object.__new__(AdaptedModel)
    endpoint: Any = SimpleNamespace(context=lambda _: None, learner=lambda *_: learner)
    figures = MachineFigures(tmp_path, "run", rows=4)
    for number in (1, 2):
        sent = Reply("silo-1", "train", number, Update(numbers={"loss": 1.0})).pack()
        assert Reply.parse(figures.beside(sent, endpoint)).update.numbers == {"loss": 1.0}
    assert len(tries) == 1


def test_expected_seconds_of_others_are_not_sent_to_silos(
    experiment_file: Path, tmp_path: Path
) -> None:
    planned = load(experiment_file, ["algorithm={fedpipe: {expected_seconds: {silo-1: 3.0}}}"])
    text = job_text(planned)
    assert "expected_seconds" not in text and "fedpipe" in text
    received(text, silo(tmp_path / "home"))
