"""The role of a mechanism of privacy: it bounds what updates reveal of one silo, or of one row."""

from collections.abc import Sequence
from typing import ClassVar, Self

from hanse.federation.interfaces.aggregator import Aggregator
from hanse.federation.interfaces.learner import Learner
from hanse.federation.interfaces.row_protection import Sampling
from hanse.federation.interfaces.transform import Transform
from hanse.journal.privacy_record import PrivacyRecord
from hanse.randomness import RoundContext
from hanse.tensors.serialization import Numbers


class Mechanism(Transform):
    """A step that limits each update, and draws noise that hides what is left of it.

    It comes before the codecs at the sender, and after them at the receiver, whose `decode` must
    limit updates again: a client may send any.

    Both halves: beside, numbers, least_updates. Server half, beside a transform's: require,
    remarks, account. In the contexts of all of them, and of `encode`, `rounds` and `clients` are
    known.

    A mechanism that `protects_rows` acts on each silo's training, before there is an update: at the
    silo by protect, in the account of silos by training and require_rows.
    """

    # Clients score nothing on their own rows, since nothing would protect these scores.
    withholds_scores: ClassVar[bool] = True
    # Numbers that an update keeps if it has them, since they follow from settings and row counts.
    public: ClassVar[tuple[str, ...]] = ()
    # It protects the rows of each silo in its training; the algorithm trains by one `fit` alone.
    protects_rows: ClassVar[bool] = False
    # Encoded updates are tensors of integers, of the weight 1, for a rule that adds them.
    whole_numbers: ClassVar[bool] = False
    relimits: ClassVar[bool] = False  # the server limits each update again, after decoding

    def beside(self, rule: Aggregator) -> Self:
        """The mechanism as it works under a rule that combines updates; itself, if any will do."""
        return self

    def least_updates(self, context: RoundContext) -> int:
        """The fewest updates of a sum that the promise holds for; clients help to open no other."""
        return 1

    @property
    def numbers(self) -> Sequence[str]:
        """The numbers that an update keeps, and that the mechanism protects; it removes others."""
        return ()

    @property
    def largest_clip(self) -> float | None:
        """The largest clip norm of a unit in any round; None if none is fixed before the run."""
        return None

    def require(self, context: RoundContext) -> None:
        """Raise UserError for a run that the mechanism cannot serve, before anything is loaded."""

    def remarks(self, context: RoundContext, clients: int, size: int) -> Sequence[str]:
        """Warnings about a run, a sentence each.

        clients: of the run, of which each round has some. size: how many numbers an update has.
        """
        return ()

    def account(self, releases: Sequence[Numbers], context: RoundContext) -> PrivacyRecord | None:
        """The privacy that these releases have cost together; None if nothing is promised.

        releases: the numbers of each one (`released`), from the log of releases. The server asks no
        client for a round with which the record would exceed its budget.
        """
        return None

    def protect(self, learner: Learner, context: RoundContext) -> Numbers:
        """At the silo: let the next training hide its rows; return the numbers of its release."""
        raise TypeError(f"{type(self).__name__} protects no rows in training")

    def training(
        self, sampling: Sampling, context: RoundContext, cheapest: Sampling | None = None
    ) -> Numbers:
        """The numbers of the release of one training on such a sampling of rows.

        cheapest: if `sampling` is an upper bound, the lower one; noise is the least of any between.
        """
        raise TypeError(f"{type(self).__name__} protects no rows in training")

    def require_rows(self, sampling: Sampling, silo: str, context: RoundContext) -> Sequence[str]:
        """Warnings about a silo's rows; raises UserError if the mechanism cannot hide them."""
        return ()
