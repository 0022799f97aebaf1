"""Models that read the batches of the trained one: they need its tokens, and outputs that fit.

These are the models that an algorithm trains on its batches, at clients or at the server, and those
of an objective that reads the same tokens, such as a teacher.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from hanse.errors import UserError
from hanse.experiment.declared import client_models, server_models
from hanse.experiment.schema import Experiment, build_algorithm, build_objective
from hanse.learners.adapted_model import AdaptedModel
from hanse.learners.backbone import DEFAULT_LENGTH, Backbone
from hanse.learners.models.tokenizers import tokenizer_files

# The kinds of models, by PEFT's names for their heads.
KINDS = {"CAUSAL_LM": "a causal language model", "SEQ_2_SEQ_LM": "an encoder with a decoder"}
ENCODER, NOT_CAUSAL = "an encoder", "no causal language model"


@dataclass(frozen=True)
class _Reader:
    """A model as a reader of batches.

    positions: the most tokens that it reads at once; None: no limit is known. kind: in words.
    """

    path: str
    tokenizer: Any
    positions: int | None
    kind: str

    @classmethod
    def found(cls, path: str) -> "_Reader | None":
        """The model of these files, without its weights; None if they are not on this machine."""
        try:
            files = tokenizer_files.find(path)
        except UserError:
            return None
        kind = KINDS["CAUSAL_LM"] if files.causal else NOT_CAUSAL
        return cls(path, files.tokenizer, files.positions, kind)

    @classmethod
    def of(cls, model: Backbone) -> "_Reader":
        """The model in memory."""
        kind = KINDS.get(model.head.task, ENCODER)
        return cls(model.name, model.tokenizer, model.positions, kind)


def refuse_unlike(experiment: Experiment, settings: Mapping[str, Experiment], server: bool) -> None:
    """Raise UserError for a model that cannot read the batches of the trained one.

    Tokenizers are read, and no weights. Models whose tokenizers are not on this machine are left to
    `compare_readers`. settings: each client's experiment. server: also compare the server's models.
    """
    wanted, known = _names(experiment), set[tuple[object, ...]]()
    holders = [(own, client_models(experiment)) for own in settings.values()]
    if server:  # else they are on another machine, and a silo is not told of them
        holders.append((experiment, server_models(experiment)))
    for own, names in holders:
        for name in (name for name in names if name in wanted):
            path, other = own.model.model_name_or_path, own.models[name].model_name_or_path
            key = (path, other, own.model.max_length)
            if key in known or path == other:
                continue
            known.add(key)
            trained, beside = _Reader.found(path), _Reader.found(other)
            if trained is not None and beside is not None:
                limit = min(DEFAULT_LENGTH, trained.positions or DEFAULT_LENGTH)
                _refuse(name, trained, beside, own.model.max_length or limit)


def compare_readers(
    experiment: Experiment, server: AdaptedModel, clients: Sequence[AdaptedModel]
) -> list[str]:
    """Remarks on models in memory that read the batches of the trained one.

    Raises UserError for one that cannot, as `refuse_unlike`, and for outputs that the objective
    cannot use. Equal base models are compared once.
    """
    wanted, keeps = _names(experiment), build_algorithm(experiment).keeps
    objective, remarks = build_objective(experiment), list[str]()
    for learner in _unlike([server, *clients]):
        beside = {n: model.backbone for n, model in learner.models.items() if n in wanted}
        for name, model in beside.items():
            _refuse(name, _Reader.of(learner.backbone), _Reader.of(model), learner.max_length)
        remarks += _smaller(keeps, learner.backbone, beside)
    for learner in _unlike(client for client in clients if client.examples("train")):
        objective.require(learner)
    return remarks


def _unlike(learners: Iterable[AdaptedModel]) -> list[AdaptedModel]:
    """One of all learners that have the same base models, and rows of the same length."""
    by_bases = dict[tuple[object, ...], AdaptedModel]()
    for learner in learners:
        beside = ((name, id(model.backbone)) for name, model in learner.models.items())
        by_bases.setdefault((learner.max_length, id(learner.backbone), *beside), learner)
    return list(by_bases.values())


def _names(experiment: Experiment) -> set[str]:
    """The names of the models that read the batches of the trained one."""
    objective = build_objective(experiment)
    read = objective.models if objective.reads_same_tokens else ()
    return {*build_algorithm(experiment).co_trained, *read}


def _refuse(name: str, trained: _Reader, beside: _Reader, longest: int) -> None:
    """Raise UserError if a named model cannot read the trained one's batches.

    longest: the most tokens of a row.
    """
    both = f"models.{name} ({beside.path}) gets the tokens of the trained model ({trained.path}), "
    if trained.tokenizer.get_vocab() != beside.tokenizer.get_vocab():
        raise UserError(
            f"{both}but their tokenizers have unlike vocabularies; choose models of one family, "
            "or an algorithm that aligns tokens."
        )
    if beside.kind != trained.kind:
        raise UserError(
            f"{both}but it is {beside.kind} and the trained model is {trained.kind}; choose two "
            "models of one kind."
        )
    if beside.positions is not None and beside.positions < longest:
        raise UserError(
            f"{both}which are up to {longest}, but it reads at most {beside.positions}; set "
            f"model.max_length to {beside.positions} or less."
        )


def _smaller(keeps: str, trained: Backbone, beside: Mapping[str, Backbone]) -> list[str]:
    """A remark if the model that clients keep is smaller than the one that travels."""
    kept = beside.get(keeps)
    if kept is None or kept.weights >= trained.weights:
        return []
    return [
        f"models.{keeps}, which stays at each client, is smaller than the model that travels: "
        f"{kept.name} has {kept.weights:,} weights, {trained.name} has {trained.weights:,}; "
        "exchange the two to send less."
    ]
