"""Which parts go together, said before any client is asked."""

from collections.abc import Sequence

from hanse.errors import UserError
from hanse.interfaces import Aggregator, Algorithm, Transform


def check(algorithm: Algorithm, upload: Sequence[Transform], aggregator: Aggregator) -> None:
    """Refuse a combination that cannot work: raise UserError with the offender and a way out."""
    rule = type(aggregator).__name__
    if aggregator.sums_only:
        parts: list[Algorithm | Transform] = [algorithm, *upload]
        for part in parts:
            if not part.linear or (part is algorithm and algorithm.combines):
                raise UserError(
                    f"{rule} sees only sums, but {type(part).__name__} needs each client's "
                    f"update; choose the aggregator mean, or another {_sort(part)}."
                )
    for transform in upload:
        if algorithm.payload not in transform.payloads:
            raise UserError(
                f"{type(transform).__name__} takes {' or '.join(transform.payloads)}, but "
                f"{type(algorithm).__name__} sends {algorithm.payload}; leave the transform out."
            )


def _sort(part: Algorithm | Transform) -> str:
    return "algorithm" if isinstance(part, Algorithm) else "transform"
