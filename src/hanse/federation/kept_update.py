"""A client's last encoded update, which it seals again if its round is repeated.

A round that was paused is asked for again, with other notes of the aggregator. A second training
would take as long as the first and give the same update.
"""

from dataclasses import dataclass

from hanse.federation.messages import Reply, Request, Update


@dataclass
class KeptUpdate:
    """The encoded update of one train request, in memory until a request of another round comes.

    It is kept as bytes, since the client's tensors may change in place.
    """

    _round: int = 0
    _key: str = ""
    _reply: bytes = b""

    def find(self, key: str) -> Update | None:
        """The update for a request with this hash (`releases.release_key`); None if it is not kept.

        key: empty for a request whose update is not kept.
        """
        return Reply.parse(self._reply).update if key and key == self._key else None

    def keep(self, request: Request, key: str, client: str, update: Update) -> None:
        """Keep the update for a request with this hash, in place of any other one."""
        self._round, self._key = request.round, key
        self._reply = Reply(client, request.kind, request.round, update).pack()

    def forget(self, present: int) -> None:
        """Forget an update of another round than the present one."""
        if self._round != present:
            self.drop()

    def drop(self) -> None:
        """Forget the update: the draft of memory that belongs to it may be gone from now on."""
        self._round, self._key, self._reply = 0, "", b""
