"""From an experiment to its method: algorithm, aggregator, and what tensors pass on their way."""

from collections.abc import Sequence

from hanse.errors import UserError
from hanse.experiment.assembly import attack
from hanse.experiment.assembly.quorum import promised
from hanse.experiment.declared import loss_remarks
from hanse.experiment.part_kinds import DOWNLOAD, MECHANISM, UPLOAD, spec_name
from hanse.experiment.schema import Experiment, build_aggregator, build_algorithm
from hanse.federation.client_sampling import fraction_asked, taking_part
from hanse.federation.interfaces.declarations import AT_SERVER
from hanse.federation.interfaces.transform import Transform
from hanse.federation.method import Method
from hanse.federation.pipeline import Pipeline, Pipelines
from hanse.randomness import RoundContext


def build_method(experiment: Experiment) -> Method:
    """The method, with its parts' settings; raises UserError if they do not fit together."""
    own = {
        name: _pipelines(experiment.for_client(name), owner=name)
        for name, settings in experiment.clients.items()
        if "compression" in settings
    }
    algorithm, aggregator = build_algorithm(experiment), build_aggregator(experiment)
    method = Method(algorithm, aggregator, _pipelines(experiment), own)
    attack.refuse_unattackable(experiment, method)
    if experiment.compression.collect and (reason := _uncollectable(method)):
        raise UserError(
            f"compression.collect keeps each client's change of the model, but {reason}, or set "
            "compression.collect: false."
        )
    return method


def refuse_unserved(experiment: Experiment, timed: bool) -> None:
    """Raise UserError for clients of a round, or replies to it, that the aggregator cannot serve.

    timed: messages take time, so that `deployment.over_selection` asks more clients than the round
    waits for, and `deployment.quorum` lets it do with fewer.
    """
    ratio = experiment.deployment.over_selection if timed else 1.0
    share, names = experiment.fraction_train, experiment.participant_names
    asked = taking_part(len(names), fraction_asked(share, ratio))
    rule = build_aggregator(experiment)
    rule.require_clients(asked)
    rule.require_names(names, asked == len(names))
    if not timed:
        return
    context = RoundContext(experiment.seed, clients=taking_part(len(names), share))
    least = build_method(experiment).least_updates(context)
    _refuse_unawaited(experiment, spec_name(experiment.aggregator), rule.fewest(asked), asked)
    if experiment.privacy is not None:
        _refuse_unawaited(experiment, spec_name(experiment.privacy), least, asked)


def _refuse_unawaited(experiment: Experiment, rule: str, needed: int, asked: int) -> None:
    """Raise UserError if rounds may end with fewer updates than a rule, or a mechanism, needs."""
    clients = len(experiment.participant_names)
    awaited = taking_part(clients, experiment.fraction_train)
    if awaited < needed:
        raise UserError(
            f"a round that asks {asked} clients waits for {awaited} of them "
            f"(deployment.over_selection), and {rule} then needs {needed} updates; set "
            "deployment.over_selection=1, or raise fraction_train."
        )
    if (combined := promised(experiment, clients)) < needed:
        raise UserError(
            f"deployment.quorum lets a round end with {combined} updates, and {rule} needs "
            f"{needed} where {asked} clients are asked; raise deployment.quorum, or choose a rule "
            "or a number of attackers that needs fewer."
        )


def method_remarks(experiment: Experiment, simulated: bool) -> list[str]:
    """Remarks on a run's aggregator, its algorithm, and an attack, if there is anything to say.

    simulated: all clients are in this process.
    """
    remarks = withheld_scores(experiment) + loss_remarks(experiment)
    algorithm, name = build_algorithm(experiment), spec_name(experiment.algorithm)
    if algorithm.resizes_adapter:
        remarks.append(
            f"{name} grows the adapter: bytes, seconds and memory that are told beforehand are "
            "those of the first round, and later ones may take more."
        )
    if algorithm.resizes_adapter and experiment.is_timed:
        remarks.append(
            f"{name} ends its trials by step_seconds, layer_seconds and rate of its own settings, "
            "and not by the seconds of devices and links."
        )
    if setting := algorithm.keeps_model_by:
        remarks.append(
            f"with algorithm.{name}.{setting} the model stays as it is, so the adapter of this run "
            "has learned nothing; leave that setting out to train."
        )
    if (later := algorithm.later_rounds) and experiment.rounds > 1:
        remarks.append(
            f"rounds of {name} after the first {later}: bytes and seconds that are told "
            "beforehand are those of the first round."
        )
    if simulated:
        remarks += attack.remarks(experiment)
        try:
            refuse_unserved(experiment, timed=True)
        except UserError as error:
            remarks.append(f"a deployment of this experiment would be refused: {error}")
    return remarks


def withheld_scores(experiment: Experiment) -> list[str]:
    """A remark on the clients' own rows, if nobody is told of their scores."""
    method = build_method(experiment)
    scored = experiment.evaluation.clients and experiment.data.client_test > 0
    if not (method.withholds_scores and scored):
        return []
    way_out = "choose the aggregator mean" if method.aggregator.sums_only else "set privacy: none"
    return [
        f"{method.withholds_scores}, so no client scores the result on the rows that it holds out "
        f"(data.client_test); {way_out} for these scores, or set data.client_test: 0 to train on "
        "these rows, too."
    ]


def _uncollectable(method: Method) -> str:
    """The reason why the server does not see, or keep, each client's change; or empty."""
    algorithm, aggregator = type(method.algorithm).__name__, type(method.aggregator).__name__
    if method.aggregator.sums_only:
        return f"{aggregator} sees only sums of updates; choose the aggregator mean"
    if method.algorithm.payload != "change":
        return (
            f"with {algorithm} clients send {method.algorithm.payload}; choose an algorithm whose "
            "clients send changes, such as fedavg"
        )
    for pipeline in method.all_pipelines:
        for transform in pipeline.transforms:
            name = type(transform).__name__
            if pipeline.direction == "upload" and transform.stage == "reduce":
                return f"{name} encodes it by fewer numbers; leave {name} out of compression.upload"
            if transform.noise & AT_SERVER:
                return (
                    f"{name} draws noise at the server, and a server that resumes does not get the "
                    f"changes of such a round again; leave {name} out"
                )
    return ""


def _pipelines(experiment: Experiment, owner: str = "") -> Pipelines:
    """The transforms of both directions; owner: the client whose own codecs these are."""
    upload, download, mechanisms = (
        tuple(kind.build(spec) for spec in kind.specs(experiment))
        for kind in (UPLOAD, DOWNLOAD, MECHANISM)
    )
    rule = build_aggregator(experiment)
    mechanisms = tuple(mechanism.beside(rule) for mechanism in mechanisms)
    feedback = experiment.compression.error_feedback
    if feedback and not _lose(upload + download):
        place = f"clients.{owner}: " if owner else ""
        raise UserError(
            f"{place}compression.error_feedback is true, but the codecs of compression lose "
            "nothing; name one that does, or set error_feedback: false."
        )
    return Pipelines(
        Pipeline("upload", upload, mechanisms, feedback and _lose(upload), owner),
        Pipeline("download", download, (), feedback and _lose(download), owner),
    )


def _lose(codecs: Sequence[Transform]) -> bool:
    """True if a list of codecs may lose a part of what it encodes."""
    return not all(codec.lossless for codec in codecs)
