"""The silos with settings of the user's own, which a plan and a search leave as they are."""

from hanse.experiment.schema import Experiment

SECTIONS = ("adapter", "model", "train")  # of a silo; any other settings do not matter here


def own_settings(experiment: Experiment) -> dict[str, list[str]]:
    """The silos that have any of `SECTIONS` in `clients`, with the names of these."""
    found = {n: [s for s in SECTIONS if s in over] for n, over in experiment.clients.items()}
    return {name: sections for name, sections in found.items() if sections}
