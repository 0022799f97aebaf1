"""Preconditions of training without an adapter, whose steps the sums that are sent must replay."""

from collections.abc import Iterator
from dataclasses import replace

from hanse.errors import UserError
from hanse.experiment.assembly.resources import adapter_settings
from hanse.experiment.schema import Experiment, build_algorithm
from hanse.federation.interfaces.whole_model import MOST_STEPS
from hanse.learners.models.settings import BaseModelSettings
from hanse.registry import name_of

REMARK = (
    "all weights change in place: the model computes in float32 by torch's products, nothing of it "
    "is cached, clients train one by one, and train.max_grad_norm has no gradients to clip."
)
MAY_DIFFER = {"per_device_train_batch_size", "gradient_accumulation_steps"}  # among clients


def prepared(experiment: Experiment) -> Experiment:
    """The experiment with a base model whose weights can change in place, if it has no adapter.

    Small steps vanish in 16 bits, and copies of weights in another order would not follow them.
    """
    if adapter_settings(experiment).injected:
        return experiment
    model = experiment.model
    products = "torch" if model.products == "auto" else model.products
    changed = replace(model, bf16=False, products=products, activation_cache=False)
    return experiment.model_copy(update={"model": changed})


def remarks(experiment: Experiment) -> list[str]:
    """A remark on what follows from training without an adapter; none with one."""
    return [] if adapter_settings(experiment).injected else [REMARK]


def refuse_unfit(experiment: Experiment) -> None:
    """Raise UserError for an algorithm and an adapter that do not go together.

    Without an adapter, settings are refused, too, whose steps could not be replayed from sums.
    """
    algorithm, adapter = build_algorithm(experiment), adapter_settings(experiment)
    name = type(algorithm).__name__
    if not algorithm.whole_model:
        if not adapter.injected:
            raise UserError(
                f"{name} trains an adapter, but adapter is none; choose one, such as lora, or "
                "algorithm=fedkseed."
            )
        return
    if adapter.injected:
        kinds = " and ".join(name_of(kind) for kind in adapter.kinds)
        raise UserError(
            f"{name} changes all weights of the base model and trains no adapter, but adapter is "
            f"{kinds}; set adapter=none, or choose another algorithm, such as fedavg."
        )
    for reason in _reasons(experiment):
        raise UserError(f"{name} {reason}")


def _reasons(experiment: Experiment) -> Iterator[str]:
    """The reasons against an experiment without an adapter, each with a way out."""
    if experiment.adapter.source:
        yield (
            f"begins with a base model as it is, but adapter.from is {experiment.adapter.source}; "
            "write the changed model with `hanse export --merge FOLDER`, and set "
            "model.model_name_or_path=FOLDER and adapter=none."
        )
    if experiment.models:
        yield (
            "changes the base model in place, and models beside it could share its weights; leave "
            "models out."
        )
    yield from _model_reasons(experiment.model)
    yield from _training_reasons(experiment)
    for client in experiment.clients:
        yield from _client_reasons(experiment, client)


def _model_reasons(model: BaseModelSettings) -> Iterator[str]:
    if model.bf16 is True:
        yield "makes steps that vanish in 16 bits; leave model.bf16 out, or set it to false."
    if model.quantization != "none":
        yield (
            f"changes weights in place, which those of {model.quantization} cannot; set "
            "model.quantization=none."
        )
    if model.products == "packed":
        yield (
            "changes weights in place, and packed copies of them would double the memory; leave "
            "model.products out."
        )


def _training_reasons(experiment: Experiment) -> Iterator[str]:
    train, replays = experiment.train, "replays sums of steps of one size"
    if train.max_steps is None:
        yield (
            "sends one scalar for each step, so a round is a number of steps; set train.max_steps, "
            "such as 200, and leave num_train_epochs out."
        )
    elif train.max_steps > MOST_STEPS:
        yield f"makes at most {MOST_STEPS:,} steps in a round; lower train.max_steps."
    if train.weight_decay:
        yield f"{replays}, without weight_decay; set train.weight_decay=0."
    if train.lr_scheduler_type != "constant" or train.warmup_steps or train.warmup_ratio:
        yield (
            f"{replays}, so the learning rate stays as it is; set "
            "train.lr_scheduler_type=constant, and leave warmup out."
        )
    if train.momentum:
        yield f"{replays}, without momentum; set train.momentum=0."


def _client_reasons(experiment: Experiment, client: str) -> Iterator[str]:
    own = " and ".join(sorted(experiment.clients[client].keys() & {"model", "adapter"}))
    if own:
        yield f"has one model for all, but clients.{client} has settings of {own}; leave these out."
    train = {name: getattr(experiment.train, name) for name in MAY_DIFFER}
    if replace(experiment.for_client(client).train, **train) != experiment.train:
        yield (
            f"replays sums of equal steps of all clients; leave clients.{client}.train out, "
            f"but for {' and '.join(sorted(MAY_DIFFER))}."
        )
