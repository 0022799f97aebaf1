"""The role of a transform: a codec, or a mechanism of privacy."""

from abc import ABC, abstractmethod
from typing import ClassVar

from hanse.federation.interfaces.declarations import AT_SENDER, AT_SERVER, Stage, withdraw
from hanse.federation.interfaces.results import Aggregate, Memory
from hanse.federation.messages import Update
from hanse.randomness import RoundContext
from hanse.tensors.named import Layout, Tensors
from hanse.tensors.serialization import Numbers


class Transform(ABC):
    """A step that updates pass from client to server, or instructions from server to client.

    Sender's half: encode. Receiver's half: decode. Server half, in both directions: init, finish.

    The server may hold state (a basis, a clip norm); `broadcast` selects the part that travels with
    every request. The sender may keep memory (the error of a lossy codec). An instruction passes as
    an update of weight 1, in the context of no client, since all clients may get the same.
    """

    # The weighted mean of encoded updates, in float64, decodes to the mean of the decoded ones.
    linear: ClassVar[bool] = False
    # Contents that it takes: change, factors, logits or scalars of an update, model of an
    # instruction.
    payloads: ClassVar[tuple[str, ...]] = ("change",)
    # An encoded update decodes to itself, bit for bit; error feedback would find no error.
    lossless: ClassVar[bool] = False
    # Matrices are decoded as products of encoded ones; error feedback needs these rounded to
    # nearest.
    multiplies: ClassVar[bool] = False
    # Its stage in a list of codecs; None if it may stand anywhere.
    stage: ClassVar[Stage | None] = None
    # Noise that it draws. "encode": at a client, where it protects each update by itself. "share":
    # at a client, where only sums over clients are protected. "finish": at the server. The result
    # is durable before it is used, and is not drawn again after a crash; "share" is drawn anew for
    # a round that is asked again with other keys, unless the rule opens one sum of a round. A
    # subclass inherits this. Nobody can see that a transform draws from the operating system's
    # randomness undeclared; that is its mistake.
    noise: ClassVar[frozenset[str]] = frozenset()

    def __init_subclass__(cls) -> None:
        super().__init_subclass__()
        if unknown := cls.noise - AT_SENDER - AT_SERVER:
            raise TypeError(f"{cls.__name__}.noise names {min(unknown)}: encode, share, or finish")
        withdraw(cls, "linear", False, "encode", "decode")
        withdraw(cls, "lossless", False, "encode", "decode")

    @property
    def contractive(self) -> bool:
        """True if a decoded update is nearer to the update than zero is, on average.

        Error feedback needs it: what other codecs lose would grow from round to round.
        """
        return True

    def weights(self) -> Tensors:
        """Tensors that both halves need and that never change, such as those of a trained codec.

        The server sends them to each client once, as a file. They are part of every `state` below.
        """
        return {}

    def init(self, expected: Layout) -> Tensors:
        """The server's state before the first round; expected: the layout of decoded tensors."""
        return {}

    def layout(self, expected: Layout, state: Tensors) -> Layout:
        """The layout of encoded tensors; a codec of varying length gives bounds (`blob`)."""
        return expected

    def broadcast(self, state: Tensors) -> Tensors:
        """The part of the server's state that every request carries; by default all of it."""
        return state

    @abstractmethod
    def encode(
        self, update: Update, memory: Memory, state: Tensors, context: RoundContext
    ) -> Update:
        """Encode at the sender; `memory` holds until the next round that is counted."""

    def decoded_bytes(self, update: Update, state: Tensors) -> int:
        """The bytes that `decode` would take for this message, as the message says.

        A codec whose result may be much larger than the message overrides it, from the message's
        table alone. A message that claims more than the receiver expects is refused before it is
        decoded. Raises MessageError for contents that nothing encodes to.
        """
        return 0

    @abstractmethod
    def decode(self, update: Update, state: Tensors, context: RoundContext) -> Update:
        """Decode at the receiver; raises MessageError for contents that nothing encodes to.

        Under a rule that sees sums only, `update` is the mean of the encoded updates, and `context`
        names no client.
        """

    def finish(
        self, aggregate: Aggregate, state: Tensors, context: RoundContext
    ) -> tuple[Aggregate, Tensors]:
        """Finish the decoded aggregate at the server; return it with the next state."""
        return aggregate, state

    def released(self, state: Tensors, context: RoundContext) -> Numbers:
        """The numbers that the log of releases has of noise drawn with this state in a round.

        Accounting needs them: the noise multiplier, the clip norm.
        """
        return {}
