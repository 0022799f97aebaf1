"""A silo's own copy of the public rows: it has the server's hash, or the silo refuses."""

import json
from dataclasses import dataclass
from pathlib import Path

import pytest

from hanse.deployment.envelopes import Envelope, SiloReply
from hanse.deployment.silo.policy import Policy
from hanse.deployment.silo.settings import Rows, SiloSettings, load
from hanse.deployment.silo.worker import SiloWorker
from hanse.errors import UserError
from hanse.experiment.assembly.assemble import Simulation, simulate
from hanse.experiment.loading import load as load_experiment
from hanse.experiment.loading import outside_code
from hanse.federation.messages import Instruction, Reply, Request
from hanse.journal.yaml_text import dump
from samples import ROOT, reviews, write_lines

PART = ROOT / "tests" / "parts" / "public_hashes.py"


@dataclass
class World:
    """A server with public rows, and the files of a silo."""

    home: Path
    experiment: Path
    reviews: Path

    @property
    def public(self) -> Path:
        return self.home / "public.jsonl"

    def server(self, algorithm: str) -> Simulation:
        write_lines(self.public, reviews(24, seed=5))
        words = [f"algorithm={PART}:{algorithm}", f"data.public={self.public}"]
        return simulate(load_experiment(self.experiment, [*words, "clients_per_pass=off"]))

    def silo(self, copy: Path | None, algorithm: str = "PublicHashes") -> SiloWorker:
        policy = Policy(
            data_settings=("template", "labels"),
            count_rounding=1,
            min_examples=1,
            algorithms=(f"{PART}:{algorithm}",),
            metrics=("*",),
        )
        rows = Rows(path=str(self.reviews), public=None if copy is None else str(copy))
        state = self.home / "state"
        return SiloWorker(
            SiloSettings(name="silo-1", server="127.0.0.1:1", data=rows, state=state, policy=policy)
        )


@pytest.fixture
def world(tmp_path: Path, experiment_file: Path, review_file: Path) -> World:
    return World(tmp_path, experiment_file, review_file)


def envelope(server: Simulation) -> Envelope:
    request = Request("train", 1, 0, Instruction(server.learner.initial())).pack()
    settings = dump(server.experiment.resolved() | {"output_dir": None})
    dataset, code = server.dataset, json.dumps(outside_code(server.experiment))
    public = dataset.public.digest
    return Envelope("a1", settings, dataset.digest, code=code, public=public, request=request)


def test_the_same_rows_elsewhere_are_taken(world: World) -> None:
    server = world.server("PublicHashes")
    copy = write_lines(world.home / "copy.jsonl", reviews(24, seed=5))
    world.public.unlink()  # the server's path means nothing here
    answer = SiloReply.parse(world.silo(copy).answer(envelope(server).pack()))
    reply = Reply.parse(answer.body)
    assert (answer.error, reply.error) == ("", "")
    assert reply.update.numbers["public"] > 0
    assert answer.profile is not None
    assert answer.profile.examples == server.profiles[0].examples


def test_other_rows_are_refused_with_both_hashes(world: World) -> None:
    server = world.server("PublicHashes")
    copy = write_lines(world.home / "copy.jsonl", reviews(23, seed=5))
    silo = world.silo(copy)
    error = SiloReply.parse(silo.answer(envelope(server).pack())).error
    theirs = server.dataset.public.digest
    assert f"those of the server {theirs}; bring the same file" in error
    [own] = [word.strip(",") for word in error.split() if len(word.strip(",")) == 64]
    assert own != theirs
    assert not silo.resources.backbones, "no model was loaded"


def test_a_silo_without_a_copy_never_opens_the_servers_file(world: World) -> None:
    server = world.server("PublicHashes")
    error = SiloReply.parse(world.silo(None).answer(envelope(server).pack())).error
    assert "silo-1 has no copy of the experiment's public data; name it by data.public" in error


def test_public_rows_of_the_server_alone_concern_no_silo(world: World) -> None:
    server = world.server("PublicAtServer")
    silo = world.silo(None, "PublicAtServer")
    answer = SiloReply.parse(silo.answer(envelope(server).pack()))
    assert (answer.error, Reply.parse(answer.body).error) == ("", "")


def test_silo_yaml_names_a_file_beside_it(tmp_path: Path) -> None:
    write_lines(tmp_path / "own.jsonl", reviews(2))
    text = "name: a\nserver: 127.0.0.1:1\nstate: s\ndata: {path: own.jsonl, public: own.jsonl}\n"
    (tmp_path / "silo.yaml").write_text(text)
    rows = load(tmp_path / "silo.yaml").data
    assert rows.public == str(tmp_path / "own.jsonl")
    assert "public" not in rows.overrides
    (tmp_path / "silo.yaml").write_text(text.replace("public: own", "public: no"))
    with pytest.raises(UserError, match=r"data\.public: there is no 'no\.jsonl'"):
        load(tmp_path / "silo.yaml")
