"""Timers of the next hello to each node, and of the pauses of a round with too few updates."""

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field

QUIET_BEFORE_HELLO = 20.0  # seconds without a word from a silo that owes a reply, then a hello
HELLO_TIMEOUT = 30.0  # seconds until an unanswered hello is repeated; then twice as many each time
REPLY_GRACE = 10.0  # seconds that a reply may come later than a later answer before it is lost
RETRY_AFTER = 5.0  # seconds until a failed node, or round, is asked again; then twice as many
LONGEST_NODE_RETRY, LONGEST_ROUND_RETRY = 60.0, 300.0  # seconds


def doubled(first: float, times: int, most: float) -> float:
    """`first` seconds, doubled so many times, but at most `most`."""
    return min(most, first * 2.0 ** min(times, 10))  # a server may go on for days


@dataclass
class NodeTimers:
    """The time of the next hello to each connected node.

    due: by node, the time of its next hello; infinity for a node that has answered.
    refusals: by node, how many of its answers were refused since the last good one.
    """

    due: dict[int, float] = field(default_factory=dict)
    refusals: Counter[int] = field(default_factory=Counter)
    _timeouts: dict[int, float] = field(default_factory=dict)  # of the next hello, in seconds

    def __contains__(self, node: object) -> bool:
        return node in self.due

    def set_nodes(self, nodes: Sequence[int], now: float) -> None:
        """Keep the timers of these nodes only; a new node is due at once."""
        self.due = {node: self.due.get(node, now) for node in nodes}
        self.refusals = Counter({n: count for n, count in self.refusals.items() if n in self.due})

    def forget_timeouts(self) -> None:
        """Begin with the shortest timeout again, for all nodes."""
        self._timeouts.clear()

    def expired(self, now: float) -> list[int]:
        """The nodes to which a hello is due."""
        return [node for node, due in self.due.items() if due <= now]

    def call(self, node: int, now: float) -> None:
        """Let a hello to this node be due now, if it is connected."""
        if node in self.due:
            self.due[node] = now

    def call_if_idle(self, node: int, now: float) -> None:
        """Let a hello to this node be due now, unless one is under way or planned."""
        if self.due.get(node) == math.inf:
            self.due[node] = now

    def hello_sent(self, node: int, now: float) -> None:
        """Repeat a hello after its timeout, which is doubled each time."""
        if node in self.due:
            timeout = self._timeouts.get(node, HELLO_TIMEOUT)
            self.due[node], self._timeouts[node] = now + timeout, 2 * timeout

    def answered(self, node: int) -> None:
        """Send no hello to a node that has just answered."""
        self._timeouts.pop(node, None)
        if node in self.due:
            self.due[node] = math.inf

    def failed(self, node: int, now: float) -> None:
        """Send the next hello later, the more answers of this node were refused."""
        if node in self.due:
            times = max(0, self.refusals[node] - 1)
            self.due[node] = now + doubled(RETRY_AFTER, times, LONGEST_NODE_RETRY)


@dataclass
class RoundPauses:
    """The pauses of a round before all of its silos are asked again, each longer than the last."""

    counts: Counter[int] = field(default_factory=Counter)  # by round

    def next(self, round: int) -> float:
        """The seconds of the next pause of this round."""
        pause = doubled(RETRY_AFTER, self.counts[round], LONGEST_ROUND_RETRY)
        self.counts[round] += 1
        return pause
