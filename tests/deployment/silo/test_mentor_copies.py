"""Models beside the trained one at a silo: its own folders, within its policy, or a refusal."""

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import pytest

from hanse.deployment.envelopes import Envelope, SiloReply
from hanse.deployment.server.job_text import job_text
from hanse.deployment.silo.guard import Guard
from hanse.deployment.silo.job import JobRefusedError
from hanse.deployment.silo.policy import Policy
from hanse.deployment.silo.settings import Rows, SiloSettings, load
from hanse.deployment.silo.worker import SiloWorker
from hanse.errors import UserError
from hanse.experiment.assembly.assemble import Simulation, simulate
from hanse.experiment.loading import load as load_experiment
from hanse.experiment.loading import outside_code
from hanse.federation.client import respond
from hanse.federation.messages import Instruction, Reply, Request
from hanse.journal import yaml_text
from hanse.learners.models.model_hash import model_hash
from samples import ROOT

PART = f"{ROOT / 'tests' / 'parts' / 'mentors.py'}:Mentored"
LORA = "adapter: {lora: {r: 2}}"


@dataclass
class World:
    """An experiment with a mentor, and silo-1."""

    home: Path
    experiment: Path
    reviews: Path
    models: dict[str, Path]

    def server(self, mentor: str, *words: str) -> Simulation:
        text = f"algorithm: '{PART}'\nmodels: {{mentor: {{bf16: false, {mentor}}}}}\n"
        self.experiment.write_text(self.experiment.read_text() + text)
        return simulate(load_experiment(self.experiment, [*words, "clients_per_pass=off"]))

    def silo(self, folders: dict[str, str], **policy: Any) -> SiloWorker:
        trusting: dict[str, Any] = {"data_settings": ("template", "labels"), "count_rounding": 1}
        limits = Policy(
            **trusting | {"min_examples": 1, "algorithms": (PART,), "metrics": ("*",)} | policy
        )
        rows, state = Rows(path=str(self.reviews)), self.home / "state"
        own: dict[str, Any] = {"data": rows, "state": state, "models": folders, "policy": limits}
        return SiloWorker(SiloSettings(name="silo-1", server="127.0.0.1:1", **own))


@pytest.fixture
def world(
    tmp_path: Path, experiment_file: Path, review_file: Path, tiny_llama: Path, tiny_gpt2: Path
) -> World:
    models = {"llama": tiny_llama, "gpt2": tiny_gpt2}
    return World(tmp_path, experiment_file, review_file, models)


def answered(silo: SiloWorker, server: Simulation) -> SiloReply:
    request = Request("train", 1, 0, Instruction(server.learner.initial())).pack()
    text, dataset = job_text(server.experiment), server.dataset
    code = json.dumps(outside_code(server.experiment))
    envelope = Envelope("a1", text, dataset.digest, code=code, request=request)
    return SiloReply.parse(silo.answer(envelope.pack()))


def test_the_silos_own_folder_takes_the_place_of_the_servers(world: World) -> None:
    server = world.server(f"model_name_or_path: {world.models['llama']}, {LORA}")
    silo = world.silo({"mentor": str(world.models["gpt2"])})
    answer = answered(silo, server)
    reply = Reply.parse(answer.body)
    assert (answer.error, reply.error) == ("", "")
    assert reply.update.numbers["mentor_loss"] > 0
    assert {loaded[0] for loaded in silo.resources.backbones} == {*map(str, world.models.values())}
    assert reply.update.tensors.keys() == server.learner.parameters().keys()


def test_a_silo_has_the_same_result_as_its_simulation(world: World) -> None:
    server = world.server(f"model_name_or_path: {world.models['gpt2']}, {LORA}")
    endpoint = server.endpoint(world.home / "memories", "silo-1")
    request = Request("train", 1, 0, Instruction(server.learner.initial())).pack()
    expected = Reply.parse(respond(endpoint, request)).update.numbers["mentor_loss"]
    found = Reply.parse(answered(world.silo({}), server).body).update.numbers["mentor_loss"]
    assert found == expected


@pytest.mark.parametrize(
    ("models", "policy", "said"),
    [
        (
            {"mentor": "/no/such/folder"},
            {},
            r"and `models.mentor` in its silo.yaml names the right",
        ),
        ({"mentor": "owner/name"}, {}, "models.mentor, 'owner/name', is not on its machine"),
        ({}, {"adapters": ("bottleneck",)}, "the adapter lora is not among bottleneck"),
    ],
)
def test_what_the_silo_cannot_or_may_not_use_is_refused(
    world: World, models: dict[str, str], policy: dict[str, Any], said: str
) -> None:
    server = world.server(f"model_name_or_path: {world.models['gpt2']}, {LORA}")
    silo = world.silo(models, **policy)
    assert said in answered(silo, server).error
    assert not silo.resources.backbones, "no model was loaded"


def test_the_policy_on_models_holds_for_every_one(world: World) -> None:
    server = world.server(f"model_name_or_path: {world.models['gpt2']}, {LORA}")
    llama, gpt2 = (model_hash(folder) for folder in world.models.values())
    error = answered(world.silo({}, models=(llama,)), server).error
    assert f"models.mentor, '{world.models['gpt2']}', has the hash {gpt2}" in error
    assert answered(world.silo({}, models=(llama, gpt2)), server).error == ""


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"adapter": {"lora": {"target_modules": "(a|a)*b"}}}, "target_modules came as '(a|a)*b'"),
        ({"adapter": {"from": "/etc"}}, "to go on from a folder of this machine"),
        ("/etc/passwd", "models.mentor is '/etc/passwd', which is no section"),
    ],
)
def test_what_a_server_may_not_name_is_refused(world: World, settings: Any, said: str) -> None:
    server = world.server(f"model_name_or_path: {world.models['gpt2']}, {LORA}")
    values = yaml_text.parse(job_text(server.experiment), "a job")
    values["clients"] = {"silo-1": {"models": {"mentor": settings}}}
    silo = world.silo({})
    with pytest.raises(JobRefusedError) as refused:
        Guard(silo.silo, None, "run").check_job(
            yaml_text.dump(values).encode(), code=outside_code(server.experiment)
        )
    assert said in str(refused.value)


def test_models_of_the_server_alone_are_not_sent(world: World) -> None:
    text = f"models: {{mentor: {{model_name_or_path: {world.models['gpt2']}}}}}\n"
    world.experiment.write_text(world.experiment.read_text() + text)
    words = [f"algorithm={PART}Server", f"data.public={world.reviews}"]
    experiment = load_experiment(world.experiment, words)
    assert yaml_text.parse(job_text(experiment), "a job")["models"] == {}


def test_a_mentor_from_a_former_adapter_cannot_be_sent(world: World) -> None:
    server = world.server(f"model_name_or_path: {world.models['gpt2']}, {LORA}")
    mentor = server.clients["silo-1"].learner.models["mentor"]
    mentor.save(world.home / "former")
    experiment = load_experiment(
        world.experiment, [f"models.mentor.adapter={{from: {world.home / 'former'}}}"]
    )
    with pytest.raises(UserError, match=r"models\.mentor\.adapter goes on from .*a fresh adapter"):
        job_text(experiment)


def test_silo_yaml_names_folders_beside_it(tmp_path: Path) -> None:
    (tmp_path / "mentor").mkdir()
    (tmp_path / "own.jsonl").write_text('{"text": "a"}\n')
    (tmp_path / "silo.yaml").write_text(
        "name: a\nserver: 127.0.0.1:1\nstate: s\ndata: {path: own.jsonl}\n"
        "models: {mentor: mentor, other: smollm2-135m}\n"
    )
    models = load(tmp_path / "silo.yaml").models
    assert models == {"mentor": str(tmp_path / "mentor"), "other": "smollm2-135m"}


def test_a_restarted_silo_computes_as_before(world: World) -> None:
    """Whatever a second measurement says, and whatever the server's models do."""
    words = ["models.mentor.bf16=auto"]
    server = world.server(f"model_name_or_path: {world.models['gpt2']}, {LORA}", *words)
    first = world.silo({})
    assert answered(first, server).error == ""
    [file] = (world.home / "state" / "runs").rglob("precision.json")
    noted = json.loads(file.read_text())
    key = server.experiment.models["mentor"].compute_mode_key
    assert noted[key] == asdict(first.resources.compute_modes[key])
    noted[key] = {"bf16": not noted[key]["bf16"], "plain_attention": False}
    file.write_text(json.dumps(noted))
    again = world.silo({})
    assert answered(again, server).error == ""
    bf16 = {Path(b.name).name: b.bf16 for b in again.resources.backbones.values()}
    assert bf16 == {"tiny-gpt2": noted[key]["bf16"], "tiny-llama": False}
    assert json.loads(file.read_text()) == noted
