"""A plan in a copy of its experiment's file, with reasons in comments."""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from hanse.experiment.part_kinds import spec_name
from hanse.experiment.schema import Experiment
from hanse.journal import yaml_text
from hanse.planning import experiment_copy
from hanse.planning.experiment_copy import (
    in_block_style,
    lost_comments,
    section,
    with_settings,
    without,
)
from hanse.planning.fedpipe.planned import Plan, SiloPlan
from hanse.planning.fedpipe.silo_settings import algorithm, measured, overridden, planned_experiment
from hanse.planning.yaml_comments import line, scalar
from hanse.reports import formatting


def page(file: Path, plan: Plan, anew: bool = False) -> str:
    """The text of the planned experiment.

    It is the user's own text with the plan's `algorithm` and `clients`.
    anew: write all settings anew instead, with full paths, and say that comments are lost; so are
        files that name their settings otherwise.
    """
    values, text = yaml_text.read(file)
    keys = ("algorithm",) if algorithm(plan) else ()
    keys = (*keys, "devices", "clients") if plan.devices else (*keys, "clients")
    lost = lost_comments(text, keys)
    if anew or not _plain(text, values, plan.experiment):
        values = plan.experiment.resolved()
        text, lost = yaml_text.dump(values), f"all settings of {file}, without its comments"
    text = with_settings(text, "model", plan.model) if plan.model else text
    kept = without(text, keys)
    head = [f"# By `hanse plan {line(file)}`; every line may be changed."]
    remarks = [f"# {line(remark)}" for remark in (*filter(None, [lost]), *reasons(plan))]
    return "\n".join([kept.rstrip("\n"), "", *head, *remarks, *_lines(plan, values), ""])


def _lines(plan: Plan, values: Mapping[str, Any]) -> Iterator[str]:
    """The plan's settings as YAML. values: the file's own settings."""
    if plan.devices:
        yield from _devices(plan, values.get("devices") or {})
    if plan.expected:
        yield "# It averages each matrix over the silos that train it, and those that take longer"
        yield "# than these seconds of training in a round are asked for fewer steps."
        yield from section("algorithm", algorithm(plan))
    elif algorithm(plan):
        yield "algorithm: fedpipe    # averages each matrix over the silos that train it"
    yield from _clients(plan, values.get("clients") or {})


def _devices(plan: Plan, user: Mapping[str, Any]) -> Iterator[str]:
    """The section `devices`. user: the file's."""
    yield "devices:    # mfu, operator_us: measured here; without them each run measures them anew"
    for name in dict.fromkeys((*user, *plan.devices)):
        settings = dict(user.get(name) or {})
        if name in plan.devices:
            settings |= measured(plan, name)
        yield from section(name, settings, 2)


def _clients(plan: Plan, user: Mapping[str, Any]) -> Iterator[str]:
    """The section `clients`. user: the file's."""
    planned = {silo.silo.name: silo for silo in plan.silos}
    own = {silo: overridden(planned[silo], plan) for silo in planned}
    names = [*(n for n in user if n not in planned), *planned]
    if not any(user.get(name) or own.get(name) for name in names):
        return
    yield "clients:"
    for name in names:
        settings = {**(user.get(name) or {}), **own.get(name, {})}
        if not settings:
            yield f"  # {name}: as above; {_expected(planned[name])}"
            continue
        yield f"  {scalar(name)}:" + (
            f"    # expected: {_expected(planned[name])}" if name in planned else ""
        )
        for key, values in settings.items():
            yield from section(key, values, 4)


def _expected(silo: SiloPlan) -> str:
    size, sent = formatting.bytes_(silo.memory), formatting.bytes_(silo.bytes)
    return f"{formatting.digits(silo.seconds)} s a round, {size} of memory, {sent} each way"


def reasons(plan: Plan) -> Iterator[str]:
    """Sentences on how the plan was made, and on what it leaves as it is."""
    error = plan.steps.cost.error
    off = (
        "too few to say how well" if error is None else f"{100 * error:.0f} % off on those left out"
    )
    few = ", and no more since they took long" if plan.steps.stopped else ""
    how = "measured" if plan.steps.timed else "counted"
    yield f"seconds are predicted from {plan.steps.probes} {how} steps{few}, {off}"
    if any(silo.silo.machine.device for silo in plan.silos):
        yield "those of devices are what a simulation of the planned file counts"
    kept = {name for silo in plan.silos for name in silo.ranks}
    share = sum(plan.importance.scores[name] for name in kept)
    yield (
        f"{len(kept)} of {len(plan.matrices)} matrices are trained, which have "
        f"{100 * share:.0f} % of the importance; ranks are at most {plan.rank}, that of the adapter"
    )
    agreement = plan.importance.agreement
    if agreement is not None:
        yield f"the silos' scores of matrices have a rank correlation of {agreement:.2f}"
    yield f"a round may take {formatting.digits(plan.bound)} s; the plan was found {plan.solver}"
    if (name := spec_name(plan.experiment.algorithm)) != "fedpipe" and algorithm(plan):
        yield f"algorithm: fedpipe in place of {name}, which does not combine unlike matrices"
    if plan.model:
        chosen = ", ".join(f"{name}: {scalar(value)}" for name, value in plan.model.items())
        yield f"model: {chosen} in place of auto, as measured here; memory and seconds are of these"
    for source in sorted({silo.silo.machine.source for silo in plan.silos}):
        yield f"machines: {source}"
    yield from plan.remarks


def write(out: Path, file: Path, plan: Plan, anew: bool = False) -> None:
    """Write the planned experiment, as in `page` and `experiment_copy.write`."""
    wanted = planned_experiment(plan)
    experiment_copy.write(out, lambda whole: page(file, plan, whole), wanted, anew)


def _plain(text: str, values: Mapping[str, Any], experiment: Experiment) -> bool:
    """True if the file is in block style, and its algorithm stands under that name."""
    named = "algorithm" in values or spec_name(experiment.algorithm) == "fedavg"
    return named and in_block_style(text, values)
