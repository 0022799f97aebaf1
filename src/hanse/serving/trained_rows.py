"""Tells which rows of a file a run was trained on; the run folder itself keeps no row."""

from collections.abc import Sequence
from pathlib import Path

from hanse.data import holdout
from hanse.data.formats.row import Row
from hanse.errors import StoppedError, UserError
from hanse.experiment.assembly.dataset.federated_dataset import divide
from hanse.experiment.schema import Experiment
from hanse.journal.environment import same_data
from hanse.journal.records import DEPLOYED


def remark(run: Path, experiment: Experiment, rows: Sequence[Row], file: str) -> str:
    """A sentence on the rows of a file that a run was trained on; empty if there are none.

    The run's own data are read and divided again. If that is not possible, the sentence says so.
    """
    if (run / DEPLOYED).is_file():
        return (
            "the training rows of the silos are on their machines, so nobody here can tell whether "
            f"rows of {file} were trained on."
        )
    try:
        trained = _trained(run, experiment)
    except StoppedError:
        raise
    except UserError as error:
        return (
            f"whether rows of {file} were trained on is not known, since the run's data cannot be "
            f"read again: {error}"
        )
    copies = len(rows) - len(holdout.without(rows, trained))
    if not copies:
        return ""
    which = "1 row" if copies == 1 else f"{copies:,} of the {len(rows):,} rows"
    which = f"all {len(rows):,} rows" if copies == len(rows) > 1 else which
    verb = "was" if copies == 1 else "were"
    return (
        f"{which} of {file} {verb} trained on (the text or prompt is the same); scores on them say "
        "nothing about new rows."
    )


def _trained(run: Path, experiment: Experiment) -> list[Row]:
    """The rows that the participants of a run trained on, and the public rows."""
    dataset = divide(experiment)
    same_data(run, dataset.digest, dataset.public.digest)
    names = experiment.client_names if experiment.data.pooled else experiment.participant_names
    return [*dataset.public.rows, *(row for name in names for row in dataset.train[name])]
