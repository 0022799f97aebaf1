"""Refuse a server that no silo could join, and an experiment that silos cannot run."""

from collections.abc import Sequence
from pathlib import Path

from hanse.data.sources.split_files import TEST, VALIDATION
from hanse.deployment.silo.settings import is_loopback
from hanse.errors import UserError
from hanse.experiment import loading
from hanse.experiment.assembly.method import build_method
from hanse.experiment.part_kinds import spec_name
from hanse.experiment.schema import LABELLED, Experiment, build_aggregator, build_objective
from hanse.security.kits import ServerKit


def refuse_open(host: str, kit: Path | None) -> None:
    """Raise UserError for a server that other machines can reach and that has no kit."""
    if kit is None and not is_loopback(host):
        raise UserError(
            f"{host} can be reached from other machines, and without a kit neither side "
            "can verify the other; run `hanse kit init` and name it by --kit, or leave "
            "--host out."
        )


def refuse_unknown(kit: ServerKit, names: Sequence[str]) -> None:
    """Raise UserError for participants whose keys are not in the kit."""
    if unknown := [name for name in names if name not in kit.silos]:
        raise UserError(
            f"{', '.join(unknown)} of this experiment {'is' if len(unknown) == 1 else 'are'} not "
            f"enrolled in {kit.folder}, which has {', '.join(kit.silos) or 'no silos'}; run `hanse "
            "kit enrol` for each, or give the clients those names."
        )


def refuse_unidentified(experiment: Experiment, kit: Path | None) -> None:
    """Raise UserError if the clients' halves must identify each other, and there is no kit."""
    if kit is None and build_aggregator(experiment).needs_identity:
        raise UserError(
            f"the aggregator {spec_name(experiment.aggregator)} needs silos that can identify each "
            "other by their keys; run `hanse kit init`, enrol the silos and name the kit by --kit, "
            "or choose the aggregator mean."
        )


def refuse_unfit(experiment: Experiment) -> None:
    """Raise UserError for settings that a deployment cannot follow."""
    data = experiment.data
    if experiment.attack is not None:
        raise UserError(
            f"attack.{spec_name(experiment.attack)} makes clients of a simulation hostile, and no "
            "silo does so on order; leave attack out, or try it with `hanse run`."
        )
    if data.pooled:
        raise UserError(
            "data.pooled puts all rows in one place, and silos keep theirs; leave it out."
        )
    file_splits = [split for split in (TEST, VALIDATION) if isinstance(getattr(data, split), str)]
    if file_splits and not experiment.brings_own_data:
        raise UserError(
            f"data.{file_splits[0]} names a file, and every silo would need a copy of it and of "
            "data.path; set a number of rows to hold out, or give each silo its own file."
        )
    sizes = [data.test, data.validation]
    if experiment.brings_own_data and any(size and not isinstance(size, str) for size in sizes):
        own_rows = " and let each silo score its own rows (data.client_test)"
        raise UserError(
            "every client has its own data here, so the server has no rows that it could hold "
            "out; name the server's files in data.test and data.validation, or set them to 0"
            f"{'' if build_method(experiment).withholds_scores else own_rows}."
        )
    labelled = build_objective(experiment).example_kind in LABELLED
    if experiment.brings_own_data and labelled and not data.labels:
        raise UserError(
            "the server sees no rows, so it cannot find their labels; list them in "
            "data.labels, such as {0: negative, 1: positive}."
        )
    loading.refuse_foreign(experiment)
