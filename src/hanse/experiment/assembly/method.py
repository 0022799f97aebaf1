"""From an experiment to its method: algorithm, aggregator, and what tensors pass on their way."""

from hanse.errors import UserError
from hanse.experiment.part_kinds import DOWNLOAD, MECHANISM, UPLOAD
from hanse.experiment.schema import Experiment, build_aggregator, build_algorithm
from hanse.federation.interfaces.aggregator import Aggregator
from hanse.federation.interfaces.algorithm import Algorithm
from hanse.federation.method import Method
from hanse.federation.pipeline import Pipeline, Pipelines


def build_method(experiment: Experiment) -> Method:
    """The method, with its parts' settings; raises UserError if they do not fit together."""
    own = {
        name: _pipelines(experiment.for_client(name), owner=name)
        for name, settings in experiment.clients.items()
        if "compression" in settings
    }
    algorithm, aggregator = build_algorithm(experiment), build_aggregator(experiment)
    if experiment.compression.collect:
        _refuse_uncollectable(algorithm, aggregator)
    return Method(algorithm, aggregator, _pipelines(experiment), own)


def _refuse_uncollectable(algorithm: Algorithm, aggregator: Aggregator) -> None:
    """Raise UserError unless the server sees each client's change of the model."""
    reason = ""
    if aggregator.sums_only:
        reason = f"{type(aggregator).__name__} sees only sums of updates"
    elif algorithm.payload != "change":
        reason = f"with {type(algorithm).__name__} clients send {algorithm.payload}"
    if reason:
        raise UserError(
            f"compression.collect keeps each client's change of the model, but {reason}; set "
            "compression.collect: false, or choose the aggregator mean and an algorithm whose "
            "clients send changes, such as fedavg."
        )


def _pipelines(experiment: Experiment, owner: str = "") -> Pipelines:
    """The transforms of both directions; owner: the client whose own codecs these are."""
    upload, download, mechanisms = (
        tuple(kind.build(spec) for spec in kind.specs(experiment))
        for kind in (UPLOAD, DOWNLOAD, MECHANISM)
    )
    feedback = experiment.compression.error_feedback
    return Pipelines(
        Pipeline("upload", upload, mechanisms, feedback and bool(upload), owner),
        Pipeline("download", download, (), feedback and bool(download), owner),
    )
