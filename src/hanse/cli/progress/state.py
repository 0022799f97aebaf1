"""The progress of a command as it was reported, and an estimate of the time that is left."""

from dataclasses import dataclass, field

from hanse.observability.steps import ClientReplies, Job, Rounds, Runs, Step, Training

TRAIN, EVALUATE = "train", "evaluate"  # the phases in which clients train and score
ENOUGH = 0.02  # of a round's training, to estimate the rest from


@dataclass(frozen=True)
class Traffic:
    """Bytes down to the clients and up from them."""

    down: float = 0.0
    up: float = 0.0

    def __add__(self, other: "Traffic") -> "Traffic":
        return Traffic(self.down + other.down, self.up + other.up)


@dataclass
class ProgressState:
    """The last step of each kind; times are seconds of one monotonic clock.

    Fields are replaced, never changed in place: a copy is a snapshot.

    began, since: when the command began, and when the present job did.
    clients: the present phase of the round. job: what is done within a phase, or outside of rounds.
    trained: the last training that reported a loss.
    """

    began: float
    since: float
    runs: Runs | None = None
    rounds: Rounds | None = None
    clients: ClientReplies | None = None
    job: Job | None = None
    trained: Training | None = None
    _finished: Traffic = Traffic()  # of the finished rounds
    _phases: Traffic = Traffic()  # of the present round, without its last phase
    _seconds: dict[int, float] = field(default_factory=dict)  # of each finished round
    _round_began: float = 0.0
    _phase_began: float = 0.0
    _trained_at: float | None = None  # when the present round's training ended

    def update(self, step: Step, now: float) -> None:
        """Take in a step that was reported at `now`."""
        match step:
            case Runs():
                self.runs, self.rounds, self.clients, self.job = step, None, None, None
            case Rounds():
                self._update_rounds(step, now)
            case ClientReplies():
                self._update_clients(step, now)
            case _:
                self._update_job(step, now)

    def _update_rounds(self, step: Rounds, now: float) -> None:
        if step.last is None:  # a run begins
            self._seconds, self._finished = {}, Traffic()
        else:
            self._seconds = {**self._seconds, step.done: step.last.seconds}
            self._finished += Traffic(step.last.down, step.last.up)
        self.rounds, self.clients, self.job, self.since = step, None, None, now
        self._phases, self._round_began, self._trained_at = Traffic(), now, None

    def _update_clients(self, step: ClientReplies, now: float) -> None:
        if step.done == 0:
            self._phases += self._phase_traffic
            self._phase_began = now
        if step.phase == TRAIN and step.done == step.total:
            self._trained_at = now
        self.clients, self.job, self.since = step, None, now

    def _update_job(self, step: Job, now: float) -> None:
        former = self.job
        if former is None or former.identity != step.identity or step.done < former.done:
            self.since = now
        self.job = step
        if isinstance(step, Training) and step.loss is not None:
            self.trained = step

    @property
    def _phase_traffic(self) -> Traffic:
        return Traffic(self.clients.down, self.clients.up) if self.clients else Traffic()

    @property
    def traffic(self) -> Traffic:
        """Bytes in all rounds of the run so far."""
        return self._finished + self._phases + self._phase_traffic

    @property
    def share(self) -> float:
        """The share of the present round's training that is done."""
        if self._trained_at is not None:
            return 1.0
        return self._phase_share if self.clients and self.clients.phase == TRAIN else 0.0

    @property
    def _phase_share(self) -> float:
        """The share of the present phase that is done, work in this process included."""
        if self.clients is None:
            return 0.0
        client = self.job.done / max(1, self.job.total) if self.job else 0.0
        return min(1.0, (self.clients.done + client) / max(1, self.clients.total))

    def left(self, now: float) -> float | None:
        """Seconds until the run is done; None while there is nothing to estimate them from.

        A round takes the mean of those before it. The first one is extrapolated from its share that
        is done. What follows the last training takes as long as what came before the first.
        """
        if self.rounds is None or not self._seconds:
            return None
        missing = self.rounds.total - self.rounds.done
        scoring = self._seconds.get(0, 0.0)
        if missing == 0:
            return None
        if missing == 1 and self._trained_at is not None:
            return self._left_after_training(scoring, now)
        each = self._seconds_of_a_round(now)
        return None if each is None else each * (missing - self.share) + scoring

    def _seconds_of_a_round(self, now: float) -> float | None:
        finished = [seconds for number, seconds in self._seconds.items() if number > 0]
        if finished:
            return sum(finished) / len(finished)
        if self.share < ENOUGH:
            return None
        return ((self._trained_at or now) - self._round_began) / self.share

    def _left_after_training(self, scoring: float, now: float) -> float | None:
        """Seconds that are left after the last training."""
        if self.clients is None or self.clients.phase != EVALUATE:  # the server scores
            left = scoring - (now - (self._trained_at or now))
            return left if left > 0 else None
        done = self._phase_share
        return (now - self._phase_began) * (1 - done) / done if done >= ENOUGH else None
