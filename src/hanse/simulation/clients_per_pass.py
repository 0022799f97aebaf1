"""How many simulated clients train together: decided once, before a run, and written down with it.

A run folder's experiment has a number where the user's may say `auto`; so resume, and whoever runs
that file again on the same machine, gets the same result bit for bit.
"""

import logging
from collections.abc import Sequence
from dataclasses import replace

from hanse.experiment.assembly.assemble import Simulation
from hanse.federation.client_sampling import taking_part
from hanse.learners.batched_clients.member import Member
from hanse.learners.batched_clients.size import MOST, best, fitting
from hanse.observability.progress import report
from hanse.observability.steps import Activity, Work
from hanse.randomness import RoundContext

log = logging.getLogger(__name__)


def decided(simulation: Simulation) -> Simulation:
    """The same simulation, with what there is to choose about its cohorts chosen."""
    experiment = simulation.experiment
    asked = experiment.clients_per_pass
    if asked == "off":
        return simulation
    together = taking_part(len(simulation.silos), experiment.fraction_train)
    members = _members(simulation, min(together, MOST if asked == "auto" else asked))
    chosen: int | str
    if not all(member.joins for member in members):
        chosen = "off"
        log.info("clients train one by one: a cohort can do neither this adapter nor objective")
    elif asked == "auto":
        report(Work(Activity.MEASURING_CLIENTS_PER_PASS))
        chosen = best(members, _steps(simulation, together))
        log.info("%s", f"{chosen} clients train together" if chosen > 1 else "clients train alone")
    else:
        chosen = asked
        if (fit := fitting(members, len(members))) < len(members):
            chosen = fit
            log.warning("%d clients at a time instead of %d, for want of memory", fit, len(members))
    return replace(
        simulation, experiment=experiment.model_copy(update={"clients_per_pass": chosen})
    )


def _members(simulation: Simulation, number: int) -> Sequence[Member]:
    """The first clients as they would train; those of one adapter share their first tensors."""
    found: list[Member] = []
    starts: dict[str, Member] = {}
    for name, silo in list(simulation.silos.items())[:number]:
        context = RoundContext(simulation.experiment.seed, 0, name)
        learner = replace(silo.learner, context=context, optimizer_state={})
        if learner.adapter not in starts:
            starts[learner.adapter] = learner.member()
        found.append(replace(starts[learner.adapter], job=learner.job()))
    return found


def _steps(simulation: Simulation, together: int) -> int:
    """Optimizer steps of all clients in all rounds, about."""
    silos = simulation.silos.values()
    each = [silo.learner.training.steps(len(silo.examples["train"])) for silo in silos]
    return simulation.experiment.rounds * sum(each) * together // len(each)
