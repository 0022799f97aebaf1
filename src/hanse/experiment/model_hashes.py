"""Hashes of the models and the adapter that a run loads: a resumed run notices changed weights."""

from collections.abc import Iterator

from hanse.experiment.assembly.resources import adapter_folder
from hanse.experiment.declared import server_models
from hanse.experiment.schema import Experiment
from hanse.learners.models.model_hash import hash_of, unvetted_hash


def model_hashes(experiment: Experiment, clients: bool) -> dict[str, str]:
    """The hash of each model that is loaded on this machine, by its path in the settings.

    The adapter that training begins with is among them. clients: whether the clients' models are
    here, too, as in a simulation. A model that a hub names is left out: its files may come in the
    midst of a run. Raises UserError for a path without a model.
    """
    paths = dict.fromkeys(_paths(experiment, clients))
    hashes = {path: digest for path in paths if (digest := hash_of(path)) is not None}
    if source := experiment.adapter.source:
        hashes[source] = unvetted_hash(adapter_folder(source))
    return hashes


def _paths(experiment: Experiment, clients: bool) -> Iterator[str]:
    """The paths of the base model, of models beside it, and of the clients' own."""
    yield experiment.model.model_name_or_path
    if not clients:
        yield from (experiment.models[n].model_name_or_path for n in server_models(experiment))
        return
    differing = [name for name, own in experiment.clients.items() if {"model", "models"} & {*own}]
    for settings in (experiment, *map(experiment.for_client, differing)):
        yield settings.model.model_name_or_path
        yield from (own.model_name_or_path for own in settings.models.values())
