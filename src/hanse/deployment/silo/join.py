"""A silo's process: a resident in it, and Flower's node beside it, until somebody stops it."""

import logging
import os
import secrets
import time

from huggingface_hub import constants

from hanse import atomic_files
from hanse.deployment.flower import home
from hanse.deployment.flower.processes import listens
from hanse.deployment.flower.supernode import FlowerNode
from hanse.deployment.silo.settings import SiloSettings
from hanse.deployment.silo.worker import SiloWorker
from hanse.deployment.sockets import Connection, Listener, listening
from hanse.errors import StoppedError, UserError, explained, terminable
from hanse.learners.models.model_files import CACHE
from hanse.observability.json_logs import LogFormat, console_lines, log_file
from hanse.observability.metrics_endpoint import Status, shown
from hanse.security.kits import SiloKit, open_silo

log = logging.getLogger(__name__)

IDLE = 1.0  # seconds between two looks at whether the node still runs
REACH = 30.0  # seconds without a letter, after which it is tried whether the server can be reached
REST = 2.0, 3.0  # seconds before a node is started again: at least, and at most so many more


def join(
    silo: SiloSettings, status_port: int | None = None, logs: LogFormat = LogFormat.TEXT
) -> None:
    """Take part in a server's runs until somebody stops it.

    status_port: where on this machine /healthz and /metrics are.
    """
    home.refuse_missing()
    kit = open_silo(silo.kit, silo.name) if silo.kit else None
    if kit is None:
        log.warning("without a kit nothing is encrypted or signed: for trying out on one machine")
    _tell_agreement(silo, kit)
    if not silo.hub:
        _offline()
    if silo.cache is not None:
        os.environ[CACHE] = str(silo.cache)
    with explained(silo.state):
        atomic_files.make(silo.state, private=True)
    with terminable(), atomic_files.alone(silo.state / "flower", "another `hanse join`"):
        atomic_files.sweep(silo.state)
        _join(silo, kit, status_port, logs)


def _offline() -> None:
    """Keep this process, and those that it starts, from asking a hub: for silo.yaml to allow."""
    os.environ |= dict.fromkeys(("HF_HUB_OFFLINE", "HF_DATASETS_OFFLINE"), "1")
    constants.HF_HUB_OFFLINE = True  # which was read from the environment when it was imported


def _tell_agreement(silo: SiloSettings, kit: SiloKit | None) -> None:
    """Say whether this silo trains only what others were sent, too; raises UserError if it cannot.

    Without an agreement nothing shows that a server sends each silo another model.
    """
    wanted, known = silo.policy.agreement, len(kit.silos) if kit else 0
    needed = silo.policy.min_cohort - 1
    if wanted == "never":
        log.warning("the agreement is off, by policy.agreement: the server alone says what is sent")
    elif known == 0 and wanted != "auto":
        raise UserError(
            f"{silo.name} requires an agreement, and its kit knows no other silo; run `hanse kit "
            "trust members.pub` with the file that the server's administrator sends."
        )
    elif known == 0:
        log.warning(
            "the agreement is off, since the kit knows no other silo: the server alone says what "
            "is sent; `hanse kit trust members.pub` lets it know them, and policy.agreement: "
            "require lets nothing be trained without"
        )
    elif known < needed:
        log.warning(
            "policy.min_cohort asks %d others to agree, and the kit knows %d", needed, known
        )
    else:
        log.info("the agreement is on: %d others of %d must have been sent the same", needed, known)


def _join(
    silo: SiloSettings, kit: SiloKit | None, status_port: int | None, logs: LogFormat
) -> None:
    resident = SiloWorker(silo, kit)
    node: FlowerNode | None = None

    def status() -> Status:
        well = node is None or node.alive
        facts = {**resident.about(), "starting": node is None, "node": node is not None and well}
        return Status(facts, well, [*resident.figures()])

    tls = (kit.authority, kit.node_key) if kit else ()
    with (
        console_lines(logs, resident.about),
        log_file(silo.state, resident.about),
        shown(status_port, status),
        listening() as listener,
    ):
        try:
            made = FlowerNode(silo.state / "flower", silo.server, listener, *tls)
            made.start()
            node = made
            _serve(resident, node, listener)
        except KeyboardInterrupt as by:
            raise StoppedError(
                f"stopped; what {silo.name} remembers is in {silo.state}, and the same command "
                "takes part again.",
                by,
            ) from None
        finally:
            if node is not None:
                node.stop()


def _serve(resident: SiloWorker, node: FlowerNode, listener: Listener) -> None:
    silo, heard, again = resident.silo, time.monotonic(), 0.0
    while True:
        if not node.alive and time.monotonic() >= again:
            log.warning("Flower's node has ended (%s); it is started again", node.last_output())
            node.start()
            # Not all at once, when a server comes back.
            again = time.monotonic() + REST[0] + REST[1] * secrets.randbelow(1000) / 1000
        line = listener.accept(IDLE)
        if line is not None:
            _answer(resident, line)
            heard = time.monotonic()
        elif time.monotonic() - heard > REACH:
            heard = time.monotonic() + secrets.randbelow(10)
            if not listens(silo.host, silo.port):
                log.warning("the server %s cannot be reached; trying again", silo.server)


def _answer(resident: SiloWorker, line: Connection) -> None:
    try:
        _, data = line.receive()
        line.send({}, resident.answer(data))
    except (EOFError, OSError) as error:
        log.warning("a message was lost: %s", error)
    finally:
        line.close()
