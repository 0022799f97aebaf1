"""What a command has said of its progress, and how long its run will still take."""

from dataclasses import dataclass, field

from hanse.observability.progress import CLIENTS, ROUNDS, RUNS, Step

TRAIN = f"{CLIENTS} train"
ENOUGH = 0.02  # of a round's training, to tell the rest from


@dataclass(frozen=True)
class Sent:
    """Bytes down to the clients and up from them."""

    down: float = 0.0
    up: float = 0.0

    def __add__(self, other: "Sent") -> "Sent":
        return Sent(self.down + other.down, self.up + other.up)


@dataclass
class ProgressState:
    """All that has been said up to now; times are seconds of one monotonic clock.

    Nothing in it is changed in place: a copy stays as it is while others hear on.

    began, since: when the command began, and when the present work did.
    work: what is being done inside of a round, or without any.
    numbers: the last that a training said (loss, tokens_per_second).
    """

    began: float
    since: float
    runs: Step | None = None
    rounds: Step | None = None
    clients: Step | None = None
    work: Step | None = None
    numbers: dict[str, float] = field(default_factory=dict)
    _sent: Sent = Sent()  # in the finished rounds
    _phases: Sent = Sent()  # in the present round, but for the last exchange
    _took: dict[int, float] = field(default_factory=dict)  # seconds of the finished rounds
    _turned: float = 0.0  # when the present round began
    _asked: float = 0.0  # when its last exchange with the clients began
    _trained: float | None = None  # when its training was done

    def hear(self, step: Step, now: float) -> None:
        """Take note of a step that was reported at `now`."""
        if step.what == RUNS:
            self.runs, self.rounds, self.clients, self.work = step, None, None, None
        elif step.what == ROUNDS:
            self._hear_round(step, now)
        elif step.what.startswith(CLIENTS):
            self._hear_clients(step, now)
        else:
            former = self.work
            if former is None or former.what != step.what or step.done < former.done:
                self.since = now
            self.work = step
            if step.what.startswith("training"):
                self.numbers = step.numbers or self.numbers

    def _hear_round(self, step: Step, now: float) -> None:
        if step.numbers:
            self._took = {**self._took, step.done: step.numbers["seconds"]}
            self._sent += Sent(step.numbers["down"], step.numbers["up"])
        else:  # a run begins
            self._took, self._sent = {}, Sent()
        self.rounds, self.clients, self.work, self.since = step, None, None, now
        self._phases, self._turned, self._trained = Sent(), now, None

    def _hear_clients(self, step: Step, now: float) -> None:
        if step.done == 0:
            self._phases += self._exchanged
            self._asked = now
        if step.what == TRAIN and step.done == step.total:
            self._trained = now
        self.clients, self.work, self.since = step, None, now

    @property
    def _exchanged(self) -> Sent:
        """Bytes of the last exchange."""
        numbers = self.clients.numbers if self.clients else {}
        return Sent(numbers.get("down", 0.0), numbers.get("up", 0.0))

    @property
    def sent(self) -> Sent:
        """Bytes in all rounds of the run so far."""
        return self._sent + self._phases + self._exchanged

    @property
    def share(self) -> float:
        """How much of the present round's training is done."""
        if self._trained is not None:
            return 1.0
        return self._answered if self.clients and self.clients.what == TRAIN else 0.0

    @property
    def _answered(self) -> float:
        """How much of the last exchange is done, the work of a client in this process included."""
        if self.clients is None:
            return 0.0
        client = self.work.done / max(1, self.work.total) if self.work else 0.0
        return min(1.0, (self.clients.done + client) / max(1, self.clients.total))

    def left(self, now: float) -> float | None:
        """Seconds until the run is done; None while there is nothing to tell it from.

        A round takes the mean of those before it, or (the first) as long as its steps so far say.
        What follows the last training is taken to last as long as what came before the first.
        """
        if self.rounds is None or not self._took:
            return None
        missing = self.rounds.total - self.rounds.done
        scoring = self._took.get(0, 0.0)
        if missing == 0:
            return None
        if missing == 1 and self._trained is not None:
            return self._closing(scoring, now)
        took = [seconds for number, seconds in self._took.items() if number > 0]
        if took:
            each = sum(took) / len(took)
        elif self.share >= ENOUGH:
            each = ((self._trained or now) - self._turned) / self.share
        else:
            return None
        return each * (missing - self.share) + scoring

    def _closing(self, scoring: float, now: float) -> float | None:
        """Seconds that are left after the last training."""
        if self.clients is None or self.clients.what == TRAIN:  # the server scores
            left = scoring - (now - (self._trained or now))
            return left if left > 0 else None
        done = self._answered
        return (now - self._asked) * (1 - done) / done if done >= ENOUGH else None
