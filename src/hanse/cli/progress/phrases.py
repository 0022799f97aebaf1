"""What has been heard, in words."""

from hanse.cli.progress.state import ProgressState
from hanse.observability.progress import Step
from hanse.reports import formatting

CLOSE = 60.0  # seconds; what is further away is told in less detail


def count(step: Step) -> str:
    """How much of some work is done; nothing if its length is not known."""
    return f"{step.done:,} of {step.total:,}" if step.total else ""


def present(step: Step) -> str:
    """Which unit of some work is under way."""
    return f"{min(step.done + 1, step.total):,} of {step.total:,}"


def rounds(step: Step) -> str:
    """Which round it is; 0 is the scoring before all training."""
    return present(step) if step.numbers else f"0 of {step.total:,}"


def seconds(value: float) -> str:
    """Whole seconds."""
    return formatting.seconds(round(value))


def left(heard: ProgressState, now: float) -> str:
    """How long the run will take, and a dash as long as that is not known."""
    value = heard.left(now)
    if value is None:
        return "–"
    grain = 1 if value < CLOSE else 5 if value < 10 * CLOSE else 60
    return f"about {seconds(round(value / grain) * grain)}"


def numbers(heard: ProgressState) -> str:
    """The last loss, the speed, and what was sent."""
    said = []
    if "loss" in heard.numbers:
        said.append(f"loss {heard.numbers['loss']:.3g}")
    if "tokens_per_second" in heard.numbers:
        said.append(f"{heard.numbers['tokens_per_second']:,.0f} tokens/s")
    if heard.rounds is not None:
        said.append(f"{formatting.bytes_(heard.sent.down)} down")
        said.append(f"{formatting.bytes_(heard.sent.up)} up")
    return "   ".join(said)


def line(heard: ProgressState, now: float) -> str:
    """What is being done, in one line."""
    run = f"run {present(heard.runs)}, " if heard.runs else ""
    place = f"round {rounds(heard.rounds)}: " if heard.rounds else ""
    return f"{run}{place}{_work(heard)} ({seconds(now - heard.since)}){_rest(heard, now)}"


def _work(heard: ProgressState) -> str:
    if heard.work is None:
        return "working"
    said = [heard.work.what]
    if heard.work.total:
        unit = "step " if heard.work.what.startswith("training") else ""
        said.append(f"{unit}{count(heard.work)}")
    if "loss" in heard.work.numbers:
        said.append(f"loss {heard.work.numbers['loss']:.3g}")
    detail = f" ({heard.work.detail})" if heard.work.detail else ""
    return ", ".join(said) + detail


def _rest(heard: ProgressState, now: float) -> str:
    return "" if heard.left(now) is None else f"; {left(heard, now)} left"
