"""Declarations of parts: what a part needs of another one, and what it gives."""

from typing import Any, Literal, get_args

# An algorithm's step may need these of the aggregate, and an aggregator may give them.
MEAN = "mean"  # the tensors are the weighted mean of all updates
NUMBERS = "numbers"  # the numbers are the weighted means of those that clients report
UPDATES = "updates"  # the algorithm's `combine` gets each update
# The same, for an algorithm whose `combine` takes means by the weights of the updates. A rule may
# weigh the updates anew. What gives UPDATES gives this, too.
WEIGHED = "weighed"
EVERYTHING = frozenset({MEAN, NUMBERS, UPDATES})

# The settings in which a client may differ from the server; each value includes those before it.
# rank: LoRA's rank and α. layout: the matrices that it trains, and the rank of each; all of its
# tensors are parts of the server's. model: its base model, adapter and tokenizer.
Difference = Literal["none", "rank", "layout", "model"]

# The contents of updates, and of instructions, that a codec may take.
PAYLOADS = ("change", "factors", "logits", "scalars", "model")

# The stage of a codec. In a list the stages come in this order, each at most once; every codec then
# finds the numbers that it encodes. reduce: fewer numbers are sent. quantize: a number takes fewer
# bits; what is left are integers and scales. pack: all tensors become bytes, without loss.
Stage = Literal["reduce", "quantize", "pack"]
STAGES: dict[Stage, str] = {
    "reduce": "reduce how many numbers are sent",
    "quantize": "round numbers to fewer bits",
    "pack": "pack all tensors into bytes",
}


def includes(allowed: Difference, wanted: Difference) -> bool:
    """True if clients that may differ in `allowed` may also differ in `wanted`."""
    order = get_args(Difference)
    return order.index(allowed) >= order.index(wanted)


# Noise of a transform, by the half that draws it.
AT_SENDER, AT_SERVER = frozenset({"encode", "share"}), frozenset({"finish"})
IN_AGGREGATE = frozenset({"finish", "share"})  # a round's aggregate is protected by it


def withdraw(part: type, declaration: str, closed: Any, *methods: str) -> None:
    """Close a declaration in a class that overrides one of these methods without declaring it."""
    if declaration not in vars(part) and any(method in vars(part) for method in methods):
        setattr(part, declaration, closed)
