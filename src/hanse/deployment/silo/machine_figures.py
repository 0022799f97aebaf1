"""The figures of a silo's machine, in its reply to a probe that plans are made from."""

import json
import logging
from dataclasses import dataclass, replace
from pathlib import Path

from hanse import atomic_files
from hanse.deployment.silo.enforcement import PolicyEnforcer, rounded
from hanse.experiment.schema import Experiment, build_algorithm
from hanse.federation.algorithms.fedpipe import FedPipe, matrices
from hanse.federation.client import ClientEndpoint
from hanse.federation.messages import Reply
from hanse.federation.speed.link_rounds import link_round
from hanse.lazy_imports import lazy_imports
from hanse.learners.adapted_model import AdaptedModel
from hanse.observability.requests import log_event
from hanse.planning.devices.silo_figures import SiloFigures, StepFigures

with lazy_imports():
    from hanse.planning.devices import profile
    from hanse.planning.fedpipe import choices, importance_round, step_probes

log = logging.getLogger(__name__)

FILE = "machine-figures.json"  # in the silo's state: what was sent last


@dataclass
class MachineFigures:
    """Adds the figures of this machine to the replies of a run. folder: the silo's state."""

    folder: Path
    run: str
    rows: int  # of a batch, at most
    rounding: int = 1  # of counts of rows that leave
    _numbers: dict[str, float] | None = None

    def beside(self, data: bytes, endpoint: ClientEndpoint) -> bytes:
        """The reply with the figures, if it is one to a training; they are measured once.

        It is the reply as it was if they cannot be measured, which the silo's log says. A reply
        that times the link has none: a silo that has started anew would measure them in that time.
        """
        reply = Reply.parse(data)
        if reply.kind != "train" or reply.error or link_round(reply.round) is not None:
            return data
        if self._numbers is None:
            learner = endpoint.learner(endpoint.context(reply.round), {})
            assert isinstance(learner, AdaptedModel)  # the only kind of learner of a silo
            try:
                figures = measured(learner, self.rows, self.rounding)
            except Exception:  # such as too little memory; the scores are there already
                log.exception("this machine cannot be measured; no figures of it leave in this run")
                self._numbers = {}
                return data
            self._numbers = figures.numbers()
            self._note(figures, self._numbers)
        numbers = {**reply.update.numbers, **self._numbers}
        return replace(reply, update=replace(reply.update, numbers=numbers)).pack()

    def _note(self, figures: SiloFigures, numbers: dict[str, float]) -> None:
        """Keep the figures in the silo's state, and say what leaves."""
        sent, file = {"run": self.run, "numbers": numbers}, self.folder / FILE
        atomic_files.write(file, json.dumps(sent, indent=1).encode(), private=True)
        memory, steps = figures.memory_free / 1e9, len(figures.steps)
        text = (
            "this machine's figures leave by policy.profile: %g cores, %.3g GB free, %d steps; %s"
        )
        log.info(text, figures.cores, memory, steps, file)
        log_event("measured", text, figures.cores, memory, steps, file)


def of_job(experiment: Experiment, enforcer: PolicyEnforcer) -> MachineFigures | None:
    """The figures that replies in a job may have; None if it asks for none, or may have none.

    If the job is a probe that gets none, the silo's log says so.
    """
    algorithm = build_algorithm(experiment)
    if not (isinstance(algorithm, FedPipe) and algorithm.probe):
        return None
    if enforcer.policy.profile != "allow":
        enforcer.note("refused", "figures of this machine do not leave, by policy.profile: refuse")
        return None
    if experiment.privacy is not None:  # steps on rows, without the noise that hides them
        enforcer.note("refused", "steps of a run with privacy are not measured for a plan")
        return None
    rows = min(experiment.train.batch, choices.MOST_ROWS)
    return MachineFigures(enforcer.folder, enforcer.run, rows, enforcer.policy.count_rounding)


def _surely_there(count: int, rounding: int) -> int:
    """The most rows that all counts have which are rounded as this one is; 1 at least."""
    if rounding == 1:
        return count
    told = rounded(count, rounding)
    return told - (rounding + 1) // 2 if told > rounding else 1  # one step is told of fewer, too


def measured(learner: AdaptedModel, rows: int, rounding: int = 1) -> SiloFigures:
    """Measure this machine and some steps of training. rows: of a batch, at most.

    rounding: of counts of rows that leave. No figure tells the count more exactly: the largest
    batch follows from the rounded count, and the mean is in whole tokens, since as a fraction it
    has the count as its denominator.
    """
    held, free = step_probes.memory(learner.backbone)
    machine = profile.measure()
    lengths = learner.lengths("train")
    rows = min(rows, _surely_there(len(lengths), rounding))
    names = [importance_round.model_name(name) for name in matrices(learner.tensors())]
    probes, _ = step_probes.probed(learner, names, rows, learner.rank)
    return SiloFigures(
        machine.cores,
        held,
        free,
        machine.float32,
        machine.bfloat16,
        machine.bandwidth,
        step_probes.layer_count(learner.backbone),
        max(1, round(sum(lengths) / len(lengths))),
        max(lengths),
        tuple(StepFigures(*p.setting, p.seconds, p.kept, p.peak) for p in probes),
    )
