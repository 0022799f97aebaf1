"""A silo's process: a worker in it and Flower's node beside it, until the user stops it."""

import logging
import os
import secrets
import time
from pathlib import Path

from huggingface_hub import constants

from hanse import atomic_files
from hanse.audit.ownership.key import read
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

IDLE = 1.0  # seconds between two checks that the node still runs
REACH = 30.0  # seconds without a message, after which the connection to the server is tried
RESTART_AFTER = 2.0, 3.0  # seconds before a node is restarted: at least, and at most so many more


def join(
    silo: SiloSettings, status_port: int | None = None, logs: LogFormat = LogFormat.TEXT
) -> None:
    """Take part in a server's runs until the user stops the process.

    status_port: the port of /healthz and /metrics on this machine.
    """
    home.refuse_missing()
    kit = open_silo(silo.kit, silo.name) if silo.kit else None
    if kit is None:
        log.warning("without a kit nothing is encrypted or signed: for trying out on one machine")
    _log_agreement(silo, kit)
    if silo.ownership is not None:
        key = read(Path(silo.ownership.key))
        log.info("marks what it trains as %s's, by the key %s…", key.owner, key.commitment[:16])
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
    """Keep this process and its children from asking a hub, which silo.yaml does not allow."""
    os.environ |= dict.fromkeys(("HF_HUB_OFFLINE", "HF_DATASETS_OFFLINE"), "1")
    constants.HF_HUB_OFFLINE = True  # it was read from the environment at its import


def _log_agreement(silo: SiloSettings, kit: SiloKit | None) -> None:
    """Log whether the agreement is on; raises UserError if the policy requires an impossible one.

    Without an agreement a server could send each silo another model unnoticed.
    """
    setting, known = silo.policy.agreement, len(kit.silos) if kit else 0
    needed = silo.policy.min_cohort - 1
    if setting == "never":
        log.warning("the agreement is off, by policy.agreement: the server alone says what is sent")
    elif known == 0 and setting != "auto":
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
    worker = SiloWorker(silo, kit)
    node: FlowerNode | None = None

    def status() -> Status:
        healthy = node is None or node.alive
        facts = {**worker.about(), "starting": node is None, "node": node is not None and healthy}
        return Status(facts, healthy, [*worker.figures()])

    tls = (kit.authority, kit.node_key) if kit else ()
    with (
        console_lines(logs, worker.about),
        log_file(silo.state, worker.about),
        shown(status_port, status),
        listening() as listener,
    ):
        try:
            started = FlowerNode(silo.state / "flower", silo.server, listener, *tls)
            started.start()
            node = started
            _serve(worker, node, listener)
        except KeyboardInterrupt as by:
            raise StoppedError(
                f"stopped; what {silo.name} remembers is in {silo.state}, and the same command "
                "takes part again.",
                by,
            ) from None
        finally:
            if node is not None:
                node.stop()


def _serve(worker: SiloWorker, node: FlowerNode, listener: Listener) -> None:
    """Answer messages, restart a node that has ended, and warn if the server is out of reach."""
    silo, active_at, restart_at = worker.silo, time.monotonic(), 0.0
    while True:
        if not node.alive and time.monotonic() >= restart_at:
            log.warning("Flower's node has ended (%s); it is started again", node.last_output())
            node.start()
            least, spread = RESTART_AFTER  # random, so that silos do not all come back at once
            restart_at = time.monotonic() + least + spread * secrets.randbelow(1000) / 1000
        connection = listener.accept(IDLE)
        if connection is not None:
            _reply_over(worker, connection)
            active_at = time.monotonic()
        elif time.monotonic() - active_at > REACH:
            active_at = time.monotonic() + secrets.randbelow(10)
            if not listens(silo.host, silo.port):
                log.warning("the server %s cannot be reached; trying again", silo.server)


def _reply_over(worker: SiloWorker, connection: Connection) -> None:
    """Reply to the one message that comes over a connection, and close it."""
    try:
        _, data = connection.receive()
        connection.send({}, worker.answer(data))
    except (EOFError, OSError) as error:
        log.warning("a message was lost: %s", error)
    finally:
        connection.close()
