"""The parts that an experiment names, checked before anything is loaded."""

from collections.abc import Iterator
from contextlib import contextmanager

from hanse.errors import UserError
from hanse.experiment.part_kinds import NAMED, TASK
from hanse.experiment.schema import Experiment, build_all, build_tasks
from hanse.experiment.validation import SettingError
from hanse.journal.yaml_text import Place


def build_parts(experiment: Experiment) -> None:
    """Check every named part by building it, all names first; raises SettingError for one."""
    check_names(experiment)
    for kind in NAMED:
        with _at(kind.place):
            build_all(kind, kind.specs(experiment))
    with _at(TASK.place):
        build_tasks(experiment)


def check_names(experiment: Experiment) -> None:
    """Raise SettingError for the first part that no file has; no part is imported."""
    for kind in NAMED:
        with _at(kind.place):
            for spec in kind.specs(experiment):
                kind.check_name(spec)


@contextmanager
def _at(place: Place) -> Iterator[None]:
    """Add the place in the experiment to a mistake that is found in this block."""
    try:
        yield
    except UserError as error:
        raise SettingError(str(error), place) from None
