"""FedAdapter (Cai et al. 2023, 2205.10162): an adapter grows in depth and width by trials."""

import logging
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import count
from typing import Any, ClassVar

import torch
from pydantic import PositiveFloat, PositiveInt
from torch import Tensor

from hanse.errors import UserError
from hanse.federation.algorithms.fedavg import FedAvg
from hanse.federation.interfaces.algorithm import Client, Server
from hanse.federation.interfaces.declarations import UPDATES
from hanse.federation.interfaces.learner import Learner
from hanse.federation.interfaces.results import Aggregate, State
from hanse.federation.interfaces.trained_tensors import DEPTH, WIDTH
from hanse.federation.messages import ClientProfile, Instruction, Update
from hanse.randomness import RoundContext
from hanse.tensors import layouts
from hanse.tensors.named import (
    Layout,
    RunningMean,
    Tensors,
    add_prefix,
    layout,
    shapes,
    strip_prefix,
)

log = logging.getLogger(__name__)

SAME, DEEPER, WIDER = GROUPS = "same", "deeper", "wider"  # the groups of a trial
SIZE, SPENT, DONE = "size", "spent", "done"  # of the state, beside the groups' tensors
STEPS = "steps"
SCORED_AT_ONCE = 32  # rows
LARGER = {
    "depth": "give the adapter more layers",
    "width": "give the adapter a larger inner size or rank",
}


@dataclass(frozen=True)
class FedAdapter(FedAvg):
    """An adapter in the top layers grows by the better of two steps, or stays, trial by trial.

    The server's adapter is the largest, and the model before training is a part of it: `depth`
    layers from the top, with `width` inner numbers in each. In a trial the clients of each round
    are divided into three groups. They train the part as it is, one layer deeper, and `wider` inner
    numbers wider. When all groups have used the trial's time, the one with the highest accuracy on
    the server's validation rows wins, and the next trial begins with its tensors in all groups.
    Depth and width never shrink. What is added has an effect of zero until it is trained, so that
    the outputs do not jump; the published code draws it at random. Layers below the adapter are
    frozen, and their outputs for a row are cached until the depth changes.

    A trial gives each group budget·(4·depth + 1) seconds; a group trains as many rounds as fit, and
    at least one. A round takes

        steps·(step_seconds + depth·layer_seconds) + 2·bytes / (10⁶·rate)

    seconds with the steps of its slowest client. These seconds are computed, as with the paper's
    tables of devices: measured ones would differ when a run is repeated. The last round ends its
    trial. Reconstruction: clients change groups from round to round, and help the others when the
    time of their group is over; with equal accuracy the smaller part wins. Between two trials the
    server evaluates the group that stays as it is.

    depth, width: of the part before any training. wider: inner numbers that a trial adds.
    budget: τ, in seconds. rate: of a client's link in MB/s, in each direction.
    step_seconds: of one step of the optimizer without any layer; layer_seconds: in addition for
        each layer. The defaults are those of BERT on a Jetson TX2.
    """

    fits_once: ClassVar[bool] = True
    needs: ClassVar[frozenset[str]] = frozenset({UPDATES})
    numbers: ClassVar[tuple[str, ...]] = (STEPS,)
    payload: ClassVar[str] = "factors"
    resets_optimizer: ClassVar[bool] = True  # a client trains parts of other shapes in turn
    example_kinds: ClassVar[tuple[str, ...]] = ("tokens", "label_words", "tags")
    needs_validation: ClassVar[bool] = True
    resizes_adapter: ClassVar[bool] = True

    depth: PositiveInt = 1
    width: PositiveInt = 8
    wider: PositiveInt = 8
    budget: PositiveFloat = 60.0
    rate: PositiveFloat = 1.0
    step_seconds: PositiveFloat = 0.02
    layer_seconds: PositiveFloat = 0.09

    def init(self, server: Server) -> State:
        model = server.learner.tensors()  # the largest, before the learner is made smaller
        self._refuse_beyond(server.learner)
        state = self._trial(model, self.depth, self.width, server)
        if len(_groups(state)) == 1:
            log.warning(
                "fedadapter begins with the whole adapter, so nothing can grow; lower its depth or "
                "width, or give the adapter more layers or a larger inner size"
            )
        return state

    def _refuse_beyond(self, learner: Learner) -> None:
        """Raise UserError for a first part that is larger than the adapter, if that has parts."""
        sizes = {"depth": self.depth, "width": self.width}
        first = shapes(_form(learner, **sizes))
        if first == shapes(_form(learner, depth=1, width=1)):
            return
        for name, size in sizes.items():
            if size > 1 and first == shapes(_form(learner, **{**sizes, name: size - 1})):
                raise UserError(
                    f"fedadapter has {name}: {size}, which is more than the adapter in the "
                    f"experiment has; lower it, or {LARGER[name]}."
                )

    def instruction(
        self, state: State, profile: ClientProfile, context: RoundContext
    ) -> Instruction:
        group = _group(state, profile, context)
        depth, width = self._sizes(state)[group]
        return Instruction(state[group], {DEPTH: depth, WIDTH: width})

    @property
    def unlike_instructions(self) -> str:
        return "its groups of clients"

    def update_layout(self, state: State, profile: ClientProfile, context: RoundContext) -> Layout:
        return layout(state[_group(state, profile, context)])

    def train(self, instruction: Instruction, client: Client) -> Update:
        tensors, result = client.learner.trained(instruction.tensors)
        return Update(tensors, result.numbers(), weight=client.profile.examples)

    def combine(self, updates: Sequence[tuple[ClientProfile, Update]]) -> Aggregate:
        """The mean of each group, which is told by its shapes, and the steps of its slowest."""
        groups: dict[str, list[Update]] = {}
        for _, update in updates:
            groups.setdefault(str(shapes(update.tensors)), []).append(update)
        tensors: dict[str, Tensor] = {}
        numbers, weight = {}, 0.0
        for place, members in enumerate(groups.values()):
            mean = RunningMean()
            for update in members:
                mean.add(update.tensors, update.weight)
            weight += mean.weight
            tensors |= add_prefix(f"{place}.", mean.value())
            numbers[f"{place}.{STEPS}"] = max(update.numbers[STEPS] for update in members)
        return Aggregate(tensors, numbers, weight, tuple(profile.name for profile, _ in updates))

    def step(self, state: State, combined: Aggregate, server: Server) -> State:
        sizes, after = self._sizes(state), dict(state)
        spent, done = dict(state[SPENT]), dict(state[DONE])
        budget = self.budget * (4 * sizes[SAME][0] + 1)
        for part, steps in _parts(combined):
            group = next(g for g in _groups(state) if shapes(state[g]) == shapes(part))
            after[group] = part
            seconds = self.seconds(sizes[group][0], part, steps)
            spent[group] = spent[group] + seconds
            done[group] = spent[group] + seconds > budget
        after |= {"model": layouts.over(after[SAME], state["model"]), SPENT: spent, DONE: done}
        if all(done.values()) or server.context.round == server.context.rounds:
            return self._decided(after, server)
        return after

    def seconds(self, depth: int, part: Tensors, steps: float) -> float:
        """The seconds of a round of one group, as the class describes them."""
        size = sum(tensor.nbytes for tensor in part.values())
        computed = steps * (self.step_seconds + depth * self.layer_seconds)
        return computed + 2 * size / (1e6 * self.rate)

    def _decided(self, state: State, server: Server) -> State:
        """The state after a trial: all go on from the group with the highest accuracy."""
        sizes, groups = self._sizes(state), _groups(state)
        winner, trial = SAME, int(state[SIZE]["trial"])
        if len(groups) > 1:
            scores = {g: _accuracy(server.learner, state[g], sizes[g]) for g in groups}
            winner = max(groups, key=scores.__getitem__)  # the first of equal ones
            shown = ", ".join(f"{group} {score:.4g}" for group, score in scores.items())
            log.info("trial %d: accuracy of %s; %s wins", trial, shown, winner)
        depth, width = sizes[winner]
        model = layouts.over(state[winner], state["model"])
        return self._trial(model, depth, width, server, trial + 1)

    def _trial(
        self, model: Tensors, depth: int, width: int, server: Server, number: int = 1
    ) -> State:
        """The state at the beginning of a trial, whose groups get parts of `model`.

        Groups whose part would be no larger are left out; after the last round all are but one.
        """
        size = {"depth": depth, "width": width, "trial": number}
        state = {"model": model, SIZE: {name: torch.tensor(value) for name, value in size.items()}}
        last = 0 < server.context.rounds == server.context.round
        forms: list[Any] = []
        for group, (own_depth, own_width) in self._sizes(state).items():
            form = _form(server.learner, own_depth, own_width)
            if shapes(form) not in forms and not (last and forms):
                forms.append(shapes(form))
                state[group] = layouts.cut(model, form)
        groups = _groups(state)
        state[SPENT] = {group: torch.tensor(0.0, dtype=torch.float64) for group in groups}
        state[DONE] = {group: torch.tensor(False) for group in groups}
        log.info("trial %d begins with depth %d and width %d: %s", number, depth, width, groups)
        return state

    def _sizes(self, state: State) -> dict[str, tuple[int, int]]:
        """Depth and width of each group; they are the whole adapter's if that has no more."""
        depth, width = int(state[SIZE]["depth"]), int(state[SIZE]["width"])
        sizes = (depth, width), (depth + 1, width), (depth, width + self.wider)
        return dict(zip(GROUPS, sizes, strict=True))


def _form(learner: Learner, depth: int, width: int) -> dict[str, Tensor]:
    """The layout of a part of the adapter."""
    learner.configure({DEPTH: depth, WIDTH: width})
    return layout(learner.parameters())


def _groups(state: Mapping[str, Any]) -> list[str]:
    """The groups of the trial."""
    return [group for group in GROUPS if group in state]


def _group(state: State, profile: ClientProfile, context: RoundContext) -> str:
    """The group of a client in a round, among those that have time left."""
    running = [group for group in _groups(state) if not state[DONE][group]]
    return running[(profile.place + context.round) % len(running)]


def _parts(combined: Aggregate) -> Iterator[tuple[dict[str, Tensor], float]]:
    """The mean tensors of each group in an aggregate, and the steps of its slowest client."""
    for place in count():
        if f"{place}.{STEPS}" not in combined.numbers:
            return
        part = strip_prefix(combined.tensors, f"{place}.")
        yield part, combined.numbers[f"{place}.{STEPS}"]


def _accuracy(learner: Learner, part: Tensors, size: tuple[int, int]) -> float:
    """The share of validation items that a part of the adapter gets right.

    Items are examples with label words or classes, and labelled places in others.
    """
    learner.configure({DEPTH: size[0], WIDTH: size[1]})
    learner.load(part)
    right = total = 0
    with torch.inference_mode():
        for _, batch in learner.batches("validation", SCORED_AT_ONCE):
            judged = bool(batch.choices)
            scores = learner.scores(batch) if judged else learner.forward(batch)
            truth = batch.choice if judged else batch.targets
            right += int((scores.argmax(dim=1) == truth).sum())
            total += len(truth)
    if not total:
        raise UserError(
            "fedadapter chooses among adapters by the server's validation rows, and there are "
            "none; hold some out with data.validation."
        )
    return right / total
