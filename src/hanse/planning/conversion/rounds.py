"""A training in one place, divided over the rounds and clients of a federation."""

import math

from hanse.planning.conversion.draft import Choice, Draft

ROUNDS, CLIENTS = 3, 4


def spread(draft: Draft, tool: str) -> None:
    """Divide the passes or steps of a whole training over rounds, and the rows over clients."""
    steps, passes = (
        draft.settings.pop(f"train.{name}", None) for name in ("max_steps", "num_train_epochs")
    )
    if steps and steps.value:
        rounds = ROUNDS
        each = max(1, round(float(steps.value) / rounds))
        comment = f"steps in a round; {steps.value} in all"
        draft.settings["train.max_steps"] = Choice(each, comment)
        if passes and "default" not in passes.comment:
            key = passes.comment.partition(":")[0] or "num_train_epochs"
            draft.leave(key, "the number of steps precedes it")
    else:
        total = float(passes.value) if passes else 1.0
        rounds = max(ROUNDS, math.ceil(total))
        comment = f"passes in a round; {total:g} in all"
        draft.settings["train.num_train_epochs"] = Choice(round(total / rounds, 4), comment)
    draft.default("rounds", rounds, f"{tool} has none")
    draft.default("num_clients", CLIENTS, f"{tool} has none; the rows are divided among them")
    draft.default("data.partition", "iid", "every client gets the same mixture")


def one_adapter(draft: Draft) -> None:
    """Keep one source of the adapter: a trained one, or all weights, or LoRA."""
    if "adapter.from" in draft.settings:
        draft.drop("adapter.lora.", "the adapter that training goes on with has it")
        draft.drop("adapter.full", "an adapter is given")
    elif "adapter.full" in draft.settings:
        draft.drop("adapter.lora.", "all weights are trained")
    elif not any(name.startswith("adapter.") for name in draft.settings):
        draft.default("adapter.lora", {}, "")
