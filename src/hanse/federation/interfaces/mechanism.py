"""The role of a mechanism of privacy: it bounds what updates reveal of one silo, or of one row."""

from collections.abc import Sequence
from typing import ClassVar

from hanse.federation.interfaces.transform import Transform
from hanse.journal.privacy_record import PrivacyRecord
from hanse.randomness import RoundContext
from hanse.tensors.serialization import Numbers


class Mechanism(Transform):
    """A step that limits each update, and draws noise that hides what is left of it.

    It comes before the codecs at the sender, and after them at the receiver, whose `decode` must
    limit updates again: a client may send any.

    Server half, beside a transform's: require, remarks, account. In their contexts `rounds` and
    `clients` are known.
    """

    # Clients score nothing on their own rows, since nothing would protect these scores.
    withholds_scores: ClassVar[bool] = True

    @property
    def numbers(self) -> Sequence[str]:
        """The numbers that an update keeps, and that the mechanism protects; it removes others."""
        return ()

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
