"""Preconditions of a run: what its parts need of each other, checked before a row is tokenized."""

from collections.abc import Mapping, Sequence

from hanse.errors import UserError
from hanse.experiment.assembly.federated_dataset import FederatedDataset
from hanse.experiment.schema import Experiment, build_algorithm, build_tasks
from hanse.federation.interfaces.algorithm import Algorithm
from hanse.federation.interfaces.task import Task

# What an algorithm's `optimizers` are called.
OPTIMIZERS = {"adamw": "AdamW", "momentum": "SGD with momentum", "sgd": "SGD without momentum"}


def refuse_unmet(
    experiment: Experiment, division: FederatedDataset, every: Mapping[str, Experiment], whole: bool
) -> None:
    """Refuse what could not be measured or trained, before any row is tokenized.

    every: each client's experiment. whole: all clients are here, and the server's test rows.
    """
    tasks = build_tasks(experiment)
    for task in tasks.values():
        task.require()
    if whole:
        _refuse_unmeasured(tasks, bool(experiment.evaluation.test and division.test))
    _refuse_optimizers(build_algorithm(experiment), experiment, every)


def _refuse_unmeasured(tasks: Mapping[str, Task], tested: bool) -> None:
    """A costly task in a run without test rows would be silently left out."""
    for name, task in tasks.items():
        if task.test_only and not tested:
            raise UserError(
                f"the task {name} takes so long that it is measured on test rows only, and here "
                "are none; hold some out with data.test, and set evaluation.test: true."
            )


def _refuse_optimizers(
    algorithm: Algorithm, experiment: Experiment, own: Mapping[str, Experiment]
) -> None:
    """Refuse what would quietly turn an algorithm into another one."""
    name, allowed = type(algorithm).__name__, algorithm.optimizers
    for client, settings in own.items():
        train = settings.train
        whose = "train" if train == experiment.train else f"clients.{client}.train"
        if train.optimizer not in allowed:
            sgd = f"{whose}.optim=sgd" if "sgd" in allowed else f"{whose}.optim=adamw"
            plain = "" if "momentum" in allowed else f" and {whose}.momentum=0"
            raise UserError(
                f"{name} is defined for clients that train by {_named(allowed)} only, but {whose} "
                f"has {OPTIMIZERS[train.optimizer]}; set {sgd}{plain}, with a learning rate that "
                "suits it."
            )
        if "adamw" not in allowed and train.weight_decay and train.max_grad_norm:
            raise UserError(
                f"{name} takes changes for sums of gradients, but {whose} clips these "
                f"(max_grad_norm {train.max_grad_norm}) without their weight_decay; set "
                f"{whose}.max_grad_norm=0 or {whose}.weight_decay=0."
            )
        if algorithm.resets_optimizer and train.optimizer_state == "keep":
            raise UserError(
                f"with {name} an optimizer's state from the round before means nothing in the "
                f"next one; set {whose}.optimizer_state=reset."
            )


def _named(optimizers: Sequence[str]) -> str:
    return " or ".join(OPTIMIZERS[name] for name in optimizers)
