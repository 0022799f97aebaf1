"""Models that fit neither the algorithm nor each other, refused by their configurations alone."""

from collections.abc import Mapping
from functools import cache, partial

from hanse.errors import UserError
from hanse.experiment.assembly.client_adapters import UNLIKE, naming_client
from hanse.experiment.declared import client_models, server_models
from hanse.experiment.schema import LABELLED, Experiment, build_algorithm, build_objective
from hanse.federation.interfaces.model_requirements import ModelFacts
from hanse.learners.models import pretrained


def refuse_unfit(experiment: Experiment, settings: Mapping[str, Experiment], server: bool) -> None:
    """Raise UserError for models that do not fit, as far as files on this machine tell.

    settings: the experiment of each client whose models are loaded here. server: also the server's.
    """
    algorithm = build_algorithm(experiment)
    of = cache(partial(model_facts, classes=_labels(experiment)))

    def require(own: Experiment, names: tuple[str, ...]) -> None:
        beside = {name: of(own.models[name].model_name_or_path) for name in names}
        algorithm.require(of(own.model.model_name_or_path), beside)

    if server:
        require(experiment, server_models(experiment))
    for name, own in {id(own): (name, own) for name, own in settings.items()}.values():
        with naming_client(name if own is not experiment else ""):
            require(own, client_models(experiment))
            if server and algorithm.clients_may_differ != "model":
                _refuse_unlike(*(of(e.model.model_name_or_path) for e in (own, experiment)))


def model_facts(path: str, classes: int | None = None) -> ModelFacts:
    """The facts in a model's configuration; classes: of label words or tags, if there are any."""
    try:
        config = pretrained.find(path, local=True).config.get_text_config()
    except UserError:
        return ModelFacts(path, classes)
    heads = None if config.is_encoder_decoder else getattr(config, "num_attention_heads", None)
    classes = classes or getattr(config, "vocab_size", None)
    width = getattr(config, "hidden_size", None)
    return ModelFacts(path, classes, heads, config.model_type, width)


def _labels(experiment: Experiment) -> int | None:
    """The number of label words or tags; None if a place in a text has a score of each token."""
    labelled = build_objective(experiment).example_kind in LABELLED
    return len(experiment.data.labels) or None if labelled else None


def _refuse_unlike(client: ModelFacts, server: ModelFacts) -> None:
    """Raise UserError for a model none of whose tensors can be averaged with the server's."""
    known = None not in (client.width, server.width)
    if known and (client.kind, client.width) != (server.kind, server.width):
        raise UserError(
            f"its model {client.name} ({client.kind}, {client.width} wide) has other tensors than "
            f"the server's {server.name} ({server.kind}, {server.width} wide); {UNLIKE}."
        )
