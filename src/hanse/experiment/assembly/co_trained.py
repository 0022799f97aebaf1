"""Models that are trained on the trained one's batches: they must read the same tokens."""

from collections.abc import Iterable

from hanse.errors import UserError
from hanse.experiment.part_kinds import spec_name
from hanse.experiment.schema import Experiment, build_algorithm, build_objective
from hanse.learners.adapted_model import AdaptedModel
from hanse.learners.backbone import Backbone


def check_co_trained(experiment: Experiment, learners: Iterable[AdaptedModel]) -> list[str]:
    """Remarks on the models that the algorithm trains beside each learner, on its batches.

    Raises UserError for one that reads other tokens or shorter rows, or scores something else.
    """
    algorithm = build_algorithm(experiment)
    pairs = dict[tuple[int, int, int, str], AdaptedModel]()
    for learner in learners:  # equal base models are compared once
        for name in learner.models.keys() & {*algorithm.co_trained}:
            bases = id(learner.backbone), id(learner.models[name].backbone)
            pairs[*bases, learner.max_length, name] = learner
    remarks = []
    for (_, _, _, name), learner in pairs.items():
        trained, beside = learner.backbone, learner.models[name].backbone
        if reason := unreadable(build_objective(experiment).example_kind, learner, beside):
            raise UserError(
                f"the algorithm {spec_name(experiment.algorithm)} lets {trained.name} and "
                f"models.{name}, {beside.name}, learn from the same tokens, but {reason}."
            )
        if name == algorithm.keeps and beside.weights < trained.weights:
            remarks.append(
                f"models.{name}, which stays at each client, is smaller than the model that "
                f"travels: {beside.name} has {beside.weights:,} weights, {trained.name} has "
                f"{trained.weights:,}; exchange the two to send less."
            )
    return remarks


def unreadable(example_kind: str, learner: AdaptedModel, beside: Backbone) -> str:
    """The reason why a base model cannot read a learner's batches, with a way out; or empty."""
    trained = learner.backbone
    if trained.tokenizer.get_vocab() != beside.tokenizer.get_vocab():
        return "their tokenizers have unequal tokens; take two models of one family"
    kinds = trained.head.reads[example_kind], beside.head.reads[example_kind]
    if kinds[0] != kinds[1]:
        return f"one reads {kinds[0]}, and the other {kinds[1]}; take two models of one kind"
    if beside.positions is not None and beside.positions < learner.max_length:
        return (
            f"the first reads up to {learner.max_length}, and the second at most "
            f"{beside.positions}; set model.max_length to {beside.positions} or less"
        )
    return ""
