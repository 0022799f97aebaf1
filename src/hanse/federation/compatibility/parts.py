"""The check that a method's parts fit together, before any client is asked."""

from collections.abc import Mapping
from itertools import pairwise
from types import MappingProxyType

from hanse import registry
from hanse.errors import UserError
from hanse.federation.codecs.quantizer import Quantizer
from hanse.federation.compatibility import privacy
from hanse.federation.interfaces.aggregator import Aggregator
from hanse.federation.interfaces.algorithm import Algorithm
from hanse.federation.interfaces.declarations import (
    AT_SENDER,
    EVERYTHING,
    MEAN,
    NUMBERS,
    STAGES,
    UPDATES,
    WEIGHED,
    Stage,
)
from hanse.federation.interfaces.transform import Transform
from hanse.federation.pipeline import Pipeline, Pipelines
from hanse.federation.robust.rule import RobustRule

PLAIN = Pipelines()  # without transforms
CODECS = "federation/compression"  # the folder of the package's codecs
RULES = "federation/aggregators"  # and of its aggregators
NONE: Mapping[str, Pipelines] = MappingProxyType({})
WORDS = {
    UPDATES: "each client's update",
    WEIGHED: "each client's update",
    MEAN: "the mean of all updates by their weights",
    NUMBERS: "the means of the numbers that clients report",
}


def check(
    algorithm: Algorithm,
    aggregator: Aggregator,
    pipelines: Pipelines = PLAIN,
    own: Mapping[str, Pipelines] = NONE,
) -> None:
    """Raise UserError for parts that do not fit together; it names a part and a way out.

    own: the pipelines of clients with compression of their own, by client.
    """
    _check_aggregator(algorithm, aggregator)
    if aggregator.agrees:
        _check_comparison(algorithm, aggregator, own)
    _check_pipelines(algorithm, aggregator, pipelines, "")
    for mechanism in pipelines.upload.mechanisms:
        privacy.check(algorithm, aggregator, mechanism, [pipelines, *own.values()])
    for client, others in own.items():
        place = f"clients.{client}: "
        _check_pipelines(algorithm, aggregator, others, place)
        _refuse_weights(others, place)
        if aggregator.sums_only and others.upload.transforms != pipelines.upload.transforms:
            raise UserError(
                f"{place}{type(aggregator).__name__} adds the clients' updates up, so all must be "
                "encoded alike; leave this client's own compression out, or choose the aggregator "
                "mean."
            )


def _check_comparison(
    algorithm: Algorithm, aggregator: Aggregator, own: Mapping[str, Pipelines]
) -> None:
    """Raise UserError for requests that clients cannot compare, since they may be unlike."""
    name, rule = type(algorithm).__name__, type(aggregator).__name__
    reason = f"{rule} lets clients compare their requests"
    if settings := algorithm.unlike_instructions:
        raise UserError(
            f"{reason}, but with {settings} {name} may send each of them another one; choose an "
            "algorithm and settings with which all get the same, or the aggregator mean."
        )
    for client in own:
        raise UserError(
            f"clients.{client}: {reason}, so all must be encoded alike; leave this client's own "
            "compression out, or choose the aggregator mean."
        )


def _refuse_weights(pipelines: Pipelines, place: str) -> None:
    """Raise UserError for a codec with weights that one client alone would have."""
    for transform in (*pipelines.upload.codecs, *pipelines.download.codecs):
        if type(transform).weights is not Transform.weights:
            codec = type(transform).__name__
            raise UserError(
                f"{place}{codec} has weights, and files are sent to all clients or none; name "
                f"{codec} in the compression of all, or leave it out here."
            )


def _check_pipelines(
    algorithm: Algorithm, aggregator: Aggregator, pipelines: Pipelines, place: str
) -> None:
    """Raise UserError for a transform that does not fit; place: where the settings name it."""
    name = type(algorithm).__name__
    for pipeline in pipelines.both:
        payload = (
            algorithm.payload if pipeline.direction == "upload" else algorithm.instruction_payload
        )
        verb = "sends" if pipeline.direction == "upload" else "instructs clients by"
        for transform in pipeline.transforms:
            codec = type(transform).__name__
            if payload not in transform.payloads:
                raise UserError(
                    f"{place}{codec} takes {' or '.join(transform.payloads)}, but {name} {verb} "
                    f"{payload}; leave {codec} out of {_setting(pipeline, transform)}."
                )
        if pipeline.direction == "upload":
            _check_scores(algorithm, pipeline, place)
        _check_noise(pipeline, place)
        _check_order(pipeline, place)
        if pipeline.error_feedback:
            _check_feedback(pipeline, f"{name} {verb}", payload, place)
    _check_upload(algorithm, aggregator, pipelines.upload, place)


def _check_scores(algorithm: Algorithm, upload: Pipeline, place: str) -> None:
    """Raise UserError for a lossy codec of scores: those that are near each other would be equal.

    An algorithm that leaves the model as it is sends such scores in place of an update.
    """
    lossy = [codec for codec in upload.codecs if not codec.lossless]
    if algorithm.keeps_model_by and lossy:
        name, codec = type(algorithm).__name__, type(lossy[0]).__name__
        raise UserError(
            f"{place}{name} with {algorithm.keeps_model_by} sends a few scores, which {codec} "
            f"would change; leave {codec} out of compression.upload."
        )


def _check_upload(
    algorithm: Algorithm, aggregator: Aggregator, upload: Pipeline, place: str
) -> None:
    """Raise UserError for a transform that needs to see more, or less, than the rule does."""
    rule = type(aggregator).__name__
    for transform in upload.transforms:
        codec, setting = type(transform).__name__, _setting(upload, transform)
        if "share" in transform.noise and not aggregator.sums_only:
            raise UserError(
                f"{place}{codec} draws noise that protects only sums over clients, and {rule} sees "
                "each client's update; choose an aggregator that sees only sums, such as secagg, "
                f"or leave it out of {setting}."
            )
        if aggregator.sums_only and not transform.linear:
            way_out = f"choose the aggregator mean, or leave it out of {setting}"
            if setting == "privacy" and (others := privacy.sharing()):
                way_out = f"choose privacy: {others}, whose noise adds up, or the aggregator mean"
            if aggregator.rounds_by and transform.stage == "quantize":
                way_out = f"leave it out of {setting}, and set {aggregator.rounds_by} in its place"
            elif not place and (others := _linear(transform.stage, algorithm.payload)):
                way_out = f"choose the aggregator mean, or name {others} in its place in {setting}"
            raise UserError(
                f"{place}{rule} sees only sums, but {codec} needs each client's update; {way_out}."
            )


def _linear(stage: Stage | None, payload: str) -> str:
    """The package's codecs of a stage that fit a rule which sees sums only: "a or b", or empty."""
    parts = {name: registry.find(CODECS, name) for name in registry.names(CODECS)} if stage else {}
    return " or ".join(
        name
        for name, part in parts.items()
        if issubclass(part, Transform)
        and (part.linear, part.stage) == (True, stage)
        and payload in part.payloads
    )


def _setting(pipeline: Pipeline, transform: Transform) -> str:
    """The setting that names a transform of a pipeline."""
    is_mechanism = any(transform is mechanism for mechanism in pipeline.mechanisms)
    return "privacy" if is_mechanism else f"compression.{pipeline.direction}"


def _check_noise(pipeline: Pipeline, place: str) -> None:
    """Raise UserError for a download that draws noise when it encodes, which nothing keeps."""
    noisy = [t for t in pipeline.transforms if t.noise & AT_SENDER]
    if pipeline.direction == "download" and noisy:
        raise UserError(
            f"{place}{type(noisy[0]).__name__} draws noise when it encodes, and a server that "
            "resumes encodes its instructions again; leave it out of compression.download."
        )


def _check_order(pipeline: Pipeline, place: str) -> None:
    """Raise UserError for codecs in an order in which one finds nothing to encode."""
    setting, order = f"compression.{pipeline.direction}", list(STAGES)
    stages = [(codec, codec.stage) for codec in pipeline.codecs if codec.stage]
    for (earlier, before), (later, after) in pairwise(stages):
        first, second = type(earlier).__name__, type(later).__name__
        if before == after:
            raise UserError(
                f"{place}{first} and {second} both {STAGES[after]}; leave one of them out of "
                f"{setting}."
            )
        if order.index(before) > order.index(after):
            raise UserError(
                f"{place}{second} comes after {first}, which leaves it no numbers to encode; name "
                f"{second} before {first} in {setting}."
            )


def _check_feedback(pipeline: Pipeline, sentence: str, payload: str, place: str) -> None:
    """Raise UserError for error feedback around contents or codecs whose losses it cannot add up.

    sentence: subject and verb of the payload.
    """
    if payload not in ("change", "model"):
        raise UserError(
            f"{place}{sentence} {payload}, whose meaning changes from round to round, and error "
            "feedback would add what one round lost to the other numbers of the next; set "
            "compression.error_feedback: false."
        )
    hiding = [part for part in pipeline.mechanisms if part.relimits]
    if hiding:
        name = type(hiding[0]).__name__
        raise UserError(
            f"{place}{name} limits an update before error feedback adds what earlier rounds "
            "lost, so a longer one would leave the client and be cut at the server; write "
            "compression.error_feedback: false."
        )
    _check_products(pipeline, place)
    losing = [codec for codec in pipeline.codecs if not codec.contractive]
    if losing:
        name = type(losing[0]).__name__
        raise UserError(
            f"{place}{name} with these settings loses more than the update itself, and error "
            f"feedback would add that up without bound; choose other settings of {name}, or "
            "compression.error_feedback: false."
        )


def _check_products(pipeline: Pipeline, place: str) -> None:
    """Raise UserError for error feedback around products of matrices that are rounded at random.

    A codec that loses less than each of two factors may lose more than their product.
    """
    products = [codec for codec in pipeline.codecs if codec.multiplies]
    for codec in pipeline.codecs:
        if products and isinstance(codec, Quantizer) and codec.rounding == "stochastic":
            first, second = type(products[0]).__name__, type(codec).__name__
            raise UserError(
                f"{place}{first} sends matrices as products, and {second} with stochastic rounding "
                "may lose more than they have, which error feedback would add up; set rounding: "
                f"nearest of {second}, or compression.error_feedback: false."
            )


def _check_aggregator(algorithm: Algorithm, aggregator: Aggregator) -> None:
    """Raise UserError unless the rule takes what the algorithm sends, and gives what it needs."""
    name, rule = type(algorithm).__name__, type(aggregator).__name__
    if algorithm.payload not in aggregator.payloads:
        taken, instead = " or ".join(aggregator.payloads), _instead(algorithm, aggregator)
        raise UserError(
            f"{rule} takes {taken}, but {name} sends {algorithm.payload}; choose the aggregator "
            f"{instead}, or another algorithm."
        )
    missing = " and ".join(_missing(algorithm, aggregator))
    if not missing:
        return
    other = "another algorithm"
    if algorithm.needs == EVERYTHING:
        other = f"declare what {name} needs, if it is less"
    reason = f"{name} needs {missing}, which {rule} does not give"
    if aggregator.sums_only:
        reason = f"{rule} sees only sums, but {name} needs {missing}"
        other = f"the algorithm {algorithm.for_sums}" if algorithm.for_sums else other
    instead = _instead(algorithm, aggregator)
    raise UserError(f"{reason}; choose the aggregator {instead}, or {other}.")


def _missing(algorithm: Algorithm, aggregator: Aggregator | type[Aggregator]) -> list[str]:
    """The contents of an aggregate, in words, that an algorithm needs and a rule does not give."""
    needed = {*algorithm.needs}
    needed |= {UPDATES} if algorithm.combines and WEIGHED not in needed else set()
    needed |= {NUMBERS} if algorithm.numbers else set()
    given = {*aggregator.gives, *([WEIGHED] if UPDATES in aggregator.gives else [])}
    given -= {UPDATES, WEIGHED} if aggregator.sums_only else set()
    return list(dict.fromkeys(words for need, words in WORDS.items() if need in needed - given))


def _instead(algorithm: Algorithm, aggregator: Aggregator) -> str:
    """Rules in place of one that does not fit: for one that bears attackers others that do."""
    robust = [
        name
        for name in (registry.names(RULES) if isinstance(aggregator, RobustRule) else ())
        if issubclass(part := registry.find(RULES, name), RobustRule)
        and algorithm.payload in part.payloads
        and not _missing(algorithm, part)
    ]
    return " or ".join(robust) or "mean"
