"""A training in one place, divided over the rounds and clients of a federation."""

import math

from hanse.errors import UserError
from hanse.planning.conversion.draft import SWITCHED_OFF, Choice, Draft, shown

ROUNDS, CLIENTS = 3, 4


def spread(draft: Draft, tool: str) -> None:
    """Divide the passes or steps of a whole training over rounds, and the rows over clients."""
    draft.default("num_clients", CLIENTS, f"{tool} has none; the rows are divided among them")
    draft.default("data.partition", "iid", "every client gets the same mixture")
    if amount(draft, "train.warmup_steps"):
        draft.drop("train.warmup_ratio", "the number of steps precedes it")
    steps = draft.settings.get("train.max_steps")
    if steps and amount(draft, "train.max_steps"):
        draft.drop("train.num_train_epochs", "the number of steps precedes it")
        rounds = _divide(draft, "train.max_steps", "steps in a round")
    else:
        draft.drop("train.max_steps", SWITCHED_OFF)
        draft.default("train.num_train_epochs", 1.0, "")
        rounds = _divide(draft, "train.num_train_epochs", "passes in a round")
        _divide_warmup(draft)
    draft.default("rounds", rounds, f"{tool} has none")


def _divide(draft: Draft, setting: str, unit: str) -> int:
    """Divide a number of steps or passes; returns the number of rounds."""
    total, choice = amount(draft, setting), draft.settings[setting]
    each: float
    if setting == "train.max_steps":
        rounds, each = ROUNDS, max(1, round(total / ROUNDS))
    else:
        rounds = max(ROUNDS, math.ceil(total))
        each = round(total / rounds, 4)
    origin = f"{choice.key}: {total:g} in all" if choice.key else f"{total:g} in all"
    draft.settings[setting] = Choice(each, f"{unit}; {origin}", choice.key)
    return rounds


def _divide_warmup(draft: Draft) -> None:
    """Divide the steps of warm-up as the rows, of which each client has a share."""
    setting = "train.warmup_steps"
    total, clients = amount(draft, setting), amount(draft, "num_clients")
    if total >= 1 and clients >= 1:
        key = draft.settings[setting].key
        comment = f"{key}: {total:g}, divided as the rows are"
        draft.settings[setting] = Choice(max(1, round(total / clients)), comment, key)


def amount(draft: Draft, setting: str) -> float:
    """The number that a setting has, 0 without one; raises UserError for another value."""
    choice = draft.settings.get(setting)
    if choice is None or choice.value is None:
        return 0.0
    try:
        number = float(choice.value)
        if math.isfinite(number):
            return number
    except (TypeError, ValueError):
        pass
    raise UserError(
        f"{choice.key}: {shown(choice.value)} is no number; correct it, and convert the config "
        "again."
    )


def one_adapter(draft: Draft, tool: str, switch: str = "") -> None:
    """Keep one source of the adapter: a trained one, or all weights, or LoRA.

    switch: the key without which the tool trains all weights, whatever else is there.
    """
    if switch and not draft.source.get(switch):
        draft.default("adapter.full", {}, f"without {switch} {tool} trains all weights")
    if "adapter.from" in draft.settings:
        draft.drop("adapter.lora.", "the adapter that training goes on with has it")
        draft.drop("adapter.full", "an adapter is given")
    elif "adapter.full" in draft.settings:
        draft.drop("adapter.lora.", "all weights are trained")
    elif not any(name.startswith("adapter.") for name in draft.settings):
        draft.default("adapter.lora", {}, "")
