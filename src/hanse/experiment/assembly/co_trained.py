"""Models that are trained on the trained one's batches: they must read the same tokens."""

from collections.abc import Iterable

from hanse.errors import UserError
from hanse.experiment.part_kinds import spec_name
from hanse.experiment.schema import Experiment, build_algorithm, build_objective
from hanse.learners.adapted_model import AdaptedModel
from hanse.learners.backbone import Backbone


def check_co_trained(experiment: Experiment, learners: Iterable[AdaptedModel]) -> list[str]:
    """Remarks on the models that the algorithm trains beside each learner, on its batches.

    Raises UserError for one that reads other tokens, or scores something else.
    """
    algorithm, pairs = build_algorithm(experiment), dict[tuple[int, int, str], AdaptedModel]()
    for learner in learners:  # equal base models are compared once
        for name in learner.models.keys() & {*algorithm.co_trained}:
            pairs[id(learner.backbone), id(learner.models[name].backbone), name] = learner
    remarks = []
    for (_, _, name), learner in pairs.items():
        trained, beside = learner.backbone, learner.models[name].backbone
        _refuse_unlike(experiment, name, trained, beside)
        if name == algorithm.keeps and beside.weights < trained.weights:
            remarks.append(
                f"models.{name}, which stays at each client, is smaller than the model that "
                f"travels: {beside.name} has {beside.weights:,} weights, {trained.name} has "
                f"{trained.weights:,}; exchange the two to send less."
            )
    return remarks


def _refuse_unlike(experiment: Experiment, name: str, trained: Backbone, beside: Backbone) -> None:
    kind = build_objective(experiment).example_kind
    if trained.head.reads[kind] != beside.head.reads[kind]:
        reason = "one scores words, and the other has outputs for classes"
    elif trained.tokenizer.get_vocab() != beside.tokenizer.get_vocab():
        reason = "their tokenizers have unequal tokens"
    else:
        return
    raise UserError(
        f"the algorithm {spec_name(experiment.algorithm)} compares what {trained.name} and "
        f"models.{name}, {beside.name}, say of the same tokens, but {reason}; take two models of "
        "one family, or an algorithm that compares answers to public rows."
    )
