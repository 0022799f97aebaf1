"""The silos that no plan can serve, with the least bound that one would meet."""

from hanse.errors import UserError
from hanse.planning.fedpipe.problem import Choice, Problem, SiloChoices


def refuse_unfit(problem: Problem) -> None:
    """Raise UserError for silos whose machines hold no form of training within the bounds.

    A form alone, without any adapter, is the least that a silo can do; a rank only adds to it.
    """
    reasons = [reason for silo in problem.silos if (reason := _unfit(silo, problem.seconds))]
    if reasons:
        raise UserError("; ".join(reasons) + ".")


def _unfit(silo: SiloChoices, seconds: float) -> str:
    """The reason why no form of training fits at a silo; empty if one does."""
    held = [form for form in silo.forms if form.memory <= silo.memory]
    if not held:
        least = min(silo.forms, key=lambda form: form.memory)
        return (
            f"{silo.name} has {silo.memory / 1e9:.2f} GB for training, and the least that would "
            f"fit is {least.name} with {least.memory / 1e9:.2f} GB; give it more memory, a smaller "
            "model, or shorter rows"
        )
    fastest = min(held, key=_seconds)
    if fastest.seconds > seconds:
        return (
            f"{silo.name} takes {fastest.seconds:.1f} s for a round by {fastest.name}, the fastest "
            f"that its memory holds, and the bound is {seconds:.1f} s; raise the bound to that, or "
            "let it train on fewer rows in a round"
        )
    return ""


def _seconds(choice: Choice) -> float:
    return choice.seconds
