"""Sentences on the differential privacy of a run: what it has cost, and what that rests on."""

import math

from hanse.journal.privacy_record import PrivacyRecord

STRONG = 10.0  # an ε above promises little


def privacy(record: PrivacyRecord | None) -> str:
    """The promise of a run with its releases in a sentence or two; empty without a mechanism."""
    if record is None:
        return ""
    noise = f"noise multiplier {record.noise_multiplier:.4g}, clip norm {record.clip:.4g}"
    text = f"Differential privacy by {record.mechanism}: {record.sentence()} ({noise})."
    if record.epsilon is None:
        return f"{text} Without a bound on ε nothing is promised."
    budget = f" The budget is ε = {record.budget:g}." if record.budget is not None else ""
    weak = " So large a factor is a weak promise." if record.epsilon > STRONG else ""
    value = f" = {math.exp(record.epsilon):,.0f}" if record.epsilon <= STRONG else ""
    return (
        f"{text}{budget} No result becomes more than e^ε{value} times as likely by one "
        f"{record.unit}, up to δ.{weak}"
    )


def assumptions(record: PrivacyRecord | None) -> tuple[str, ...]:
    """The grounds of a promise of privacy, a sentence each; empty without a promise."""
    return record.assumptions if record and record.epsilon is not None else ()
