"""The number of simulated clients that train in one pass, decided once before a run.

A run folder's experiment has a number where the user's experiment may have `auto`. A resumed run,
and another run of that file on the same machine, therefore give the same result bit for bit.
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
    """The simulation with a number (or "off") for clients_per_pass in its experiment."""
    experiment = simulation.experiment
    setting = experiment.clients_per_pass
    if setting == "off":
        return simulation
    together = taking_part(len(simulation.clients), experiment.fraction_train)
    members = _members(simulation, min(together, MOST if setting == "auto" else setting))
    chosen: int | str
    if any(client.learner.models for client in simulation.clients.values()):
        chosen = "off"  # those who wait for others would find another client's tensors in a model
        log.info("clients train one by one: they use models beside the trained one")
    elif any(part.protects_rows for part in simulation.method.pipelines.upload.mechanisms):
        chosen = "off"
        log.info("clients train one by one: the gradient of each of their rows is limited")
    elif not all(member.joins for member in members):
        chosen = "off"
        log.info("clients train one by one: this adapter or objective cannot be batched")
    elif setting == "auto":
        report(Work(Activity.MEASURING_CLIENTS_PER_PASS))
        number = best(members, _steps(simulation, together))
        chosen = number if number > 1 else "off"  # a pass of one client only costs time
        log.info("%s", f"{number} clients train together" if number > 1 else "clients train alone")
    else:
        chosen = setting
        if (fit := fitting(members, len(members))) < len(members):
            chosen = fit
            log.warning("%d clients at a time instead of %d, for want of memory", fit, len(members))
    return replace(
        simulation, experiment=experiment.model_copy(update={"clients_per_pass": chosen})
    )


def _members(simulation: Simulation, number: int) -> Sequence[Member]:
    """The first clients as members of a batch; those with the same adapter share its tensors."""
    members: list[Member] = []
    first: dict[str, Member] = {}  # by adapter
    for name, client in list(simulation.clients.items())[:number]:
        context = RoundContext(simulation.experiment.seed, 0, name)
        learner = replace(client.learner, context=context, optimizer_state={})
        if learner.adapter not in first:
            first[learner.adapter] = learner.member()
        members.append(replace(first[learner.adapter], job=learner.job()))
    return members


def _steps(simulation: Simulation, together: int) -> int:
    """The approximate number of optimizer steps of all clients in all rounds."""
    clients = simulation.clients.values()
    steps = [client.learner.training.steps(client.learner.row_count("train")) for client in clients]
    return simulation.experiment.rounds * sum(steps) * together // len(steps)
