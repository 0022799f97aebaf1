"""Base models are in memory once for all who use them, however many clients a run has."""

import gc
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
from torch.nn import Parameter

from hanse.experiment.assembly import resources
from hanse.experiment.assembly.assemble import Simulation
from hanse.experiment.loading import load
from hanse.federation.client import respond
from hanse.simulation import in_process
from hanse.simulation import run as simulation
from samples import reviews, write_lines


def parameters() -> dict[int, int]:
    """The bytes of all parameters in this process, by the place of their memory."""
    gc.collect()
    alive = [thing for thing in gc.get_objects() if issubclass(type(thing), Parameter)]
    storages = [parameter.untyped_storage() for parameter in alive]
    return {storage.data_ptr(): storage.nbytes() for storage in storages}


@pytest.fixture
def loaded(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The names of the models that were loaded."""
    names: list[str] = []
    real = resources.load

    def counted(settings: Any, *more: Any) -> Any:
        names.append(settings.model_name_or_path)
        return real(settings, *more)

    monkeypatch.setattr(resources, "load", counted)
    return names


@pytest.fixture
def most(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[int]]:
    """The bytes of parameters after each answer of a client, beyond those before the test.

    What was there before is frozen, so that it is not looked through after each answer.
    """
    before = parameters().keys()
    sizes: list[int] = []
    gc.freeze()

    def measured(endpoint: Any, message: bytes) -> bytes:
        reply = respond(endpoint, message)
        sizes.append(sum(size for at, size in parameters().items() if at not in before))
        return reply

    monkeypatch.setattr(in_process, "respond", measured)
    yield sizes
    gc.unfreeze()


def run(file: Path, words: Sequence[str], monkeypatch: pytest.MonkeyPatch) -> Simulation:
    """A whole run; its parts."""
    made: list[Simulation] = []
    real = simulation.simulate

    def kept(*about: Any, **settings: Any) -> Simulation:
        made.append(real(*about, **settings))
        return made[-1]

    monkeypatch.setattr(simulation, "simulate", kept)
    simulation.run(load(file, ["rounds=2", *words]))
    return made[0]


def all_bytes(made: Simulation) -> int:
    """The bytes of each base model once, and of each kind of adapter in it once, in float32."""
    bases = made.resources.backbones
    adapters = [
        bases[at].adapters[name].every for (at, *_), name in made.resources.attached.items()
    ]
    trained = sum(parameter.numel() for adapter in adapters for parameter in adapter)
    return 4 * (trained + sum(backbone.weights for backbone in bases.values()))


def test_eight_clients_with_three_kinds_of_models_hold_three(
    experiment_file: Path,
    tiny_llama: Path,
    tiny_gpt2: Path,
    tiny_bert: Path,
    tmp_path: Path,
    loaded: list[str],
    most: list[int],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    models = [tiny_llama, tiny_gpt2, tiny_bert]
    own = [f"silo-{n + 1}: {{model: {{model_name_or_path: {models[n % 3]}}}}}" for n in range(8)]
    public = write_lines(tmp_path / "public.jsonl", reviews(8, seed=5))
    words = ["num_clients=8", "data.partition=iid", "algorithm=feddistill", "rounds=2"]
    words += [f"data.public={public}", f"clients={{{', '.join(own)}}}"]
    made = run(experiment_file, words, monkeypatch)
    assert sorted(loaded) == sorted(map(str, models))
    assert len({id(own.learner.backbone) for own in made.clients.values()}) == 3
    assert len(made.resources.attached) == 3
    assert len(most) == 8 * 3  # two rounds, and the scores after the last
    assert max(most) == all_bytes(made)


@pytest.mark.parametrize("mentor", ["llama", "gpt2"])
def test_mentor_and_mentee_are_loaded_once(
    experiment_file: Path,
    tiny_llama: Path,
    tiny_gpt2: Path,
    loaded: list[str],
    most: list[int],
    monkeypatch: pytest.MonkeyPatch,
    mentor: str,
) -> None:
    """A mentor on the mentee's base model adds an adapter alone."""
    path = {"llama": tiny_llama, "gpt2": tiny_gpt2}[mentor]
    beside = f"{{model_name_or_path: {path}, bf16: false, adapter: {{lora: {{r: 2}}}}}}"
    words = ["algorithm=fedkd", f"models={{mentor: {beside}}}", "num_clients=4"]
    made = run(experiment_file, words, monkeypatch)
    assert sorted(loaded) == sorted({str(tiny_llama), str(path)})
    mentors = [own.learner.models["mentor"] for own in made.clients.values()]
    assert len({id(one.backbone) for one in mentors}) == 1
    assert (mentors[0].backbone is made.learner.backbone) == (mentor == "llama")
    assert len(made.resources.attached) == 2
    assert max(most) == all_bytes(made)
