"""The server's half of a secure sum: it forwards keys and shares, and removes the masks of the sum.

It adds masked summands, of which each is uniform by itself. What the survivors reveal removes the
masks from the sum of all survivors, and from no other sum.
"""

import logging
import random
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence, Sized
from dataclasses import dataclass, field

import torch
from torch import Tensor

from hanse.errors import UserError
from hanse.federation import sums
from hanse.federation.interfaces.aggregator import Exchange, TooFewClientsError
from hanse.federation.messages import ClientProfile, Instruction, Update
from hanse.federation.secure_sums import grid
from hanse.federation.secure_sums.bitmap import bitmap
from hanse.federation.secure_sums.contents import to_tensors
from hanse.federation.secure_sums.grid import Grid, Words
from hanse.federation.secure_sums.plan import Plan, graph
from hanse.federation.secure_sums.statements import INDEX, KEYS, SIGNATURE, Advertisement
from hanse.federation.secure_sums.streams import B_TEXT, pair_text
from hanse.journal.summed import OpenedSum
from hanse.security import mask_streams
from hanse.security.round_keys import (
    TAG,
    b_seed,
    is_commitment,
    is_usable,
    public_mask_key,
    seed_between,
)
from hanse.security.secret_sharing import SHARE, is_share, rebuild
from hanse.tensors.named import from_bytes, to_bytes
from hanse.tensors.serialization import MessageError

BOX = 2 * SHARE + TAG  # bytes of two encrypted shares with their tag
TRIES = 200  # of random sets of shares, since some shares may be wrong

log = logging.getLogger(__name__)


@dataclass
class Collection:
    """The server's part in one try of a round.

    indices: the places of all clients of the run among them, from 1.
    patience: seconds to wait for the answers to a step without training.
    advertised: the keys of the clients that take part, as they came.
    pairs: the neighbours of each client that have shared their secrets with it, and it with them.
    """

    exchange: Exchange
    plan: Plan
    grid: Grid
    round: int
    patience: float
    indices: dict[str, int] = field(init=False)
    advertised: dict[str, Advertisement] = field(default_factory=dict)
    pairs: dict[str, tuple[str, ...]] = field(default_factory=dict)
    _survivors: set[str] = field(default_factory=set)
    _summed: tuple[str, ...] = field(init=False)

    def __post_init__(self) -> None:
        self.indices = {name: i for i, name in enumerate(self.exchange.participants, start=1)}
        opened = self.exchange.summed
        self._summed = opened.names if opened else ()
        if missing := [name for name in self._summed if name not in self.exchange.profiles]:
            raise UserError(
                f"the sum of the updates of {', '.join(self._summed)} in round {self.round} may be "
                "known already, so that the round can be repeated with these alone; start "
                f"{', '.join(missing)} and then the server again."
            )

    def sum(self) -> tuple[dict[str, Tensor], float, list[str]]:
        """The sum of the survivors' summands, the count of clipped numbers, and the survivors."""
        self._collect_keys()
        boxes = self._collect_shares()
        total, survivors = self._collect_summands(boxes)
        revealed = self._collect_secrets(survivors)
        self._remove_masks(total, survivors, revealed)
        whole = sums.whole(self.exchange.summand_layout())
        if self.grid.overflows(total, len(survivors), whole):
            raise UserError(
                f"the sum of the masked updates of {', '.join(survivors)} has numbers that no sum "
                "of theirs can have; one of them is wrong, nobody can tell which, and the sum is "
                "not used. Look after these silos."
            )
        return *self.grid.decode(total, whole), survivors

    @property
    def dropped(self) -> list[str]:
        """Clients without a masked summand whose masks with survivors are in the sum."""
        return [name for name in self.pairs if name not in self._survivors]

    def _collect_keys(self) -> None:
        """Step 1: every client's advertisement of its keys."""
        digest = from_bytes(self.exchange.digest())
        numbers = {"clients": float(self.plan.clients), "weight_bound": self.grid.weight_bound}
        asked = dict.fromkeys(
            self._summed or self.exchange.profiles, Instruction({"request": digest}, numbers)
        )
        for profile, update in self._ask("keys", asked, {"keys": INDEX + KEYS + SIGNATURE}):
            sent = Advertisement.from_bytes(to_bytes(update.tensors["keys"]))
            if sent.index == self.indices[profile.name] and is_usable(sent.keys):
                self.advertised[profile.name] = sent
            else:
                log.warning("the keys of %s cannot be used; it is left out", profile.name)
        self._refuse_few(self.advertised, self.least)

    def _collect_shares(self) -> dict[str, dict[str, Tensor]]:
        """Step 2: encrypted shares, by receiver and sender; neighbours are drawn at random."""
        neighbours = graph([*self.advertised], self.plan, random.SystemRandom())
        asked, expected = {}, {}
        for name, peers in neighbours.items():
            texts = {peer: self.advertised[peer].to_bytes() for peer in peers}
            asked[name] = Instruction(to_tensors(texts))
            expected[name] = {peer: _bytes(BOX) for peer in peers}
        sent = {
            profile.name: dict(update.tensors)
            for profile, update in self.exchange.ask(
                "shares", asked, expected, patience=self.patience
            )
        }
        self._refuse_few(sent, self.least)
        self.pairs = {
            name: tuple(peer for peer in neighbours[name] if peer in sent) for name in sent
        }
        return {name: {peer: sent[peer][name] for peer in self.pairs[name]} for name in sent}

    def _collect_summands(
        self, boxes: Mapping[str, Mapping[str, Tensor]]
    ) -> tuple[Words, list[str]]:
        """Step 3: the sum of the masked summands, and the clients that sent one."""
        notes = {name: Instruction(own) for name, own in boxes.items()}
        total, survivors = self.grid.zeros(self.exchange.summand_layout()), []
        for profile, summand in self.exchange.sealed(notes):
            for name, words in grid.from_tensors(summand).items():
                total[name] += words
            survivors.append(profile.name)
            del summand  # or it would stay in memory while the next client trains
        self._survivors = set(survivors)
        self._refuse_few(survivors, self.least)  # before any sum is opened
        return total, survivors

    def _collect_secrets(self, survivors: Sequence[str]) -> dict[str, dict[str, bytes]]:
        """Steps 4 and 5: shares by the client that revealed them, once all have the same list."""
        bits = bitmap((self.indices[name] for name in survivors), len(self.indices))
        listing = Instruction({"survivors": from_bytes(bits)})
        asked = dict.fromkeys(survivors, listing)
        signatures = {
            profile.name: update.tensors["signature"]
            for profile, update in self._ask("survivors", asked, {"signature": SIGNATURE})
        }
        self._refuse_few(signatures, self.plan.quorum)
        if not self._summed:
            bound = self.grid.weight_bound
            self.exchange.note_sum(OpenedSum(tuple(survivors), self.plan.clients, bound))
        asked, expected = {}, {}
        for name in signatures:
            known = {peer: signatures[peer] for peer in self.pairs[name] if peer in signatures}
            asked[name] = Instruction(known)
            expected[name] = {peer: _bytes(SHARE) for peer in self.pairs[name]}
            expected[name][name] = _bytes(SHARE)
        revealed = {
            profile.name: {peer: to_bytes(share) for peer, share in update.tensors.items()}
            for profile, update in self.exchange.ask(
                "unmask", asked, expected, patience=self.patience
            )
        }
        return revealed

    def _remove_masks(
        self, total: Words, survivors: Sequence[str], revealed: Mapping[str, Mapping[str, bytes]]
    ) -> None:
        """Subtract the survivors' own masks, and those of pairs whose other half is not there."""
        own = [self._own_seed(name, revealed) for name in survivors]
        keys = {name: self._private_key(name, revealed) for name in self.dropped}
        flat = [array.reshape(-1) for array in total.values()]
        for secret in own:
            mask_streams.add(flat, b_seed(secret, B_TEXT), -1)
        for name, private in keys.items():
            for peer in self.pairs[name]:
                if peer in self._survivors:
                    seed = self._pair_seed(private, name, peer)
                    sign = 1 if self.indices[peer] < self.indices[name] else -1
                    mask_streams.add(flat, seed, -sign)

    def _pair_seed(self, private: bytes, name: str, peer: str) -> bytes:
        """The seed of the mask between a client that has dropped out and a survivor.

        private: the dropped client's key. Raises UserError for keys that honest clients refuse.
        """
        public = self.advertised[peer].keys.mask
        try:
            return seed_between(private, public, pair_text(self.round, name, peer))
        except MessageError as error:
            raise UserError(
                f"the mask between {name} and {peer} cannot be removed, so that the sum of this "
                f"round stays masked: {error}. Look after {name} and {peer}."
            ) from None

    def _own_seed(self, name: str, revealed: Mapping[str, Mapping[str, bytes]]) -> bytes:
        """The seed of a survivor's own mask."""
        commitment = self.advertised[name].keys.commitment
        return self._rebuilt(name, revealed, lambda secret: is_commitment(commitment, secret))

    def _private_key(self, name: str, revealed: Mapping[str, Mapping[str, bytes]]) -> bytes:
        """The private key of the masks of a client that has dropped out."""
        public = self.advertised[name].keys.mask
        return self._rebuilt(name, revealed, lambda secret: public_mask_key(secret) == public)

    def _rebuilt(
        self,
        name: str,
        revealed: Mapping[str, Mapping[str, bytes]],
        fits: Callable[[bytes], bool],
    ) -> bytes:
        """A client's secret from shares of its neighbours and itself; wrong ones are left out."""
        holders = [peer for peer in (name, *self.pairs[name]) if peer in revealed]
        shares = {
            self.indices[peer]: revealed[peer][name]
            for peer in holders
            if is_share(revealed[peer][name])
        }
        threshold = self.plan.threshold
        if len(shares) < threshold:
            raise TooFewClientsError(len(shares), threshold)
        for places in _subsets(sorted(shares), threshold):
            secret = _rebuilt_from({place: shares[place] for place in places}, threshold)
            if secret is not None and fits(secret):
                return secret
        raise UserError(
            f"the shares of {name}'s secret do not fit together, so that the sum of this round "
            f"stays masked: a silo has sent wrong shares. Look after {', '.join(holders)}."
        )

    def _ask(
        self, kind: str, asked: Mapping[str, Instruction], sizes: Mapping[str, int]
    ) -> Iterable[tuple[ClientProfile, Update]]:
        """Ask for tensors of bytes of these sizes."""
        expected = {name: _bytes(size) for name, size in sizes.items()}
        return self.exchange.ask(
            kind, asked, dict.fromkeys(asked, expected), patience=self.patience
        )

    @property
    def least(self) -> int:
        """The fewest clients whose sum is revealed; all of those whose sum may be known already."""
        return len(self._summed) or max(self.plan.quorum, self.exchange.required)

    def _refuse_few(self, left: Sized, least: int) -> None:
        """Raise TooFewClientsError if too few clients are left."""
        if len(left) < least:
            raise TooFewClientsError(len(left), least)


def _bytes(size: int) -> Tensor:
    return torch.empty(size, dtype=torch.uint8, device="meta")


def _subsets(places: Sequence[int], size: int) -> Iterator[Sequence[int]]:
    """Sets of places: the first ones, which do unless a silo lies, and then random ones."""
    yield places[:size]
    generator = random.SystemRandom()
    for _ in range(TRIES if len(places) > size else 0):
        yield sorted(generator.sample(places, size))


def _rebuilt_from(shares: Mapping[int, bytes], threshold: int) -> bytes | None:
    """The secret behind these shares; None if they are not of one secret."""
    try:
        return rebuild(shares, threshold)
    except MessageError:
        return None
