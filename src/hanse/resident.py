"""A silo's side of a run: it stays in memory from round to round, and answers letters.

What a server sends are settings and tensors. The settings are read with our own model of an
experiment; which rows are read and where the model lies is for `silo.yaml` to say.
"""

import logging
import secrets
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml
from pydantic import ValidationError

import hanse
from hanse import loading, settings
from hanse.assembly import simulate
from hanse.client import Site, respond
from hanse.division import Division
from hanse.errors import UserError
from hanse.experiment import Experiment
from hanse.faults import explain
from hanse.held import Machine
from hanse.learners.precision import read
from hanse.memory import LostMemory
from hanse.messages import MessageError, Reply, Request
from hanse.runtimes.flower_children import listens
from hanse.runtimes.flower_node import FlowerNode
from hanse.runtimes.frames import Door, Line, door
from hanse.runtimes.letters import WHO, Answer, Letter, RefusedError
from hanse.silo.settings import Silo

log = logging.getLogger(__name__)

IDLE = 1.0  # seconds between two looks at whether the node still runs
REACH = 30.0  # seconds without a letter, after which it is tried whether the server can be reached


@dataclass
class Resident:
    """One silo in memory: its base models, its rows, its client memory, and the run it is in."""

    silo: Silo
    held: Machine = field(default_factory=Machine)
    session: str = field(default_factory=lambda: secrets.token_hex(8))
    _site: Site | None = None
    _for: tuple[str, str] = ("", "")  # the run and settings that the site was made for

    def answer(self, data: bytes) -> bytes:
        """The answer to a letter, or to the question who is here."""
        if data == WHO:
            return Answer(self.silo.name, self.session).pack()
        try:
            letter = Letter.parse(data)
            site = self._made(letter)
            body = self._replied(site, letter.request) if letter.request else b""
        except UserError as error:
            log.warning("refused: %s", error)
            return Answer(self.silo.name, self.session, error=str(error)).pack()
        return Answer(self.silo.name, self.session, site.profile, body=body).pack()

    def _made(self, letter: Letter) -> Site:
        """The silo's side of a run, made when the run or its settings are new."""
        if letter.version != hanse.__version__:
            raise RefusedError(
                f"the server has hanse {letter.version}, this silo {hanse.__version__}; "
                "install the same."
            )
        wanted = (letter.run, letter.settings)
        if self._site is None or self._for != wanted:
            log.info("run %s: loading", letter.run)
            self._site = None
            self._site = site(self.silo, letter, self.held)
            self._for = wanted
        return self._site

    def _replied(self, site: Site, message: bytes) -> bytes:
        start = time.perf_counter()
        try:
            request = Request.parse(message)
        except MessageError as error:
            raise RefusedError(f"the request cannot be read: {error}.") from None
        try:
            reply = respond(site, message)
        except LostMemory as error:
            reply = Reply(self.silo.name, request.kind, request.round, error=str(error)).pack()
        took = time.perf_counter() - start
        log.info("round %d: answered %s in %.1f s", request.round, request.kind, took)
        return reply


def site(silo: Silo, letter: Letter, held: Machine) -> Site:
    """A silo's side of the run that a letter is about."""
    values = _parsed(letter.settings)
    experiment = _own(silo, values["experiment"])
    if values.get("precision"):
        held.chosen |= read({experiment.model.noted: values["precision"]})
    name = silo.name
    if name not in experiment.participant_names:
        raise UserError(f"{name} is no client of this experiment.")
    division = held.division(experiment)
    if not experiment.brings_own_data and division.digest != values.get("rows"):
        raise UserError(
            f"the rows in {silo.data.path} are not those that the server divides among its "
            "silos; bring the same file, or give each silo its own in the experiment's clients."
        )
    mine = Division([], [], division.train, division.held, division.labels, division.digest)
    made = simulate(experiment, held, mine, only=(name,))
    return made.site(silo.state / "runs" / letter.run, name)


def _parsed(text: str) -> dict[str, Any]:
    """The settings in a letter as plain values."""
    try:
        values = yaml.safe_load(text)
    except settings.UNREADABLE:
        values = None
    if not isinstance(values, dict) or not isinstance(values.get("experiment"), dict):
        raise RefusedError("the settings in the letter cannot be read.")
    return values


def _own(silo: Silo, values: dict[str, Any]) -> Experiment:
    """The experiment as this silo takes part in it, with its own rows and model."""
    try:
        asked = Experiment.model_validate(values)
        loading.refuse_foreign(asked)
        rows = silo.data.overrides
        if asked.brings_own_data:
            over = settings.merge(asked.clients.get(silo.name, {}), {"data": rows})
            values = {**values, "clients": {silo.name: over}, "participants": None}
        else:
            if "client_test" in rows:
                raise UserError(
                    "silo.yaml has data.client_test, but here one file is divided among all "
                    "silos, which hold out alike; leave it out."
                )
            template = rows.pop("template", None)
            values = settings.merge(values, {"data": rows})
            if template:
                over = {silo.name: {"data": {"template": template}}}
                values = settings.merge(values, {"clients": over})
        if silo.model:
            values = settings.merge(values, {"model": {"model_name_or_path": silo.model}})
        return Experiment.model_validate(values)
    except ValidationError as error:
        raise RefusedError(f"the server's settings: {explain(error, Experiment)}") from None


def join(silo: Silo) -> None:
    """Take part in a server's runs until somebody stops it."""
    resident = Resident(silo)
    with door() as entrance:
        node = FlowerNode(silo.state / "flower", silo.server, entrance)
        try:
            _serve(silo, resident, node, entrance)
        finally:
            node.stop()


def _serve(silo: Silo, resident: Resident, node: FlowerNode, entrance: Door) -> None:
    heard, again = time.monotonic(), 0.0
    while True:
        if not node.alive and time.monotonic() >= again:
            if again:
                log.warning("Flower's node has ended (%s); it is started again", node.last()[-200:])
            node.start()
            # So that silos do not come back all at once after a server's restart.
            again = time.monotonic() + 2 + secrets.randbelow(3000) / 1000
        line = entrance.enter(IDLE)
        if line is not None:
            _answer(resident, line)
            heard = time.monotonic()
        elif time.monotonic() - heard > REACH:
            heard = time.monotonic() + secrets.randbelow(10)
            if not listens(silo.host, silo.port):
                log.warning("the server %s cannot be reached; trying again", silo.server)


def _answer(resident: Resident, line: Line) -> None:
    try:
        _, data = line.receive()
        line.send({}, resident.answer(data))
    except (EOFError, OSError) as error:
        log.warning("a message was lost: %s", error)
    finally:
        line.close()
