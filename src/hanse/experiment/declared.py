"""Public rows and named models: those that the parts declare, against those of the settings."""

from hanse.experiment.part_kinds import spec_name
from hanse.experiment.schema import Experiment, build_algorithm
from hanse.experiment.validation import SettingError


def check_declared(experiment: Experiment) -> None:
    """Raise SettingError for what a part needs and no setting names, and for the converse."""
    _check_public(experiment)


def _check_public(experiment: Experiment) -> None:
    """Refuse an algorithm without its public rows, and public rows that nobody uses."""
    name, needed = spec_name(experiment.algorithm), build_algorithm(experiment).needs_public
    public = experiment.data.public
    if needed and public is None:
        raise SettingError(
            f"the algorithm {name} needs public rows ({' and '.join(needed)}), and data.public "
            "names none; write a file, a folder or a data set's name there.",
            ("data", "public"),
        )
    if public is not None and not needed:
        raise SettingError(
            f"data.public names {public.path}, but the algorithm {name} uses no public rows; leave "
            "data.public out, or choose an algorithm that needs it.",
            ("data", "public"),
        )
