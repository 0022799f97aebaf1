"""The mark in training: it pulls each bit over a margin until it is right, and then rests.

FedIPR (2109.13236, equation 6) adds α·Σⱼ max(0, m − bⱼγEⱼ) to the loss, with one α for all
models. Here the pull's gradient has a length in proportion to that of the step's own gradient (a
reconstruction), so that one strength serves tensors of all sizes, optimizers and losses.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from math import isfinite
from pathlib import Path

import torch
from torch import Tensor

from hanse.audit.ownership.chance import detection_bound
from hanse.audit.ownership.key import OwnershipKey
from hanse.audit.ownership.places import MarkedPlace, place_of
from hanse.audit.ownership.settings import STRONGEST, OwnershipSettings
from hanse.audit.ownership.share import Move, Moves, share_of
from hanse.errors import UserError
from hanse.federation.interfaces.results import Penalty
from hanse.randomness import RoundContext
from hanse.tensors.low_rank import A, B
from hanse.tensors.named import Tensors


@dataclass
class OwnersMark:
    """One owner's mark in the tensors of a model that is trained.

    averaged: whether what is trained is averaged with what other clients train.
    moves: those of earlier rounds, from which its share of the mean is estimated; none: 1/K is
        taken.
    share: of trigger rows in each batch; 0 without triggers.
    """

    key: OwnershipKey
    settings: OwnershipSettings
    place: MarkedPlace
    averaged: bool = True
    moves: Moves | None = None
    _signs: Tensor = field(init=False)
    _started: tuple[int, float] | None = field(init=False, default=None)  # of this request

    def __post_init__(self) -> None:
        self._signs = torch.tensor(self.key.signs(), dtype=torch.float32)

    @property
    def share(self) -> float:
        return self.settings.share if self.key.triggers else 0.0

    def for_request(self, folder: Path) -> "OwnersMark":
        """A copy for one request of a client that keeps its moves in a folder."""
        moves = Moves(folder, self.key.commitment) if self.averaged else None
        return replace(self, moves=moves)

    def pull(self, start: Tensors, context: RoundContext) -> Penalty:
        """A scalar of each step whose gradient is that of the hinge, scaled; 0 if all bits rest.

        The mean takes away all but p of what a client with the share p moves, so a bit that is
        short of its margin at the start is pulled 1/p times as far. Raises UserError, at the first
        step, if none of the marked tensors is trained.
        """
        self._move(start[self.place.names[0]].device)
        with torch.no_grad():
            measured, size = self.place.measured(start)
            short = (self.settings.margin * size - self._signs * measured).clamp_min(0)
            share = self._share(float((self._signs * measured).mean()), context)
        beyond = (1 / share - 1) * short
        strength = self.settings.strength * max(1.0, 1 / (share * max(1, context.clients)))
        strength = min(strength, STRONGEST)

        def pulled(tensors: Tensors) -> Tensor:
            return self._pulled(tensors, beyond, strength)

        return pulled

    def trained(self, end: Tensors) -> None:
        """Keep how far the marked tensors were moved; end: the tensors after a training."""
        if self.moves is None or self._started is None:
            return
        with torch.no_grad():
            measured, size = self.place.measured(end)
            move = Move(*self._started, float((self._signs * measured).mean()), float(size))
        if all(map(isfinite, move)):  # a training that diverged tells nothing
            self.moves.keep(move)

    def _share(self, present: float, context: RoundContext) -> float:
        """This client's share of the mean; present: where the mark is, for later estimates."""
        if not self.averaged:
            return 1.0
        self._started = self._started or (context.round, present)
        moves = self.moves.before(context.round) if self.moves else []
        return share_of(moves, self._started[1], context.clients)

    def _pulled(self, tensors: Tensors, beyond: Tensor, strength: float) -> Tensor:
        live = {n: tensors[n] for n in self.place.names if tensors[n].requires_grad}
        if not live:
            raise UserError(refusal(self.key))
        measured, size = self.place.measured(tensors)
        aim = self.settings.margin * size.detach() + beyond
        hinge = (aim - self._signs * measured).clamp_min(0)
        wrong = (hinge > 0).float().mean()  # no number is read: a GPU would wait for it
        gradients = torch.autograd.grad(hinge.sum(), [*live.values()], allow_unused=True)
        length = _length([*live.values()], gradients) * strength * wrong.sqrt()
        pairs = zip(live.values(), gradients, strict=True)
        parts = [(t * (g * length)).sum() for t, g in pairs if g is not None]
        return torch.stack(parts).sum(0)

    def _move(self, device: torch.device) -> None:
        if self._signs.device != device:
            self._signs, self.place = self._signs.to(device), self.place.on(device)


def _length(tensors: Sequence[Tensor], gradients: Sequence[Tensor | None]) -> Tensor:
    """The factor that makes the hinge's gradient as long as that of the step; 0 if one is 0."""
    step = [tensor.grad for tensor in tensors if tensor.grad is not None]
    own = _norm([gradient for gradient in gradients if gradient is not None])
    if not step:
        return torch.zeros_like(own)
    return torch.where(own > 0, _norm(step) / own, torch.zeros_like(own))


def _norm(tensors: Sequence[Tensor]) -> Tensor:
    """The length of all numbers of some tensors together."""
    lengths = [torch.linalg.vector_norm(tensor.float()) for tensor in tensors]
    whole: Tensor = torch.linalg.vector_norm(torch.stack(lengths))
    return whole


def refusal(key: OwnershipKey) -> str:
    """The sentence on a mark in tensors that are not trained."""
    return (
        f"the key of {key.owner:.80} marks {key.place} of {key.tensors!r:.80}, and the algorithm "
        "trains none of them; make a key for tensors that it trains, such as one with --place "
        "product, or choose another algorithm."
    )


def laid(
    key: OwnershipKey, settings: OwnershipSettings, trained: Tensors, averaged: bool = True
) -> OwnersMark:
    """A key's mark in these trained tensors; raises UserError if it has no place there."""
    return OwnersMark(key, settings, place_of(key, trained), averaged)


def crowded(mark: OwnersMark, others: Sequence[OwnersMark], unknown: int = 0) -> list[str]:
    """The remark on a mark whose place has too few channels for all marks; empty if it has enough.

    others: those that are known. unknown: the number of silos whose keys are not here, each of
    which may have a mark of as many bits in the same tensors.
    """
    key, channels = mark.key, mark.place.channels
    near = [own for own in others if {*own.place.names} & {*mark.place.names}]
    total = sum(own.key.bits for own in (mark, *near)) + unknown * key.bits
    if total <= channels:
        return []
    whose = f"and those of {len(near)} others in the same tensors are"
    if unknown:
        whose = f"and as many of each of {unknown} other silos, at worst, are"
    return [
        f"the mark of {key.owner:.80}: its {key.bits} bits {whose} {total:,} bits in "
        f"{channels:,} channels, more than they carry, so that each can only count on "
        f"{100 * detection_bound(total, channels):.1f} % of its bits: mark more tensors, or fewer "
        "bits."
    ]


def remarks(mark: OwnersMark) -> list[str]:
    """Remarks on a mark by itself."""
    key = mark.key
    if key.place != "weights" or not all(name.endswith((A, B)) for name in mark.place.names):
        return []
    return [
        f"the mark of {key.owner:.80} lies in LoRA's factors: whoever replaces A by G·A and B by "
        "B·G⁻¹ erases it, and no output changes; a key with --place product bears that."
    ]
