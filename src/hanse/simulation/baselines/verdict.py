"""The verdict of a baseline comparison, in one or two sentences."""

from collections.abc import Sequence

from hanse.journal.baselines_records import FEDERATED, BaselinesRecord, Span

ASKED = {
    "base": "of the base model",
    "alone": "of the silos alone",
    "alone-longer": "of silos alone that train as long as all together",
}
POOLED = {"centralised": "the joint batch", "centralised-small-batch": "a silo's batch"}


def verdict(figures: BaselinesRecord) -> str:
    """The answer to whether federation pays, by the intervals over seeds.

    Federation is compared with the base model, with the silos alone, and with silos alone that
    train as long as all together. It pays if the interval of each difference is above 0. It does
    not pay if the interval of one difference is below 0. Otherwise the answer is not clear.
    """
    lines = {line.name: line for line in figures.summary}
    done = f"{figures.done} of {figures.planned} variants are done"
    if not {FEDERATED, *ASKED} <= lines.keys():
        return f"Nothing can be said yet: {done}."
    gains = {name: _gain(lines[name].against_federated) for name in ASKED}
    sign = 1 if figures.higher_is_better else -1
    against = [f"{lines[n].value:.3f} {what} ({_shown(gains[n])})" for n, what in ASKED.items()]
    sentence = (
        f"{_head(list(gains.values()), sign, _seeds(figures))}: mean {figures.metric} "
        f"{lines[FEDERATED].value:.3f} against {', '.join(against[:-1])} and {against[-1]}"
    )
    if not figures.finished:
        sentence += f", while {done}"
    pooled = [f"{lines[n].value:.3f} with {what}" for n, what in POOLED.items() if n in lines]
    if not pooled:
        return f"{sentence}."
    return f"{sentence}. All rows in one place give {' and '.join(pooled)}."


def _gain(difference: Span) -> Span:
    """Reverse a difference: the other minus federated becomes federated minus the other."""
    value = 0.0 - difference.value
    if difference.low is None or difference.high is None:
        return Span(value)
    return Span(value, -difference.high, -difference.low)


def _seeds(figures: BaselinesRecord) -> int:
    """The number of seeds with which the federation has been trained."""
    federated = [variant for variant in figures.variants if variant.kind == FEDERATED]
    return len({outcome.seed for variant in federated for outcome in variant.seeds})


def _head(gains: Sequence[Span], sign: int, seeds: int) -> str:
    """The first clause of the verdict. sign: 1 if a higher score is better, else -1."""
    bounds = [
        sorted((sign * gain.low, sign * gain.high))
        for gain in gains
        if gain.low is not None and gain.high is not None
    ]
    if len(bounds) < len(gains) and seeds < 2:
        return "One seed is too few to say whether federation pays"
    if len(bounds) < len(gains):
        return "Whether federation pays is not clear here, for not all differences vary by seed"
    if all(low > 0 for low, _ in bounds):
        return "Federation pays here"
    if any(high < 0 for _, high in bounds):
        return "Federation does not pay here"
    return "Whether federation pays is not clear here, for a difference's interval includes 0"


def _shown(gain: Span) -> str:
    if gain.low is None or gain.high is None:
        return f"{gain.value:+.3f}"
    return f"{gain.value:+.3f}, 95 % interval {gain.low:+.3f} to {gain.high:+.3f}"
