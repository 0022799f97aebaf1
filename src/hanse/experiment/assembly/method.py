"""From an experiment to its method: algorithm, aggregator, and what tensors pass on their way."""

from hanse.experiment.part_kinds import DOWNLOAD, MECHANISM, UPLOAD
from hanse.experiment.schema import Experiment, build_aggregator, build_algorithm
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
    return Method(algorithm, aggregator, _pipelines(experiment), own)


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
