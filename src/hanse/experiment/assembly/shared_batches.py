"""Models that read the batches of the trained one: they need its tokens, and outputs that fit."""

from collections.abc import Iterable, Mapping

from hanse.errors import UserError
from hanse.experiment.assembly.co_trained import unreadable
from hanse.experiment.schema import Experiment, build_objective
from hanse.learners.adapted_model import AdaptedModel
from hanse.learners.backbone import DEFAULT_LENGTH
from hanse.learners.models.tokenizers import tokenizer_files
from hanse.learners.models.tokenizers.tokenizer_files import ModelTokenizer


def refuse_unlike(experiment: Experiment, settings: Mapping[str, Experiment]) -> None:
    """Raise UserError for a model of the objective that cannot read the trained one's batches.

    Tokenizers are read, and no weights. Models whose tokenizers are not on this machine are left to
    `refuse_unfit`. settings: each client's experiment.
    """
    objective, known = build_objective(experiment), set[tuple[object, ...]]()
    for own in settings.values() if objective.reads_same_tokens else ():
        for name in objective.models:
            path, other = own.model.model_name_or_path, own.models[name].model_name_or_path
            key = (path, other, own.model.max_length)
            if key not in known and path != other:
                known.add(key)
                both = _tokenizer(path), _tokenizer(other)
                _refuse(own, name, *both)


def refuse_unfit(clients: Iterable[tuple[Experiment, AdaptedModel]]) -> None:
    """The same for models in memory, and for models whose outputs the objective cannot use.

    clients: the experiment and the learner of each; equal base models are tried once.
    """
    known = set[tuple[int, ...]]()
    for own, learner in clients:
        objective = build_objective(own)
        beside = {name: learner.models[name].backbone for name in objective.models}
        key = (learner.max_length, *map(id, (learner.backbone, *beside.values())))
        if key in known:
            continue
        known.add(key)
        for name, backbone in beside.items() if objective.reads_same_tokens else ():
            if reason := unreadable(objective.example_kind, learner, backbone):
                raise UserError(f"{_both(own, name)}but {reason}.")
        objective.require(learner)


def _tokenizer(path: str) -> ModelTokenizer | None:
    """The tokenizer of a model; None if it is not on this machine."""
    try:
        return tokenizer_files.find(path)
    except UserError:
        return None


def _both(experiment: Experiment, name: str) -> str:
    """The beginning of a message on a named model that gets the trained one's tokens."""
    path, trained = experiment.models[name].model_name_or_path, experiment.model.model_name_or_path
    return f"models.{name} ({path}) gets the tokens of the trained model ({trained}), "


def _refuse(
    experiment: Experiment, name: str, own: ModelTokenizer | None, other: ModelTokenizer | None
) -> None:
    """Raise UserError if a named model cannot read the batches of the trained one."""
    if own is None or other is None:
        return
    both = _both(experiment, name)
    if own.tokenizer.get_vocab() != other.tokenizer.get_vocab():
        raise UserError(
            f"{both}but their tokenizers have unlike vocabularies; choose models of one family, "
            "or an algorithm that aligns tokens."
        )
    if own.causal != other.causal:
        kinds = ("a causal language model", "an encoder")
        raise UserError(
            f"{both}but it is {kinds[not other.causal]} and the trained model is "
            f"{kinds[not own.causal]}; choose two models of one kind."
        )
    longest = experiment.model.max_length or min(DEFAULT_LENGTH, own.positions or DEFAULT_LENGTH)
    if other.positions is not None and other.positions < longest:
        raise UserError(
            f"{both}which are up to {longest}, but it reads at most {other.positions}; set "
            f"model.max_length to {other.positions} or less."
        )
