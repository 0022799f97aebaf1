"""Differential privacy of a run, before it begins: refusals, remarks, and the planned account."""

from hanse.experiment.schema import Experiment
from hanse.federation.client_sampling import taking_part
from hanse.federation.method import Method
from hanse.federation.privacy_account import planned
from hanse.journal.privacy_record import PrivacyRecord
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


def planned_account(experiment: Experiment, method: Method) -> PrivacyRecord | None:
    """What all rounds of this experiment will cost together; None if nothing is promised."""
    return planned(method, _context(experiment))


def _context(experiment: Experiment) -> RoundContext:
    clients = taking_part(len(experiment.participant_names), experiment.fraction_train)
    return RoundContext(experiment.seed, rounds=experiment.rounds, clients=clients)
