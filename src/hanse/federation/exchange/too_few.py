"""The message for a round with too few updates, and what to do where no wait would help."""

from collections.abc import Sequence

from hanse.journal.records import ClientRecord

LATER = (
    "The simulated links would make these clients late again; raise deployment.deadline, lower "
    "deployment.quorum, or give the clients faster links."
)
NEVER = (
    "So few clients are asked or awaited that no wait would help; raise deployment.quorum or "
    "fraction_train, or choose an aggregator that needs fewer."
)


def message(
    round: int,
    number: int,
    required: int,
    records: Sequence[ClientRecord],
    silent: Sequence[str],
) -> str:
    """One sentence for too few updates, and each client's reason. records: the ledger's."""
    few = f"only {number} of {required} clients' updates" if number else "no client's update"
    return f"{few} could be used in round {round}: {_reasons(records, number, silent)}"


def _reasons(records: Sequence[ClientRecord], number: int, silent: Sequence[str]) -> str:
    """The reason of each client without an update, a sentence each.

    number: of usable updates. silent: the clients that did not answer in time.
    """
    errors = [(record.client, record.error.removesuffix(".")) for record in records if record.error]
    reasons = [f"{client}: {error}." for client, error in errors]
    if reasons:
        return " ".join(reasons)
    if number and silent:
        return f"{', '.join(silent)} did not answer in time."
    if number:
        return "the others have the weight 0."
    # Under a rule that sees sums only the weights are in the sum.
    answered = any(record.kind == "train" and record.answered_at is not None for record in records)
    return "all weights are 0." if answered else "none answered."
