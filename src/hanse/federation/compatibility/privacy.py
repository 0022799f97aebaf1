"""The check that a mechanism of privacy protects all that a method uses of updates and rows."""

from collections.abc import Sequence

from hanse import registry
from hanse.errors import UserError
from hanse.federation.interfaces.aggregator import Aggregator
from hanse.federation.interfaces.algorithm import Algorithm
from hanse.federation.interfaces.declarations import IN_AGGREGATE, MEAN, NUMBERS
from hanse.federation.interfaces.mechanism import Mechanism
from hanse.federation.interfaces.transform import Transform
from hanse.federation.pipeline import Pipelines

MECHANISMS = "federation/privacy"  # the folder of the package's mechanisms


def check(
    algorithm: Algorithm, aggregator: Aggregator, mechanism: Mechanism, all_: Sequence[Pipelines]
) -> None:
    """Raise UserError for a part that uses more than a mechanism protects.

    all_: the pipelines of all clients.
    """
    if mechanism.noise & IN_AGGREGATE:
        _check_mean(algorithm, aggregator, mechanism, all_)
    if mechanism.protects_rows:
        _check_training(algorithm, mechanism)


def sharing() -> str:
    """The package's mechanisms whose noise adds up in sums: "a or b", or empty."""
    parts = {name: registry.find(MECHANISMS, name) for name in registry.names(MECHANISMS)}
    mechanisms = {n: part for n, part in parts.items() if issubclass(part, Mechanism)}
    return " or ".join(name for name, part in mechanisms.items() if "share" in part.noise)


def _check_mean(
    algorithm: Algorithm, aggregator: Aggregator, mechanism: Mechanism, all_: Sequence[Pipelines]
) -> None:
    """Raise UserError for a part that uses more of the updates than a mechanism adds noise to."""
    name, noisy = type(algorithm).__name__, type(mechanism).__name__
    reason = f"{noisy} adds noise to the mean of the updates' tensors"
    if algorithm.combines or algorithm.numbers or not algorithm.needs <= {MEAN}:
        what = "the numbers that clients report" if algorithm.numbers else "more than this mean"
        raise UserError(
            f"{reason}, and {name} uses {what}, which would be without protection; choose another "
            "algorithm, such as fedavg or fedopt, or privacy: none."
        )
    if MEAN not in aggregator.gives or (mechanism.numbers and NUMBERS not in aggregator.gives):
        raise UserError(
            f"{reason}, and {type(aggregator).__name__} gives no such mean; choose the aggregator "
            "mean, or privacy: none."
        )
    for codec in (codec for own in all_ for codec in own.upload.codecs):
        if mechanism.whole_numbers and not codec.lossless:
            raise UserError(
                f"{noisy} sends whole numbers, whose noise adds up if they arrive as they are, and "
                f"{type(codec).__name__} changes them; leave it out of compression.upload."
            )
        if type(codec).finish is not Transform.finish:
            raise UserError(
                f"{reason}, and {type(codec).__name__} learns from the mean before there is noise; "
                "leave it out of compression.upload, or choose privacy: none."
            )


def _check_training(algorithm: Algorithm, mechanism: Mechanism) -> None:
    """Raise UserError for an algorithm that reads rows, or sends numbers, without protection."""
    name, hiding = type(algorithm).__name__, type(mechanism).__name__
    if not algorithm.fits_once:
        raise UserError(
            f"{hiding} hides each row in one training, and {name} may read rows beside it; choose "
            "another algorithm, such as fedavg or fedprox, or privacy: none."
        )
    for number in set(algorithm.numbers) - set(mechanism.public):
        raise UserError(
            f"{name} needs {number} of each client, which {hiding} withholds; choose another "
            "algorithm, such as fedavg or fedprox, or privacy: none."
        )
