"""FedPipe's plan of a deployed federation, from its run of the probe: no row or model is needed."""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from statistics import median_high, mode

from hanse.errors import UserError
from hanse.experiment.schema import Experiment
from hanse.federation.speed.link_rounds import LinkRound
from hanse.planning.devices.silo_figures import SiloFigures, StepFigures
from hanse.planning.fedpipe import choices, probe_run, step_probes
from hanse.planning.fedpipe.choices import Matrix, Means, Precision
from hanse.planning.fedpipe.cost_model import StepSetting
from hanse.planning.fedpipe.plan import kept_as_they_are, planned_names, refuse_unplanned
from hanse.planning.fedpipe.planned import Bounds, Plan
from hanse.planning.fedpipe.probe_run import ProbedSilo, ProbeRun
from hanse.planning.fedpipe.silos import Machine, Silo
from hanse.planning.fedpipe.solution import completed, draft
from hanse.planning.fedpipe.step_probes import Probe, StepModel
from hanse.planning.own_settings import own_settings


def plan(experiment: Experiment, bounds: Bounds, folder: Path) -> Plan:
    """Solve the program for the silos that a run of the probe in `folder` has asked.

    Raises UserError for parts that a plan does not go with, for a folder without what it needs, and
    for bounds that no plan meets.
    """
    adapter, own = refuse_unplanned(experiment), own_settings(experiment)
    names = planned_names(experiment, own, bounds)
    if experiment.train.packing and experiment.model.max_length is None:
        raise UserError(
            "train.packing fills rows up to model.max_length, which the experiment leaves to each "
            "silo's model, and a plan from a probe's run loads none; set model.max_length."
        )
    run = probe_run.read(folder, experiment)
    told = _told(run, names)
    steps, layers = _steps(told), int(mode(figures.layers for figures in told.values()))
    held = median_high(figures.memory_held for figures in told.values())
    machines, assumed = _machines(run, names, told, held, bounds)
    silos = [_silo(name, run, machines[name], experiment, told, bounds) for name in names]
    matrices = [
        Matrix(name, size, run.importance.scores[name], step_probes.depth_of(name, layers))
        for name, size in run.sizes.items()
    ]
    shares = choices.SHARES if bounds.seconds is not None else (1.0,)
    at_rest = Precision("", held, 1.0, 0.0)
    means = Means(matrices, steps, [at_rest], adapter.r, layers, shares)
    remarks = (*kept_as_they_are(own), *_ignored(experiment), *assumed, *_links(run, names))
    begun = draft(experiment, run.importance, silos, means, bounds, remarks)
    made, _ = completed(begun, silos, means)
    training = {silo.silo.name: silo.seconds - silo.travel for silo in made.silos}
    expected = {name: float(f"{seconds:.3g}") for name, seconds in training.items()}
    return replace(made, expected=expected)


def _told(run: ProbeRun, names: Sequence[str]) -> dict[str, SiloFigures]:
    """The figures of the silos that tell any; raises UserError for silos without an answer."""
    if missing := [name for name in names if name not in run.silos]:
        raise UserError(
            f"{run.folder} has no answer of {', '.join(missing)[:200]} to the probe; run it with "
            "all silos (fraction_train: 1), or give these settings of their own in `clients`."
        )
    told = {name: own.figures for name in names if (own := run.silos[name]).figures}
    found = {name: figures for name, figures in told.items() if figures is not None}
    if not found:
        raise UserError(
            f"no silo has told of its machine in {run.folder}, {names[0]} for this reason: "
            f"{run.silos[names[0]].remark}; let one at least set policy.profile: allow in its "
            "silo.yaml, and run the probe again."
        )
    return found


def _steps(told: Mapping[str, SiloFigures]) -> StepModel:
    """The models of steps of the silos that tell them, with the largest of their errors.

    The bytes of steps are those at the silo in the middle, so that no single one decides them.
    """
    probes = {
        name: [Probe(_setting(step), step.seconds, step.kept, step.peak) for step in own.steps]
        for name, own in told.items()
    }
    models = {name: step_probes.fitted(own) for name, own in probes.items()}
    settings = [probe.setting for own in probes.values() for probe in own]
    largest = max(settings, key=lambda setting: setting.rows * setting.length)
    by_bytes = sorted(models.values(), key=lambda model: model.bytes(largest))
    costs = {name: model.cost for name, model in models.items()}
    worst = max(costs.values(), key=lambda cost: cost.error or 0.0)
    first = replace(next(iter(costs.values())), error=worst.error)
    fewest = min(len(own) for own in probes.values())
    middle = by_bytes[len(by_bytes) // 2]
    return replace(middle, cost=first, devices=costs, probes=fewest)


def _setting(step: StepFigures) -> StepSetting:
    return StepSetting(*(round(n) for n in (step.rows, step.length, step.rank, step.depth)))


def _machines(
    run: ProbeRun,
    names: Sequence[str],
    told: Mapping[str, SiloFigures],
    held: float,
    bounds: Bounds,
) -> tuple[dict[str, Machine], list[str]]:
    """The machine of each silo, and a sentence on each whose figures are assumed.

    held: bytes of a process with the base, as the plan counts them for all silos.
    """
    machines, remarks = {}, []
    least = min(own.memory_free for own in told.values())
    for name in names:
        given = bounds.memory.get(name, bounds.memory.get(""))
        if name in told:
            own = told[name]
            free = own.memory_free if given is None else given - own.memory_held
            source = f"{name} by {len(own.steps)} steps that it measured on {own.cores:g} cores"
            machines[name] = Machine(held + free, 1.0, source, measured=name)
            continue
        slower, like = _beside(run, name, told)
        source = f"{name} by its training in the probe, beside that of {like}"
        memory = held + least if given is None else given
        machines[name] = Machine(memory, slower or 1.0, source, measured=like)
        remarks.append(_assumed(name, run.silos[name], machines[name], bool(slower), given))
    return machines, remarks


def _beside(run: ProbeRun, name: str, told: Mapping[str, SiloFigures]) -> tuple[float | None, str]:
    """A silo's seconds of a token ÷ those of the most alike that tells its steps, and its name.

    None if one of the two does not tell its seconds.
    """
    own = run.silos[name].token_seconds
    others = {other: seconds for other in told if (seconds := run.silos[other].token_seconds)}
    if not own or not others:
        return None, next(iter(others or told))
    like = min(others, key=lambda other: abs(math.log(own / others[other])))
    return own / others[like], like


def _assumed(
    name: str, silo: ProbedSilo, machine: Machine, timed: bool, given: float | None
) -> str:
    """A sentence on what the plan assumes of a silo. timed: whether it told its seconds.

    given: its memory, as the user has it.
    """
    like = machine.measured
    times = f"{machine.slower:.3g} times those of {like}, as its training in the probe took"
    seconds = times if timed else f"those of {like}, as the two tell none that can be compared"
    least = f"{machine.memory / 1e9:.3g} GB, with as much free as the least of the others has"
    return (
        f"{name}: {silo.remark}; its seconds are taken as {seconds}, its memory as "
        f"{least if given is None else 'that of --memory'}, and its longest row as theirs"
    )


def _silo(
    name: str,
    run: ProbeRun,
    machine: Machine,
    experiment: Experiment,
    told: Mapping[str, SiloFigures],
    bounds: Bounds,
) -> Silo:
    probed, link = run.silos[name], run.links.get(name)
    mean, longest = float(probed.mean), max(own.longest for own in told.values())
    if probed.figures is not None:
        mean, longest = probed.figures.mean, probed.figures.longest
    train, room = experiment.for_client(name).train, experiment.model.max_length
    silo = Silo(name, probed.rows, round(min(mean, longest)), round(longest), train, machine)
    if train.packing:
        assert room is not None  # or it was refused
        silo = silo.packed(math.ceil(silo.rows * silo.mean / room), room)
    if link is not None:
        silo = replace(silo, rates=(link.up, link.down), latency=link.latency)
    return silo.corrected(bounds.slower.get(name, 1.0))


def _links(run: ProbeRun, names: Sequence[str]) -> Iterator[str]:
    """Sentences on the silos' links to the server."""
    for name in (name for name in names if name in run.links):
        yield f"link of {name}: {run.links[name]}"
    if unknown := [name for name in names if name not in run.links]:
        yield (
            f"links of {', '.join(unknown)} are not measured, and messages are taken to cost no "
            f"time; a probe of {1 + len(LinkRound)} rounds measures them"
        )


def _ignored(experiment: Experiment) -> Iterator[str]:
    """Sentences on what a plan of real machines leaves out."""
    yield "the base keeps its bits: others are measured only where the model is"
    if experiment.has_devices or experiment.has_links:
        yield "simulated devices and links are not those of real silos, and decide nothing here"
