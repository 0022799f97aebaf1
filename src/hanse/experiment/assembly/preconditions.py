"""Preconditions of a run: requirements of its parts, checked before a row is tokenized."""

from collections.abc import Collection, Mapping, Sequence

from hanse.errors import UserError
from hanse.experiment.assembly import unfit_models
from hanse.experiment.assembly.dataset.federated_dataset import FederatedDataset
from hanse.experiment.assembly.resources import adapter_settings
from hanse.experiment.assembly.shared_batches import refuse_unlike
from hanse.experiment.schema import Experiment, build_algorithm, build_tasks
from hanse.federation.algorithms.fedpipe import FedPipe
from hanse.federation.interfaces.algorithm import Algorithm
from hanse.federation.interfaces.task import Task
from hanse.learners.injection.adapter import WITHOUT_FACTORS
from hanse.registry import suggestion

# Names of an algorithm's `optimizers` in messages.
OPTIMIZERS = {"adamw": "AdamW", "momentum": "SGD with momentum", "sgd": "SGD without momentum"}


def refuse_unmet(
    experiment: Experiment,
    dataset: FederatedDataset,
    settings: Mapping[str, Experiment],
    only: Collection[str] | None,
) -> None:
    """Raise UserError for tasks, optimizers, tokenizers and adapters that do not fit.

    settings: each client's experiment. only: the clients that are assembled; None: all of them, and
    the server's test rows are here; none of them: the server alone.
    """
    tasks = build_tasks(experiment)
    for task in tasks.values():
        task.require()
    if only is None:
        _refuse_unscored(tasks, bool(experiment.evaluation.test and dataset.test))
    algorithm = build_algorithm(experiment)
    if not only:  # a silo has other rows
        _refuse_unvalidated(algorithm, dataset)
    _refuse_expected_seconds(algorithm, settings, simulated=only is None)
    _refuse_fixed_adapter(algorithm, experiment)
    _refuse_no_factors(algorithm, experiment)
    _refuse_optimizers(algorithm, experiment, settings)
    here = {name: own for name, own in settings.items() if only is None or name in only}
    unfit_models.refuse_unfit(experiment, here, server=not only)
    refuse_unlike(experiment, settings, server=not only)
    adapter_settings(experiment)  # raises UserError for an adapter that cannot be read


def _refuse_unscored(tasks: Mapping[str, Task], tested: bool) -> None:
    """Raise UserError for a task that scores test rows only, in a run that has none."""
    for name, task in tasks.items():
        if task.test_only and not tested:
            raise UserError(
                f"the task {name} takes so long that it scores test rows only, and this run has "
                "none; hold some out with data.test, and set evaluation.test: true."
            )


def _refuse_unvalidated(algorithm: Algorithm, dataset: FederatedDataset) -> None:
    """Raise UserError for an algorithm that scores models, and has no rows to score them on."""
    if algorithm.needs_validation and not dataset.validation:
        raise UserError(
            f"{type(algorithm).__name__} chooses among models by the server's validation rows, and "
            "there are none; hold some out, such as data.validation: 200, or name a file there."
        )


def _refuse_expected_seconds(
    algorithm: Algorithm, settings: Mapping[str, Experiment], simulated: bool
) -> None:
    """Raise UserError for a plan's seconds of unknown clients, or of those with simulated ones.

    simulated: whether clients train on this machine, and report the seconds that it takes.
    """
    if not isinstance(algorithm, FedPipe):
        return
    for name in algorithm.expected_seconds:
        if (own := settings.get(name)) is None:
            raise UserError(
                f"algorithm.fedpipe.expected_seconds names {name:.80}, which is no client of this "
                f"run{suggestion(name, settings)}, whose clients are {', '.join(settings):.200}; "
                "correct the name, or leave it out."
            )
        if simulated and (own.device or (own.links and own.links.seconds_per_step)):
            raise UserError(
                f"algorithm.fedpipe.expected_seconds has seconds of {name:.80}, whose seconds are "
                "simulated, and compares them with those that this machine measures; leave "
                "expected_seconds out, or the client's device and links.seconds_per_step."
            )


def _refuse_no_factors(algorithm: Algorithm, experiment: Experiment) -> None:
    """Raise UserError for an adapter that is not LoRA in its plain form, if the algorithm needs it.

    What is known only in a model is refused when the algorithm begins.
    """
    if not algorithm.needs_factors:
        return
    kinds = adapter_settings(experiment).kinds
    others = [kind for kind in kinds if kind.kind in WITHOUT_FACTORS]
    dora = any(getattr(kind, "use_dora", False) for kind in kinds)
    if dora or len(others) == len(kinds):
        has = "use_dora" if dora else f"{type(others[0]).__name__} alone"
        raise UserError(
            f"{type(algorithm).__name__} learns LoRA's factors A and B, but the adapter has {has}; "
            "choose the adapter lora in its plain form, or another algorithm such as fedavg."
        )


def _refuse_fixed_adapter(algorithm: Algorithm, experiment: Experiment) -> None:
    """Raise UserError for an adapter that an algorithm cannot train parts of."""
    if not algorithm.resizes_adapter:
        return
    name = type(algorithm).__name__
    if experiment.adapter.source is not None:
        raise UserError(
            f"{name} grows an adapter from a small one, and adapter.from names a trained one; "
            "leave it out, or choose another algorithm, such as fedavg."
        )
    adapter = adapter_settings(experiment)
    if not adapter.resizable:
        raise UserError(
            f"{name} grows an adapter layer by layer, and {type(adapter).__name__} with these "
            "settings has no parts that train by themselves; choose houlsby, pfeiffer, or lora "
            "without rank_pattern and target_parameters."
        )


def _refuse_optimizers(
    algorithm: Algorithm, experiment: Experiment, settings: Mapping[str, Experiment]
) -> None:
    """Raise UserError for an optimizer that would turn the algorithm into another one."""
    name, allowed = type(algorithm).__name__, algorithm.optimizers
    for client, own in settings.items():
        train = own.train
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
        if algorithm.keeps_optimizer and train.optimizer_state == "reset":
            raise UserError(
                f"with {name} an optimizer goes on from its state of the round before; set "
                f"{whose}.optimizer_state=keep."
            )


def _named(optimizers: Sequence[str]) -> str:
    return " or ".join(OPTIMIZERS[name] for name in optimizers)
