"""Seconds of training by kind of work, from the events of torch's profiler.

An operator's kind follows from its name and from the place that it computes for: the innermost
module or function of known purpose around it. An operator of the backward pass computes for the
place of the forward operator with the same sequence number in autograd's graph. Products in an
adapted layer are the adapter's if a side of one of their matrices is the adapter's rank, also when
one autograd function contains all products of the layer.

Only an operator's own seconds count, without those of the operators that it calls. Views, wrappers
and Python have no kind: their seconds, and those that the profiler adds, are in the gaps.
"""

import sys
from collections import defaultdict
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import wraps
from typing import Any, NamedTuple
from unittest.mock import patch

import torch
from peft.tuners.tuners_utils import BaseTunerLayer
from torch.nn import Module
from torch.profiler import ProfilerActivity, profile, record_function

from hanse.learners.injection.target_modules import is_linear

FROZEN_PRODUCTS, ADAPTER_PRODUCTS = "frozen products", "adapter products"
ADAPTER_SUMS = "adapter scaling and sums"
ATTENTION, NORMS, ROTARY, ACTIVATIONS = "attention", "norms", "rotary", "activations"
RESIDUAL_SUMS = "residual sums"  # also sums of the gradients of a tensor that is read twice
COPIES, OPTIMIZER, OTHER = "copies and casts", "optimizer", "other"
KINDS = (
    *(FROZEN_PRODUCTS, ADAPTER_PRODUCTS, ADAPTER_SUMS, ATTENTION, NORMS, ROTARY, ACTIVATIONS),
    *(RESIDUAL_SUMS, COPIES, OPTIMIZER, OTHER),
)

# Places that are not kinds themselves.
ADAPTED, TRAINED, FROZEN = "adapted layer", "trained layer", "frozen layer"
LAYER, ELSEWHERE = "transformer layer", "elsewhere"

# Places by words in the names of modules' classes; the first that fits decides.
WORDS = {
    **{"Norm": NORMS, "Rotary": ROTARY, "Attention": ATTENTION, "Embedding": ELSEWHERE},
    **{"MLP": ACTIVATIONS, "Intermediate": ACTIVATIONS},
    **{"Layer": LAYER, "Block": LAYER, "Output": LAYER},
}
ACTIVATION_MODULES = ("torch.nn.modules.activation", "transformers.activations")

PRODUCTS = {
    *("mm", "addmm", "addmm_", "bmm", "baddbmm", "baddbmm_", "addbmm", "mv", "addmv"),
    *("_linear_pointwise", "mkldnn_linear"),  # of oneDNN
}
# Operators without a computation of their own: views, allocations, and callers of others.
BOOKKEEPING = {
    *("alias", "as_strided", "chunk", "detach", "detach_", "diagonal", "expand", "expand_as"),
    *("flatten", "lift_fresh", "movedim", "narrow", "permute", "reshape", "_reshape_alias"),
    *("resolve_conj", "resolve_neg", "select", "slice", "split", "split_with_sizes"),
    *("squeeze", "t", "transpose", "unbind", "unflatten", "unfold", "unsqueeze"),
    *("unsafe_chunk", "unsafe_split", "_unsafe_view", "view", "view_as"),
    *("empty", "empty_like", "empty_strided", "new_empty", "new_empty_strided", "resize_"),
    *("result_type", "set_", "requires_grad_"),
    *("zeros", "zeros_like", "new_zeros", "ones", "ones_like", "full", "full_like", "clone"),
    *("contiguous", "to", "_to_copy", "linear", "matmul", "layer_norm"),
    *("scaled_dot_product_attention", "softmax", "log_softmax", "cross_entropy_loss"),
    *("nll_loss", "nll_loss_nd", "dropout", "item"),
}
PREFIX = "place: "  # of the events that tell a place
BACKWARD = "autograd::engine::evaluate_function: "  # of the events around a backward operator


class Event(NamedTuple):
    """One call that the profiler saw; nanoseconds. sequence: of autograd, -1 without one."""

    start: int
    end: int
    name: str
    sequence: int
    shapes: Sequence[Sequence[int]]


class Work(NamedTuple):
    """What an operator computes for: its kind, its name, and its place."""

    kind: str
    operator: str
    place: str


@dataclass
class Call:
    """An event with its place. seconds: its own; backward: the node of autograd around it."""

    event: Event
    place: str
    node: str
    parent: "Call | None"
    seconds: float

    @property
    def is_accumulated(self) -> bool:
        """True for the sum of a gradient with others that autograd does itself."""
        return bool(self.node) and self.parent is not None and self.parent.event.name == self.node


def by_work(work: Callable[[], object], ranks: Collection[int]) -> tuple[dict[Work, float], int]:
    """Seconds of every operator that `work` calls, and the number of events.

    ranks: of the adapters.
    """
    with places(), profile(activities=[ProfilerActivity.CPU], record_shapes=True) as profiler:
        work()
    events = _events(profiler)
    seconds: dict[Work, float] = defaultdict(float)
    for call in calls(events):
        kind = kind_of(call, ranks)
        if kind is not None:
            seconds[Work(kind, call.event.name, call.place)] += call.seconds
    return seconds, len(events)


@contextmanager
def places() -> Iterator[None]:
    """Within this context, modules and functions of known purpose tell their place to a profiler.

    Modules tell it from around their call, so that hooks of a module belong to it.
    """
    call = Module.__call__

    def placed(module: Module, *args: Any, **kwargs: Any) -> Any:
        place = place_of(module)
        if place is None:
            return call(module, *args, **kwargs)
        with record_function(PREFIX + place):
            return call(module, *args, **kwargs)

    with ExitStack() as stack:
        stack.enter_context(patch.object(Module, "__call__", placed))
        _mark(stack, torch.nn.utils, "clip_grad_norm_", OPTIMIZER)
        for name, module in list(sys.modules.items()):
            if name.startswith("transformers.models.") and "apply_rotary_pos_emb" in vars(module):
                _mark(stack, module, "apply_rotary_pos_emb", ROTARY)
        yield


def _mark(stack: ExitStack, module: Any, name: str, place: str) -> None:
    """Let a module's function tell its place until the stack closes."""
    function = getattr(module, name)

    @wraps(function)
    def placed(*args: Any, **kwargs: Any) -> Any:
        with record_function(PREFIX + place):
            return function(*args, **kwargs)

    stack.enter_context(patch.object(module, name, placed))


def place_of(module: Module) -> str | None:
    """The place that a module is; None if it has no purpose of its own."""
    kind = type(module)
    if isinstance(module, BaseTunerLayer):
        return ADAPTED
    if is_linear(module):
        return TRAINED if any(p.requires_grad for p in module.parameters()) else FROZEN
    if kind.__module__ in ACTIVATION_MODULES:
        return ACTIVATIONS
    return next((place for word, place in WORDS.items() if word in kind.__name__), None)


def kind_of(call: Call, ranks: Collection[int]) -> str | None:
    """The kind of work that a call is; None if it computes nothing itself."""
    namespace, _, operator = call.event.name.partition("::")
    compiled = "Compiled" in namespace  # torch.compile's code is one event
    if not compiled and (
        not operator or namespace in ("autograd", "torch", "profiler") or operator in BOOKKEEPING
    ):
        return None
    if call.place == OPTIMIZER or operator.startswith(("_foreach_", "_fused_adam", "_fused_sgd")):
        return OPTIMIZER
    if operator in PRODUCTS:
        return _kind_of_product(call, ranks)
    if operator == "copy_":
        return COPIES
    if call.is_accumulated:
        return ADAPTER_SUMS if _is_adapters(call) else RESIDUAL_SUMS
    if call.place in (ADAPTED, TRAINED):
        return ADAPTER_SUMS
    if call.place == LAYER:
        return RESIDUAL_SUMS if operator in ("add", "add_", "sum") else OTHER
    return call.place if call.place in KINDS else OTHER


def _kind_of_product(call: Call, ranks: Collection[int]) -> str:
    if call.place == ATTENTION:
        return ATTENTION
    sides = {side for shape in call.event.shapes for side in shape}
    adapter = call.place == TRAINED or (call.place == ADAPTED and not sides.isdisjoint(ranks))
    return ADAPTER_PRODUCTS if adapter else FROZEN_PRODUCTS


def _is_adapters(call: Call) -> bool:
    """True if a gradient would not be summed without the adapter.

    The gradient of an autograd function in Python is that of the whole adapted layer. The names of
    torch's own nodes end in a digit.
    """
    return call.place == TRAINED or (call.place == ADAPTED and call.node[-1].isdigit())


def _events(profiler: profile) -> list[Event]:
    """The profiler's events in the thread of the first, in order, callers before what they call."""
    results: Any = profiler.profiler.kineto_results if profiler.profiler else None
    events = results.events()
    first = min(events, key=lambda event: event.start_ns()).start_thread_id()
    rows = [
        Event(e.start_ns(), e.end_ns(), e.name(), e.sequence_nr(), e.shapes())
        for e in events
        if e.start_thread_id() == first
    ]
    return sorted(rows, key=lambda row: (row.start, -row.end))


def calls(events: Sequence[Event]) -> list[Call]:
    """The events, in order, with their own seconds and their places."""
    found: list[Call] = []
    stack: list[Call] = []
    forward: dict[int, str] = {}  # places of the forward pass, by autograd's sequence number
    for event in events:
        while stack and stack[-1].event.end <= event.start:
            stack.pop()
        parent = stack[-1] if stack else None
        call = _call(event, parent, forward)
        if parent is not None:
            parent.seconds -= call.seconds
        if event.sequence >= 0 and not call.node:
            forward[event.sequence] = call.place  # of several, the last one makes the node
        stack.append(call)
        found.append(call)
    return found


def _call(event: Event, parent: Call | None, forward: dict[int, str]) -> Call:
    """An event with its place, which is its parent's unless its name tells another."""
    place, node = (parent.place, parent.node) if parent else (ELSEWHERE, "")
    if event.name.startswith(PREFIX):
        place = event.name.removeprefix(PREFIX)
    elif event.name.startswith("Optimizer.") or event.name.endswith("::AccumulateGrad"):
        place = OPTIMIZER
    elif event.name.startswith(BACKWARD):
        place, node = forward.get(event.sequence, ELSEWHERE), event.name
    elif "::" not in event.name and not node:
        place = _of_function(event.name) or place
    return Call(event, place, node, parent, (event.end - event.start) / 1e9)


def _of_function(name: str) -> str | None:
    """The place that the name of an autograd function in Python tells."""
    return next((WORDS[word] for word in ("Norm", "Rotary") if word in name), None)
