"""FedPipe's plan of an experiment: matrices, ranks, batches and bits of each silo."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace

from hanse.errors import UserError
from hanse.experiment.assembly.assemble import Simulation, simulate
from hanse.experiment.assembly.method import build_method
from hanse.experiment.assembly.resources import Resources
from hanse.experiment.part_kinds import spec_name
from hanse.experiment.schema import Experiment
from hanse.learners.adapters.lora import Lora
from hanse.planning.devices import profile as device_profile
from hanse.planning.fedpipe import (
    choices,
    importance_round,
    silo_devices,
    step_probes,
)
from hanse.planning.fedpipe.choices import SENT, Matrix, Means, Precision
from hanse.planning.fedpipe.importance_round import Importance, model_name
from hanse.planning.fedpipe.planned import Bounds, Plan
from hanse.planning.fedpipe.precisions import chosen_mode, lower_precisions, model_bytes
from hanse.planning.fedpipe.silos import Machine, Silo, machines, rates
from hanse.planning.fedpipe.solution import completed, draft
from hanse.planning.fedpipe.step_probes import StepModel
from hanse.planning.own_settings import own_settings
from hanse.registry import suggestion
from hanse.simulation import device_cost
from hanse.simulation.link import links
from hanse.tensors import low_rank

TRIES = 4  # plans at most, until their seconds on devices are those that a simulation counts
CLOSE = 0.02  # a relative error of these seconds that is no reason for another try
AVERAGED = ("fedavg", "fedit", "flexlora", "fedpipe")  # those whose mean fedpipe takes


def plan(experiment: Experiment, bounds: Bounds) -> Plan:
    """Probe this machine, score the matrices, and solve the program.

    Raises UserError for parts that a plan does not go with, and for bounds that no plan meets.
    """
    adapter, own = refuse_unplanned(experiment), own_settings(experiment)
    names = planned_names(experiment, own, bounds)
    silo_devices.refuse_unclear(experiment, names, bounds)
    simulation = simulate(importance_round.probing(experiment, adapter), resources := Resources())
    scores = importance_round.importance(simulation)
    timed = silo_devices.equipped(simulation, experiment)
    silos = _silos(timed, names, bounds)
    means = _means(timed, silos, scores, adapter, bounds)
    silos = _as_counted_now(timed, silos, means)
    remarks = (*kept_as_they_are(own), *silo_devices.remarks(experiment, names))
    begun = draft(experiment, scores, silos, means, bounds, remarks)
    devices = silo_devices.measured(timed, experiment)
    begun = replace(begun, devices=devices, model=chosen_mode(experiment, timed.learner))
    if bounds.precision and any(map(means.is_short, silos)):
        lower = lower_precisions(simulation, resources, means.precisions[0])
        means = replace(means, precisions=[*means.precisions, *lower])
    return _settled(begun, timed, silos, means)


def _as_counted_now(timed: Simulation, silos: Sequence[Silo], means: Means) -> list[Silo]:
    """The silos, whose devices take as long as a simulation counts with the file's settings."""
    settings = {s.name: timed.clients[s.name].experiment for s in silos if s.machine.device}
    counted, corrected = silo_devices.training_seconds(timed, settings), []
    for silo in silos:
        size = SENT * means.rank * sum(matrix.size for matrix in means.matrices)
        travel = silo.latency + silo.travel(size)
        predicted = choices.usual_seconds(silo, means) - travel
        corrected.append(silo.corrected(counted.get(silo.name, predicted) / predicted))
    return corrected


def _settled(begun: Plan, timed: Simulation, silos: Sequence[Silo], means: Means) -> Plan:
    """The best plan within the bound by the seconds that a simulation counts on devices.

    Each further try corrects the seconds of silos by those counted for the last one. If no plan is
    within the bound after all tries, it is the fastest one, which says so. Raises UserError if the
    corrected seconds leave none.
    """
    found: list[tuple[bool, float, Plan]] = []
    for _ in range(TRIES):
        try:
            made, gain = completed(begun, silos, means)
        except UserError:
            if not any(within for within, _, _ in found):
                raise
            break
        counted = silo_devices.counted(timed, made)
        if not counted:
            return made
        made, factors = _as_counted(made, counted)
        slowest = max(silo.seconds for silo in made.silos)
        within = slowest <= made.bound
        found.append((within, gain if within else -slowest, made))
        if within and all(abs(factor - 1) <= CLOSE for factor in factors):
            break
        silos = [silo.corrected(f) for silo, f in zip(silos, factors, strict=True)]
    return silo_devices.judged(max(found, key=lambda own: own[:2])[2])


def _as_counted(plan: Plan, counted: Mapping[str, float]) -> tuple[Plan, list[float]]:
    """The plan with counted seconds of training, and these ÷ the predicted ones of each silo."""
    silos, factors = [], []
    for own in plan.silos:
        training = counted.get(own.silo.name, own.seconds - own.travel)
        silos.append(replace(own, seconds=training + own.travel))
        factors.append(training / (own.seconds - own.travel))
    return replace(plan, silos=tuple(silos)), factors


def refuse_unplanned(experiment: Experiment) -> Lora:
    """The adapter; raises UserError for parts that silos with unequal adapters do not go with."""
    adapter = experiment.adapter.fresh
    if not isinstance(adapter, Lora) or adapter.use_dora or adapter.target_parameters:
        raise UserError(
            "hanse plan chooses the ranks of LoRA's matrices, and the experiment's adapter is "
            "another; set adapter: lora, without use_dora and target_parameters."
        )
    if adapter.rank_pattern:
        raise UserError(
            "hanse plan chooses each matrix's rank, r at most, and adapter.lora.rank_pattern has "
            f"set {', '.join(adapter.rank_pattern)[:200]} already; leave it out."
        )
    name = spec_name(experiment.algorithm)
    if name not in AVERAGED:
        raise UserError(
            f"hanse plan gives silos unlike matrices and ranks, which algorithm: {name:.80} cannot "
            f"combine; choose {', '.join(AVERAGED[:-1])} or {AVERAGED[-1]}."
        )
    build_method(experiment.model_copy(update={"algorithm": "fedpipe", "clients": {}}))
    return adapter


def planned_names(
    experiment: Experiment, own: Mapping[str, Sequence[str]], bounds: Bounds
) -> list[str]:
    """The silos that are planned: those without settings of their own.

    Raises UserError if there are none, and for bounds of a silo that is unknown or not planned.
    """
    silos = experiment.participant_names
    if not (names := [name for name in silos if name not in own]):
        raise UserError(
            "every silo has settings of its own in `clients`, and a plan changes none of them; "
            "leave adapter, model and train out there for those that are to be planned."
        )
    for name in filter(None, [*bounds.profiles, *bounds.memory, *bounds.slower]):
        if name not in silos:
            raise UserError(
                f"{name:.80} is no silo of the experiment{suggestion(name, silos)}; they are "
                f"{silos[0]} to {silos[-1]}."
            )
        if name in own:
            raise UserError(
                f"{name} keeps its own settings ({', '.join(own[name])}) and is not planned, so "
                "its machine decides nothing; leave these options out for it."
            )
    return names


def _matrices(simulation: Simulation, scores: Importance) -> list[Matrix]:
    """The matrices that may have an adapter, in the order of their names."""
    layers = low_rank.layers(simulation.learner.tensors())
    count = step_probes.layer_count(simulation.learner.backbone)
    found = []
    for tensor, factors in sorted(layers.items()):
        name = model_name(tensor)
        size = len(factors.up) + factors.down.shape[1]
        depth = step_probes.depth_of(name, count)
        found.append(Matrix(name, size, scores.scores[name], depth))
    return found


def _silos(timed: Simulation, names: Sequence[str], bounds: Bounds) -> list[Silo]:
    """The silos that are planned, each with its machine."""
    backbone = timed.learner.backbone
    here = Machine(sum(step_probes.memory(backbone)), 1.0, "this machine")
    measured = device_profile.measure() if bounds.profiles else None
    devices = silo_devices.machines(timed, names)
    limits = bounds.profiles, bounds.memory, backbone.bf16
    known, by_name = machines(names, here, measured, *limits, devices), links(timed)
    silos = []
    for name in names:
        client, link = timed.clients[name], by_name.get(name)
        lengths, train = client.learner.lengths("train"), client.experiment.train
        mean = max(1, round(sum(lengths) / len(lengths)))
        latency = link.mean_journey(0, 0, 0.0).seconds if link else 0.0
        way = rates(link), latency
        silo = Silo(name, len(lengths), mean, max(lengths), train, known[name], *way)
        if train.packing:
            silo = silo.packed(client.learner.row_count("train"), client.learner.max_length)
        silos.append(silo.corrected(bounds.slower.get(name, 1.0)))
    return silos


def _means(
    simulation: Simulation,
    silos: Sequence[Silo],
    scores: Importance,
    adapter: Lora,
    bounds: Bounds,
) -> Means:
    """All that choices are made of, from the probes of this machine."""
    backbone = simulation.learner.backbone
    at_rest = Precision("", step_probes.memory(backbone)[0], 1.0, 0.0)
    matrices = _matrices(simulation, scores)
    steps = _measured(simulation, silos, [matrix.name for matrix in matrices], adapter.r)
    layers = step_probes.layer_count(backbone)
    shares = choices.SHARES if bounds.seconds is not None else (1.0,)
    around = max(0.0, at_rest.memory - model_bytes(simulation.learner))
    return Means(matrices, steps, [at_rest], adapter.r, layers, shares, around)


def _measured(
    simulation: Simulation, silos: Sequence[Silo], names: Sequence[str], rank: int
) -> StepModel:
    """The model of steps, from the rows of the silo that has most."""
    largest = max(silos, key=lambda silo: silo.rows)
    learner = simulation.clients[largest.name].learner
    most = min(max(silo.train.batch for silo in silos), choices.MOST_ROWS)
    devices, bf16 = simulation.experiment.devices, learner.backbone.bf16
    used = dict.fromkeys(silo.machine.device for silo in silos if silo.machine.device)
    simulated = {name: device_cost.Machine.of(devices[name], bf16) for name in used}
    timed = not all(silo.machine.device for silo in silos)
    return step_probes.measured(learner, names, most, rank, simulated, timed=timed)


def kept_as_they_are(own: Mapping[str, Sequence[str]]) -> Iterator[str]:
    """A sentence on each silo that keeps its settings. own: the sections of each."""
    for name, sections in own.items():
        yield f"{name} keeps its own settings ({', '.join(sections)}), and is not planned"
