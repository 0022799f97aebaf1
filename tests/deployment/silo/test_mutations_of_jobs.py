"""Changed jobs and silo.yaml files: refused in one sentence, or within the policy."""

import json
import random
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from experiment.test_mutations import Draw, holder, mutant, places
from hanse.deployment.silo import settings
from hanse.deployment.silo.job import Job, JobRefusedError, RowCounts, received
from hanse.deployment.silo.settings import SiloSettings
from hanse.errors import UserError
from hanse.experiment.loading import load
from hanse.experiment.schema import Experiment
from hanse.journal.yaml_text import dump
from policy_checks import refusals

JOBS, SILOS = 1000, 200
LONGEST = 2.0  # seconds of the processor that one may take
ROWS = RowCounts(100, 20)
MODEL = "0" * 64
POLICY = {
    "models": [MODEL],
    "algorithms": ["fedavg", "fedprox"],
    "adapters": ["lora"],
    "objectives": ["classify"],
    "max_rounds": 3,
    "max_steps": 20,
    "max_batch_size": 32,
    "max_examples": 160,
}
OPEN = ("train", "data", "model")  # sections of which a single setting can be changed
SECRET = "/secret/place"
# Places of an experiment, and values there that this policy, or the silo, forbids.
FORBIDDEN: tuple[tuple[str, Any], ...] = (
    ("rounds", 4),
    ("rounds", 10**6),
    ("algorithm", "scaffold"),
    ("algorithm", {"evil.py:Evil": {}}),
    ("algorithm", {"fedper": {"share": ["(a+)+$"]}}),
    ("objective", "sft"),
    ("aggregator", "evil.py:Evil"),
    ("adapter", {"ia3": {}}),
    ("adapter", {"from": SECRET}),
    ("adapter", {"lora": {}, "bitfit": {}}),
    ("adapter", {"peft": {"method": "loha", "settings": {"r": 10**6}}}),
    ("adapter", {"lora": {"target_modules": "(a|a)*b"}}),
    ("model", {"model_name_or_path": SECRET}),
    ("model", {"model_name_or_path": "someone/model"}),
    ("train", {"max_steps": 21}),
    ("train", {"max_steps": None, "num_train_epochs": 50}),
    ("train", {"per_device_train_batch_size": 33}),
    ("train", {"per_device_train_batch_size": 32, "gradient_accumulation_steps": 30}),
    ("data", {"filter": {"text": "this person"}}),
    ("data", {"columns": {"text": "name"}}),
    ("data", {"template": "{text}{text:>3000000000}"}),
    ("data", {"labels": {"good": "yes"}}),
    ("data", {"partition": {"cluster": {"encoder": SECRET}}}),
    ("evaluation", {"tasks": [{"generation": {"costly": False}}]}),
    ("evaluation", {"tasks": [{"classification": {"batch_size": 33}}]}),
    ("evaluation", {"tasks": ["evil.py:Evil"]}),
    ("participants", ["silo-1"]),
    ("fraction_train", 0.01),
)


@pytest.fixture
def mine(tmp_path: Path) -> SiloSettings:
    (tmp_path / "own.jsonl").write_text('{"text": "a film", "label": "good"}\n')
    values = {"name": "silo-1", "server": "127.0.0.1:8000", "state": "state", "policy": POLICY}
    values["data"] = {"path": "own.jsonl", "template": "Review: {text}\nSentiment:"}
    (tmp_path / "silo.yaml").write_text(yaml.safe_dump(values))
    return settings.load(tmp_path / "silo.yaml")


@pytest.fixture
def jobs(experiment_file: Path) -> list[str]:
    """Experiments within the policy, as a server sends them."""
    told = load(experiment_file).resolved()
    brief = yaml.safe_load(experiment_file.read_text())  # which is faster, and as good to change
    own = {
        name: {"data": {"path": name}, "train": {"max_steps": 2}} for name in ("silo-1", "north")
    }
    return [
        dump(told),
        dump({**told, "clients": own}),
        dump({**brief, "clients": {"silo-1": {"train": {"learning_rate": 0.1}}}}),
        dump({**brief, "algorithm": {"fedprox": {"mu": 0.1}}}),
        dump({**brief, "evaluation": {"tasks": ["classification"], "clients": False}}),
        dump({**brief, "clients": own, "deployment": {"quorum": 2, "deadline": 9}}),
        dump({**brief, "participants": ["silo-1", "silo-2"], "seed": 7}),
    ]


def accepted(text: str, silo: SiloSettings, model: str) -> Job | None:
    """The job if a silo takes it; only JobRefusedError may come instead, and not late."""
    begun, said = time.process_time(), ""
    try:
        job = received(text, silo)
        here = MODEL if job.experiment.model.model_name_or_path == model else None
        return None if refusals(silo.policy, job, here, ROWS) else job
    except JobRefusedError as refused:
        said = str(refused)
        return None
    finally:
        assert len(said) < 5000, text
        assert time.process_time() - begun < LONGEST, text


def offences(job: Job, silo: SiloSettings, model: str) -> Iterator[str]:
    """What an accepted job would do against the policy, found apart from the law."""
    run = job.experiment
    if run.for_client(silo.name) is not run and run.for_client(silo.name).resolved() != {
        **run.resolved(),
        "clients": {},
        "participants": None,
    }:
        yield "another experiment is run than was judged"
    values = run.resolved()
    steps = run.train.steps(ROWS.train)
    limits: dict[str, bool] = {
        "rounds": values["rounds"] <= 3,
        "steps": steps <= 20,
        "batch": values["train"]["per_device_train_batch_size"] <= 32,
        "scored": not run.evaluation.clients or max(_widths(values)) <= 32,
        "seen": run.train.examples_per_round(ROWS.train) <= 160,
        "algorithm": {*values["algorithm"]} <= {"fedavg", "fedprox"},
        "adapter": {*values["adapter"]} == {"lora"},
        "objective": {*values["objective"]} == {"classify"},
        "model": values["model"]["model_name_or_path"] == model,
        "rows": values["data"]["path"] == silo.data.path,
        "row settings": not values["data"]["filter"] and not values["data"]["columns"],
        "template": values["data"]["template"] == silo.data.template,
        "labels": not values["data"]["labels"],
        "cohort": job.cohort >= 2,
        "place": SECRET not in dump(values) and "Evil" not in dump(values),
    }
    yield from (what for what, held in limits.items() if not held)


def _widths(values: Any) -> list[int]:
    """Batch sizes of the tasks; 32 where none is named."""
    tasks = [task for task in values["evaluation"]["tasks"] or [] if isinstance(task, dict)]
    return [32, *(inner.get("batch_size", 32) for task in tasks for inner in task.values())]


def forbid(text: str, draw: Draw) -> str:
    """The experiment with something forbidden at the top, for this client, or in both places."""
    told = yaml.safe_load(text)
    key, value = draw.choice(FORBIDDEN)
    at_top, allowed = draw.random() < 0.7, told.get(key)
    if at_top:
        told[key] = {**allowed, **value} if isinstance(allowed, dict) and key in OPEN else value
        over = {} if allowed is None else {key: allowed}
    else:
        over = {key: value}
    if not at_top or draw.random() < 0.5:
        clients = dict(told.get("clients") or {})
        mine = dict(clients.get("silo-1") or {})
        told["clients"] = {**clients, "silo-1": {**mine, **over}}
    return dump(told)


def _participants(number: int) -> str:
    """The last ones of a million clients."""
    return "".join(f"- silo-{1_000_000 - n:07d}\n" for n in range(number))


HOSTILE = (
    lambda text: text + "\nx: " + "[" * 20_000,
    lambda text: text + "\nx: " + "{a: " * 3_000,
    lambda text: text + "".join(f"\nk{n}: 1" for n in range(10_000)),
    lambda text: text.replace("rounds: 3", "rounds: " + "9" * 5000),
    lambda text: text.replace("rounds: 3", "rounds: 0x" + "f" * 200_000),
    lambda text: text.replace("rounds: 3", "rounds: 1_0" + ":59" * 20_000),
    lambda text: text.replace("fedavg", "f" * 100_000),
    lambda text: "&a " + text + "\nb: *a",
    lambda text: text + "\nclients: {silo-1: {train: " + json.dumps({"a" * 1000: 1}) + "}}",
    lambda text: text + "\n? {a: b}\n: c",
    lambda text: text + "\n!!python/object/apply:os.system ['true']: 1",
    lambda text: text.replace("rounds: 3", "rounds: !!binary aaaa"),
    lambda text: text.replace("rounds: 3", "rounds: 2001-13-45"),
    lambda text: (
        text.replace("num_clients: 3", "num_clients: 1000000")
        .replace("participants: null", "participants:")
        .replace("report_to:", _participants(2_000) + "report_to:")
    ),
    lambda text: text.encode("utf-16").decode("utf-16").replace("a", "\ud800"),
)


def test_the_jobs_are_within_the_policy(
    jobs: list[str], mine: SiloSettings, tiny_llama: Path
) -> None:
    for text in jobs:
        job = accepted(text, mine, str(tiny_llama))
        assert job is not None
        assert list(offences(job, mine, str(tiny_llama))) == []


def test_a_mutated_job_is_refused_or_within_the_policy(
    jobs: list[str], mine: SiloSettings, tiny_llama: Path
) -> None:
    draw, model = random.Random(0), str(tiny_llama)
    kinds: tuple[Callable[[str], str], ...] = (
        lambda text: mutant(text, draw),
        lambda text: forbid(text, draw),
        lambda text: mutant(forbid(text, draw), draw),
    )
    taken = 0
    for number in range(JOBS):
        text = kinds[number % 3](draw.choice(jobs))
        try:
            job = accepted(text, mine, model)
        except UserError as error:
            pytest.fail(f"mutant {number} was not refused but raised {error!r}:\n{text}")
        if job is not None:
            taken += 1
            assert list(offences(job, mine, model)) == [], text
    assert 50 < taken < JOBS / 2


@pytest.mark.parametrize("number", range(len(HOSTILE)))
def test_a_hostile_job_is_refused_in_time(
    jobs: list[str], mine: SiloSettings, tiny_llama: Path, number: int
) -> None:
    assert accepted(HOSTILE[number](jobs[0]), mine, str(tiny_llama)) is None


@pytest.mark.parametrize("number", range(len(FORBIDDEN)))
@pytest.mark.parametrize("place", ["top", "client", "top, and allowed for the client"])
def test_each_forbidden_thing_alone(
    jobs: list[str], mine: SiloSettings, tiny_llama: Path, number: int, place: str
) -> None:
    """It is refused, or it does not reach the experiment that is run."""
    told, (key, value) = yaml.safe_load(jobs[0]), FORBIDDEN[number]
    allowed = {key: told[key]} if told.get(key) is not None else {}
    if place.startswith("top"):
        told[key] = {**told[key], **value} if key in OPEN else value
    if place != "top":
        told["clients"] = {"silo-1": allowed if place.startswith("top") else {key: value}}
    job = accepted(dump(told), mine, str(tiny_llama))
    assert job is None or list(offences(job, mine, str(tiny_llama))) == []


def test_a_mutated_silo_file_loads_or_is_met_with_one_sentence(tmp_path: Path) -> None:
    (tmp_path / "own.jsonl").write_text('{"text": "a film", "label": "good"}\n')
    (tmp_path / "mine.py").write_text("")
    original = {
        "name": "north",
        "server": "fl.example.org:8000",
        "kit": "kit",
        "data": {
            "path": "own.jsonl",
            "columns": {"text": "t"},
            "filter": {"ward": "a"},
            "template": "{text}?",
            "labels": {"good": "yes"},
            "client_test": 0.2,
        },
        "state": "state/north",
        "model": "smollm2-135m",
        "cache": "none",
        "hub": False,
        "checkpoint_seconds": 30,
        "policy": {
            **POLICY,
            "algorithms": ["fedavg", "mine.py:Mine"],
            "metrics": ["loss", "*_seconds"],
            "privacy": {"clip": 1.0, "epsilon": 8},
            "agreement": "always",
            "data_settings": ["filter"],
        },
    }
    text, draw, wrong = yaml.safe_dump(original, sort_keys=False), random.Random(1), 0
    file = tmp_path / "silo.yaml"
    file.write_text(text)
    settings.load(file)
    for number in range(SILOS):
        changed = mutant(text, draw)
        file.write_text(changed, encoding="utf-8", errors="surrogatepass")
        begun = time.process_time()
        try:
            loaded = settings.load(file)
        except UserError as error:
            wrong, said = wrong + 1, str(error)
        except Exception as error:
            pytest.fail(f"mutant {number} raised {error!r}:\n{changed}")
        else:
            said = loaded.name
        assert "\n" not in said and len(said) < 5000, changed
        assert time.process_time() - begun < LONGEST, changed
    assert SILOS / 2 < wrong < SILOS


def test_every_setting_can_be_mutated(jobs: list[str]) -> None:
    """So that a new section is fuzzed, too."""
    values = yaml.safe_load(jobs[1])
    assert {place[0] for place in places(values)} == set(Experiment.model_fields)
    assert holder(values, ("train", "max_steps"))["max_steps"] == 3
