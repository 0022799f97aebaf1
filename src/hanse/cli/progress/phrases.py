"""Texts about the state of a command, for both views; the words for one step are in `step_text`."""

from hanse.cli.progress.state import ProgressState
from hanse.observability import step_text
from hanse.observability.steps import ClientReplies, Job, Rounds, Runs, Training, Work
from hanse.reports import formatting

CLOSE = 60.0  # seconds; more time than this is rounded more coarsely


def count(step: ClientReplies | Job) -> str:
    """Units of a work that are done; empty if the total is not known."""
    unit = f" {step.unit}" if isinstance(step, Work) and step.unit else ""
    return f"{step.done:,} of {step.total:,}{unit}" if step.total else ""


def present(step: Runs | Rounds) -> str:
    """The number of the run or round that is under way."""
    return f"{min(step.done + 1, step.total):,} of {step.total:,}"


def rounds(step: Rounds) -> str:
    """The number of the round; 0 is the scoring before all training."""
    return present(step) if step.last else f"0 of {step.total:,}"


def seconds(value: float) -> str:
    """Whole seconds."""
    return formatting.seconds(round(value))


def left(state: ProgressState, now: float) -> str:
    """The time that the run will still take; a dash as long as that is not known."""
    value = state.left(now)
    if value is None:
        return "–"
    grain = 1 if value < CLOSE else 5 if value < 10 * CLOSE else 60
    return f"about {seconds(round(value / grain) * grain)}"


def numbers(state: ProgressState) -> str:
    """The last loss, the speed, and the bytes of the run."""
    parts = []
    if state.trained is not None:
        parts.append(f"loss {state.trained.loss:.3g}")
        parts.append(f"{state.trained.tokens_per_second:,.0f} tokens/s")
    if state.rounds is not None:
        parts.append(f"{formatting.bytes_(state.traffic.down)} down")
        parts.append(f"{formatting.bytes_(state.traffic.up)} up")
    return "   ".join(parts)


def line(state: ProgressState, now: float) -> str:
    """The whole state in one line."""
    run = f"run {present(state.runs)}, " if state.runs else ""
    place = f"round {rounds(state.rounds)}: " if state.rounds else ""
    remaining = "" if state.left(now) is None else f"; {left(state, now)} left"
    return f"{run}{place}{_job(state.job)} ({seconds(now - state.since)}){remaining}"


def _job(job: Job | None) -> str:
    if job is None:
        return "working"
    parts = [step_text.title(job)]
    if job.total:
        parts.append(f"{'step ' if isinstance(job, Training) else ''}{count(job)}")
    if isinstance(job, Training) and job.loss is not None:
        parts.append(f"loss {job.loss:.3g}")
    detail = step_text.detail(job)
    return ", ".join(parts) + (f" ({detail})" if detail else "")
