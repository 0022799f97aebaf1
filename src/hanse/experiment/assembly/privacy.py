"""Differential privacy of a run, before it begins: refusals, remarks, and the planned account."""

from collections.abc import Collection, Mapping, Sequence

from hanse.errors import UserError
from hanse.experiment.assembly.dataset.client_examples import SERVER
from hanse.experiment.assembly.dataset.federated_dataset import FederatedDataset
from hanse.experiment.assembly.named_models import Examples
from hanse.experiment.assembly.resources import adapter_settings
from hanse.experiment.schema import Experiment, build_objective
from hanse.federation.accounting.run_account import planned
from hanse.federation.accounting.sampling_bounds import SamplingBounds, exactly
from hanse.federation.client_sampling import taking_part
from hanse.federation.interfaces.mechanism import Mechanism
from hanse.federation.messages import ClientProfile
from hanse.federation.method import Method
from hanse.journal.privacy_record import PrivacyRecord
from hanse.learners.private_training.row_gradients import require_opacus
from hanse.randomness import RoundContext
from hanse.tensors.named import Tensors


def require(experiment: Experiment, method: Method) -> None:
    """Raise UserError for a mechanism that cannot serve a run of this experiment."""
    for mechanism in method.pipelines.upload.mechanisms:
        mechanism.require(_context(experiment))


def remarks(experiment: Experiment, method: Method, trained: Tensors) -> list[str]:
    """Warnings of the mechanisms, a sentence each. trained: the tensors of an update."""
    context, clients = _context(experiment), len(experiment.participant_names)
    size = sum(tensor.numel() for tensor in trained.values())
    mechanisms = method.pipelines.upload.mechanisms
    return [text for part in mechanisms for text in part.remarks(context, clients, size)]


def _require_training(
    experiment: Experiment, method: Method, settings: Mapping[str, Experiment]
) -> None:
    """Raise UserError for a training whose rows a mechanism of the method cannot hide.

    settings: each client's experiment.
    """
    if not (hiding := _hiding(method)):
        return
    require_opacus()
    name, objective = type(hiding[0]).__name__, build_objective(experiment)
    if not objective.batchable or objective.models:
        raise UserError(
            f"{name} limits the gradient of each row, and the loss of {type(objective).__name__} "
            "is not known row by row; choose the objective sft, classify or tag, or privacy: none."
        )
    for client, own in settings.items():
        place = "" if own is experiment else f"clients.{client}: "
        if own.train.packing:
            raise UserError(
                f"{place}{name} limits the gradient of each row, and packing puts several rows "
                "into one; set train.packing: false."
            )
        if own.model.gradient_checkpointing:
            raise UserError(
                f"{place}{name} does not go with gradient checkpointing, whose second forward pass "
                "its hooks would count, too; set model.gradient_checkpointing: false, and lower "
                "train.per_device_train_batch_size if memory is short."
            )
        if not (adapter := adapter_settings(own)).row_gradients:
            raise UserError(
                f"{place}{name} limits the gradient of each row, which is not known for the "
                f"adapter {type(adapter).__name__} with these settings; choose lora, houlsby, "
                "pfeiffer or head, or privacy: none."
            )


def require_rows(
    experiment: Experiment,
    method: Method,
    settings: Mapping[str, Experiment],
    dataset: FederatedDataset,
) -> list[str]:
    """Remarks on clients' training rows; raises UserError if a mechanism cannot hide them.

    settings: the experiment of each client that is here.
    """
    _require_training(experiment, method, settings)
    remarks: list[str] = []
    for mechanism in _hiding(method):
        for client, own in settings.items():
            drawn = own.train.sampling(_rows(experiment, dataset, client))
            remarks += mechanism.require_rows(drawn, client, _context(experiment))
        if any(own.train.max_grad_norm for own in settings.values()):
            name = type(mechanism).__name__
            remarks.append(
                f"train.max_grad_norm does nothing here: {name} limits the gradient of each row."
            )
    return remarks


def require_examples(
    experiment: Experiment, method: Method, dataset: FederatedDataset, examples: Examples
) -> None:
    """Raise UserError for rows that became several examples each, which would be hidden apart."""
    for mechanism in _hiding(method):
        for reader, splits in examples.items():
            if reader.name or reader.holder == SERVER:
                continue
            rows = _rows(experiment, dataset, reader.holder)
            if (count := len(splits["train"])) > rows:
                raise UserError(
                    f"{type(mechanism).__name__} hides one example, and the {rows:,} rows of "
                    f"{reader.holder} became {count:,}; cut long texts into rows beforehand, or "
                    "raise model.max_length."
                )


def _rows(experiment: Experiment, dataset: FederatedDataset, client: str) -> int:
    """The training rows of a client."""
    holders = experiment.client_names if experiment.data.pooled else [client]
    return sum(len(dataset.train[holder]) for holder in holders)


def sampling(experiment: Experiment, profile: ClientProfile) -> SamplingBounds:
    """The draw of rows in a client's trainings, by the number of rows that it declares."""
    train, rows = experiment.for_client(profile.name).train, profile.examples
    half = profile.rounding // 2
    fewest = 1 if rows <= profile.rounding else rows - half  # any fewer are declared as one step
    return SamplingBounds.between(train.sampling(fewest), train.sampling(rows + half))


def planned_account(
    experiment: Experiment, method: Method, profiles: Collection[ClientProfile]
) -> PrivacyRecord | None:
    """The cost of all rounds of this experiment together; None if nothing is promised.

    profiles: of all clients; the largest account of a silo counts, if rows are hidden there.
    Raises UserError without dp-accounting, and for a budget that cannot be kept.
    """
    drawn = {sampling(experiment, profile) for profile in profiles if _hiding(method)}
    return planned(method, _context(experiment), drawn)


def silos_account(
    experiment: Experiment, method: Method, clients: int, rows: int
) -> PrivacyRecord | None:
    """The same as one silo can compute it, whose settings are those of the experiment.

    clients: of a round. rows: that this silo trains on.
    """
    drawn = [exactly(experiment.train.sampling(rows))] if _hiding(method) else []
    return planned(method, _context(experiment, clients), drawn)


def _hiding(method: Method) -> Sequence[Mechanism]:
    """The mechanisms that hide rows in training."""
    return [part for part in method.pipelines.upload.mechanisms if part.protects_rows]


def _context(experiment: Experiment, clients: int = 0) -> RoundContext:
    clients = clients or taking_part(len(experiment.participant_names), experiment.fraction_train)
    return RoundContext(experiment.seed, rounds=experiment.rounds, clients=clients)
