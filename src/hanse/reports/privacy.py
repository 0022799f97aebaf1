"""Sentences on the differential privacy of a run: what it has cost, and what that rests on."""

from hanse.journal.privacy_record import PrivacyRecord


def privacy(record: PrivacyRecord | None) -> str:
    """The promise of a run with its releases in a sentence or two; empty without a mechanism."""
    if record is None:
        return ""
    noise = f"noise multiplier {record.noise_multiplier:.4g}, clip norm {record.clip:.4g}"
    text = f"Differential privacy by {record.mechanism}: {record.sentence()} ({noise})."
    if record.epsilon is None:
        return f"{text} Without a bound on ε nothing is promised."
    budget = f" The budget is ε = {record.budget:g}." if record.budget is not None else ""
    return (
        f"{text}{budget} Whoever has the result learns hardly more about one {record.unit} than "
        f"without it."
    )


def assumptions(record: PrivacyRecord | None) -> tuple[str, ...]:
    """The grounds of a promise of privacy, a sentence each; empty without a promise."""
    return record.assumptions if record and record.epsilon is not None else ()
