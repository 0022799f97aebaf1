"""The client's half of a secure sum: its secrets of one try, from its keys to what it reveals.

Each step is answered once, in order, so that no two answers of a try can be compared. A round that
is asked again begins with new secrets, and the old ones are gone.
"""

from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import NoReturn

from torch import Tensor

from hanse.federation.interfaces.aggregator import RefusalError
from hanse.federation.interfaces.algorithm import Client
from hanse.federation.secure_sums import grid
from hanse.federation.secure_sums.bitmap import count, last, listed, size
from hanse.federation.secure_sums.contents import received
from hanse.federation.secure_sums.statements import (
    Advertisement,
    Terms,
    advertise,
    is_advertised,
    is_same_list,
    sign_survivors,
)
from hanse.federation.secure_sums.streams import B_TEXT, box_text, pair_text
from hanse.security import mask_streams
from hanse.security.identity import Identity
from hanse.security.round_keys import RoundKeys, b_seed
from hanse.security.secret_sharing import SHARE, split
from hanse.tensors.named import Tensors
from hanse.tensors.serialization import MessageError

NO_SHARE = b"\xff" * SHARE  # in place of a share that cannot be read: no share has this value
STEPS = ("keys", "shares", "train", "survivors", "unmask", "a new round")


@dataclass
class Participation:
    """One client's part in one try; it cannot be pickled or copied, since it holds secrets.

    participants: all clients of the job; a client's index is its place among them, from 1, so that
    a list of indices names the same silos in each try.
    least: the fewest silos that it knows, this one included, whose sum it helps to open.
    quorum: the fewest survivors of a sum, by the job.
    """

    identity: Identity
    terms: Terms
    participants: Collection[str]
    least: int
    quorum: int = 1
    keys: RoundKeys = field(default_factory=RoundKeys, repr=False)
    next: int = 1  # place in STEPS of the step that may be answered next
    neighbours: dict[str, Advertisement] = field(default_factory=dict)
    boxes: dict[str, bytes] = field(default_factory=dict, repr=False)
    own_share: bytes = field(default=b"", repr=False)  # of the seed of the client's own mask
    survivors: bytes = b""
    index: int = field(init=False)
    _places: dict[str, int] = field(init=False, repr=False)

    def __post_init__(self) -> None:
        self._places = {name: i for i, name in enumerate(self.participants, start=1)}
        self.index = self._places[self.name]

    @classmethod
    def begin(cls, client: Client, terms: Terms) -> "Participation":
        """A client's part in a new try; raises RefusalError if too few silos are to take part."""
        if client.identity is None:
            raise RefusalError(f"{client.profile.name} has no keys of its own to sign with.")
        name, known = client.profile.name, client.participants
        if name not in known or terms.plan.clients > len(known):
            raise RefusalError(
                f"{name} was asked to take part among {terms.plan.clients} silos, and knows "
                f"{len(known)} of this job, itself {'' if name in known else 'not '}included; look "
                "after the server."
            )
        part = cls(client.identity, terms, known, client.least_cohort, client.quorum)
        part._refuse_few(terms.plan.neighbours + 1, "asked to take part")
        part._refuse_below_quorum(terms.plan.clients, "take part")
        return part

    def __reduce__(self) -> NoReturn:
        raise TypeError("a part in a secure sum is not pickled or copied: it holds secrets")

    @property
    def name(self) -> str:
        """The client's name."""
        return self.identity.name

    def advertisement(self) -> Advertisement:
        """The client's fresh keys, signed for the terms of the sum."""
        return advertise(self.identity, self.terms, self.index, self.keys.public)

    def share(self, advertisements: Mapping[str, Tensor]) -> dict[str, bytes]:
        """Encrypted shares of both secrets for each neighbour whose keys are properly signed."""
        self._begin("shares")
        neighbours = {name: _read(name, data) for name, data in advertisements.items()}
        for name, sent in neighbours.items():
            if not is_advertised(self.identity, name, self.terms, sent):
                raise RefusalError(
                    f"{self.name} refuses the secure sum: the keys that came for {name:.80} are "
                    f"not signed by {name:.80} for the same job, base model, round and model to "
                    "train. One of the two was sent something else, the keys were changed on their "
                    f"way, or {self.name} has another public key for it."
                )
        self._refuse_unlike_job(neighbours)
        indices = [self.index, *(sent.index for sent in neighbours.values())]
        self._refuse_few(len(neighbours) + 1, "advertise keys")
        self.neighbours = neighbours
        threshold = self.terms.plan.threshold
        own = split(self.keys.b, threshold, indices)
        key = split(self.keys.private_mask_key, threshold, indices)
        self.own_share = own[self.index]
        boxes = {}
        for name, sent in neighbours.items():
            with _refusing(name):
                self.keys.mask_seed(sent.keys, self._pair(name))  # fails now, or never
                shares, text = own[sent.index] + key[sent.index], self._box(self.name, name)
                boxes[name] = self.keys.seal(shares, sent.keys, text)
        return boxes

    def _refuse_unlike_job(self, neighbours: Mapping[str, Advertisement]) -> None:
        """Raise RefusalError for too many neighbours, and for other indices than the job's.

        With more holders of its shares than planned, two groups of them could open both secrets of
        a silo, each group another one.
        """
        plan = self.terms.plan
        for name, sent in neighbours.items():
            if name == self.name or sent.index != self._places.get(name):
                raise RefusalError(
                    f"{self.name} was sent the keys of {name:.80} with the index {sent.index}, "
                    "which it does not have among the clients of the job; look after the server."
                )
        if len(neighbours) > plan.neighbours:
            raise RefusalError(
                f"{self.name} was sent the keys of {len(neighbours)} other silos, where "
                f"{plan.neighbours} of {plan.clients} are due; look after the server."
            )

    def admit(self, boxes: Tensors, request: bytes) -> None:
        """Take the shares of neighbours before training; request: the digest of the train request.

        Raises RefusalError if the request is not the one that the client has signed for, or if too
        few neighbours take part.
        """
        self._refuse_unless_next("train")
        if request != self.terms.request:
            raise RefusalError(
                f"{self.name} was sent another model to train than it has signed for with the "
                "other silos: the server treats silos differently."
            )
        if unknown := sorted(boxes.keys() - self.neighbours.keys()):
            raise RefusalError(f"{self.name} was sent shares of {unknown[0]:.80}, not a neighbour.")
        self._refuse_few(len(boxes) + 1, "share their secrets")
        self.boxes = {name: received(box) for name, box in boxes.items()}

    def mask(self, summand: Tensors) -> dict[str, Tensor]:
        """The summand as words plus the client's own mask and those of pairs, which cancel."""
        self._begin("train")
        words = self.terms.grid.encode(summand)
        flat = [array.reshape(-1) for array in words.values()]
        mask_streams.add(flat, b_seed(self.keys.b, B_TEXT), 1)
        for name in self.boxes:
            peer = self.neighbours[name]
            seed = self.keys.mask_seed(peer.keys, self._pair(name))
            mask_streams.add(flat, seed, 1 if self.index < peer.index else -1)
        return grid.to_tensors(words)

    def sign(self, survivors: bytes) -> bytes:
        """The signature on a list of survivors, if it has enough silos that the client knows."""
        self._begin("survivors")
        plan = self.terms.plan
        if not listed(survivors, self.index):
            raise RefusalError(f"{self.name} is not among the survivors, although it answered.")
        known = [name for name in self.boxes if listed(survivors, self.neighbours[name].index)]
        self._refuse_few(len(known) + 1, "send their masked updates")
        self._refuse_below_quorum(count(survivors), "sent their masked updates")
        most = len(known) + 1 if plan.complete else plan.clients
        clients = len(self.participants)
        if count(survivors) > most or len(survivors) != size(clients) or last(survivors) > clients:
            raise RefusalError(f"{self.name} was sent a list with survivors that it does not know.")
        self.survivors = survivors
        return sign_survivors(self.identity, self.terms, self.keys.public, survivors)

    @property
    def opened(self) -> str:
        """The sum that the client helps to open: the digest of its terms, and its survivors.

        Two different sums of a round tell their difference: those of other silos, and those of the
        same updates cut and rounded on another grid.
        """
        return f"{self.terms.digest.hex()} {self.survivors.hex()}"

    def reveal(self, signatures: Tensors) -> dict[str, bytes]:
        """One share for each neighbour, and for the client itself.

        It is a share of the seed of a survivor's own mask, or a share of the private key of a silo
        that dropped out; NO_SHARE if the neighbour's box cannot be opened.
        """
        self._begin("unmask")
        for name, signature in signatures.items():
            if not self._signed_same(name, received(signature)):
                raise RefusalError(
                    f"{self.name} reveals nothing: {name:.80} did not sign the same list of "
                    "survivors."
                )
        self._refuse_few(len(signatures) + 1, "sign the list of survivors")
        revealed = {name: self._share_of(name) for name in self.boxes}
        return {**revealed, self.name: self.own_share}

    def _signed_same(self, name: str, signature: bytes) -> bool:
        """True if a neighbour is a survivor and has signed this client's list of survivors."""
        sent = self.neighbours.get(name)
        if sent is None or name not in self.boxes or not listed(self.survivors, sent.index):
            return False
        signed = self.terms, sent.keys, self.survivors, signature
        return is_same_list(self.identity, name, *signed)

    def _share_of(self, name: str) -> bytes:
        """The share of a neighbour's one secret that the list of survivors asks for."""
        sent = self.neighbours[name]
        try:
            shares = self.keys.open(self.boxes[name], sent.keys, self._box(name, self.name))
        except MessageError:
            return NO_SHARE
        if len(shares) != 2 * SHARE:
            return NO_SHARE
        return shares[:SHARE] if listed(self.survivors, sent.index) else shares[SHARE:]

    def _pair(self, name: str) -> bytes:
        return pair_text(self.terms.round, self.name, name)

    def _box(self, sender: str, receiver: str) -> bytes:
        return box_text(self.terms.round, sender, receiver)

    def _begin(self, step: str) -> None:
        """Begin a step, which cannot be begun again."""
        self._refuse_unless_next(step)
        self.next += 1

    def _refuse_unless_next(self, step: str) -> None:
        """Raise RefusalError unless this step comes next."""
        if STEPS[self.next] != step:
            raise RefusalError(
                f"{self.name} was asked for {step} where {STEPS[self.next]} comes next in round "
                f"{self.terms.round}; it answers each step of a secure sum once, in order."
            )

    def _refuse_below_quorum(self, left: int, verb: str) -> None:
        """Raise RefusalError for fewer silos, by the server's word, than the job combines."""
        quorum = max(self.quorum, self.terms.plan.quorum)
        if left < quorum:
            raise RefusalError(
                f"{self.name} was told that {left} silos {verb}, and a sum of this job needs "
                f"{quorum}."
            )

    def _refuse_few(self, left: int, verb: str) -> None:
        """Raise RefusalError if fewer than the threshold, or than the least cohort, are left."""
        threshold = self.terms.plan.threshold
        if left < max(threshold, self.least):
            setting = (
                "policy.min_cohort of its silo.yaml" if self.least > threshold else "threshold"
            )
            raise RefusalError(
                f"{self.name} sees {left} silos {verb}, itself included, and takes part in sums "
                f"of at least {max(threshold, self.least)} ({setting})."
            )


def _read(name: str, data: Tensor) -> Advertisement:
    with _refusing(name):
        return Advertisement.from_bytes(received(data))


@contextmanager
def _refusing(name: str) -> Iterator[None]:
    """Turns the failure of a neighbour's keys into a refusal."""
    try:
        yield
    except MessageError as error:
        raise RefusalError(f"the keys that came for {name:.80} cannot be used: {error}.") from None
