"""Preconditions of a search, and the combinations that fit an experiment."""

from collections.abc import Iterator, Mapping, Sequence

from hanse.errors import UserError
from hanse.experiment.assembly.assemble import Simulation, simulate
from hanse.experiment.assembly.method import build_method
from hanse.experiment.assembly.resources import Resources
from hanse.experiment.schema import Experiment, build_tasks
from hanse.planning.own_settings import own_settings
from hanse.planning.search.settings import Setting
from hanse.planning.search.trial import experiment_of


def metric(experiment: Experiment) -> str:
    """The metric that silos score: the accuracy if there is one, else the first of a task.

    Raises UserError, before anything is loaded, if no silo would score anything.
    """
    _refuse_unscored(experiment)
    fresh = experiment.adapter.fresh
    if fresh is not None and not fresh.injected:
        raise UserError(
            "hanse plan --search tries adapters, and this experiment changes the model's weights "
            "in place, without any; set adapter: lora."
        )
    tasks = [task for task in build_tasks(experiment).values() if not task.test_only]
    names = [name for task in tasks for name in task.reports]
    if not names:
        raise UserError(
            "hanse plan --search compares scores of the silos, and the tasks of evaluation.tasks "
            "score the server's test rows only; add one that silos score, such as perplexity."
        )
    return "accuracy" if "accuracy" in names else names[0]


def _refuse_unscored(experiment: Experiment) -> None:
    """Raise UserError if settings keep the silos from scoring rows of their own."""
    names = experiment.participant_names
    shares = [experiment.for_client(name).data.client_test for name in names]
    if not any(shares):
        raise UserError(
            "hanse plan --search compares settings by rows that silos hold out for validation, "
            "and data.client_test is 0; set it to a share of their rows, such as "
            "data.client_test=0.1."
        )
    if not experiment.evaluation.clients:
        raise UserError(
            "hanse plan --search compares settings by the silos' scores, and evaluation.clients is "
            "false; set evaluation.clients=true."
        )
    method = build_method(experiment)
    if reason := method.withholds_scores:
        way_out = "aggregator=mean" if method.aggregator.sums_only else "privacy=none"
        raise UserError(
            f"{reason}, so no silo tells its scores, and hanse plan --search compares those; add "
            f"{way_out} to search, and take it out of what is written."
        )


def fitting(
    experiment: Experiment, every: Sequence[Setting], resources: Resources
) -> tuple[list[Setting], list[str]]:
    """The combinations that the experiment's model, data and parts go with, and remarks.

    Each pair of adapter and algorithm is assembled once. Raises UserError if none is left, or if
    no silo holds out a row.
    """
    unlike = own_settings(experiment)
    remarks = [f"in every trial these keep their own settings: {', '.join(unlike)}"] * bool(unlike)
    reasons: dict[tuple[str, str], str] = {}
    silent: list[str] = []
    for setting in {setting.pair: setting for setting in every}.values():
        try:
            simulation = simulate(experiment_of(experiment, setting), resources)
        except UserError as error:
            reasons[setting.pair] = str(error)
            continue
        silent = refuse_silent(simulation)
    left = [setting for setting in every if setting.pair not in reasons]
    if not left:
        raise UserError(f"none of the combinations fits: {next(iter(reasons.values()))}")
    remarks += _left_out(reasons)
    if silent:
        remarks.append(f"these hold out no rows, and score nothing: {', '.join(silent)}")
    return left, remarks


def _left_out(reasons: Mapping[tuple[str, str], str]) -> Iterator[str]:
    """A remark for each reason against pairs of adapter and algorithm, and each adapter."""
    grouped: dict[tuple[str, str], list[str]] = {}
    for (adapter, algorithm), reason in reasons.items():
        grouped.setdefault((adapter, reason), []).append(algorithm)
    for (adapter, reason), algorithms in grouped.items():
        yield f"{adapter} with {', '.join(algorithms)} is left out: {reason}"


def refuse_silent(simulation: Simulation) -> list[str]:
    """The silos that hold out no rows; raises UserError if that is all of them."""
    clients = simulation.clients
    silent = [name for name, client in clients.items() if not client.examples.get("test")]
    if len(silent) == len(clients):
        raise UserError(
            "no silo has enough rows to hold one out for validation, so a search could compare "
            "nothing; raise data.client_test, or give them more rows."
        )
    return silent
