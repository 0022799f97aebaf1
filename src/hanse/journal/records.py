"""Records: the lines and files of a run folder as frozen dataclasses, with the keys of the files.

`record_files` reads and writes them.
"""

import math
from dataclasses import dataclass, field
from typing import Annotated

from pydantic import Field, NonNegativeInt

from hanse.journal.journey import Amount, Journey, Size
from hanse.journal.training_costs import TrainingCosts
from hanse.observability.paired_timing import Measurement

ROUNDS = "metrics.jsonl"  # one RoundRecord a line
LEDGER = "ledger.jsonl"  # one ClientRecord a line
RELEASES = "releases.jsonl"  # one ReleaseRecord a line
DEPLOYED = "deployed-as"  # the name by which silos know the run
DIVISION = "division.json"  # a DivisionRecord
ENVIRONMENT = "machine.json"  # an EnvironmentRecord

Metrics = dict[str, float]
MOST_ROUND = 10**9
RoundNumber = Annotated[int, Field(ge=0, le=MOST_ROUND)]
Timestamp = Annotated[float, Field(ge=0, le=1e11)]  # seconds since 1970


@dataclass(frozen=True)
class Traffic:
    """Bytes from the server to the clients (down) and from the clients to the server (up)."""

    down: Size
    up: Size

    @property
    def total(self) -> int:
        """Bytes in both directions."""
        return self.down + self.up


@dataclass(frozen=True, kw_only=True)
class RoundCosts:
    """Bytes, seconds and memory of a round.

    seconds: by kind of work, of all machines together. peak_memory, gpu_memory: bytes.
    gpu_use: share of time in which the GPU was at work.
    simulated_seconds: of a simulation with links or devices, by kind of request: from the sending
        of the first request to the last reply that was waited for; else empty.
    """

    bytes: Traffic
    seconds: dict[str, Amount]
    simulated_seconds: dict[str, Amount] = field(default_factory=dict)
    tokens_per_second: Amount = 0.0
    peak_memory: Amount = 0.0
    gpu_memory: Amount | None = None
    gpu_use: Amount | None = None


@dataclass(frozen=True, kw_only=True)
class RoundScores:
    """Scores of the global model after a round; empty where nothing was measured.

    validation, test: metrics on the server's splits. client_test: metrics on each client's own
        held-out rows.
    """

    validation: Metrics = field(default_factory=dict)
    test: Metrics = field(default_factory=dict)
    client_test: dict[str, Metrics] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class RoundRecord(RoundCosts, RoundScores):
    """One line of metrics.jsonl: what a round has learned, and what it cost.

    clients, weight, train: the clients whose updates were combined, the sum of their weights, and
        the weighted means of the numbers that they reported (a rule that bears attackers gives
        medians); absent in round 0. excluded: those whose valid updates the rule left out.
    time: when the round was committed.
    """

    round: RoundNumber
    clients: tuple[str, ...] = ()
    weight: Amount | None = None
    train: Metrics = field(default_factory=dict)
    time: Timestamp = 0.0
    excluded: tuple[str, ...] = ()


@dataclass(frozen=True)
class ClientRecord:
    """One line of ledger.jsonl: one request to one client, and its reply.

    kind: of the request, such as "train" or "evaluate". down, up: bytes of request and reply.
    numbers: what the client reported; in the file they stand beside the other keys.
    error: why the reply was not used; empty if it was, or if none came.
    request_id: the name of the request in all logs. sent_at, answered_at: when the server sent the
        request and received the reply.
    late: for a reply that came too late or twice, the round that it belongs to; else None.
    unused: the bytes of such a reply. simulated: its seconds in a simulation with a clock; or None.
    measured, predicted: of a training that was answered, what it took; predicted: in a simulation
        with a clock.
    """

    round: RoundNumber
    client: str
    kind: str
    down: Size = 0
    up: Size = 0
    numbers: Metrics = field(default_factory=dict)
    error: str = ""
    request_id: str = ""
    sent_at: Timestamp | None = None
    answered_at: Timestamp | None = None
    late: RoundNumber | None = None
    unused: Size | None = None
    simulated: Journey | None = None
    measured: TrainingCosts | None = None
    predicted: TrainingCosts | None = None

    @property
    def loss(self) -> float | None:
        """The mean training loss that the client reported."""
        return self.numbers.get("loss")

    @property
    def weight(self) -> float | None:
        """The weight of the client's update or score."""
        return self.amount("weight")

    def amount(self, name: str) -> float | None:
        """A reported number that measures something; None if it is missing, or out of bounds."""
        value = self.numbers.get(name, math.nan)
        return value if 0 <= value <= 1e30 else None


@dataclass(frozen=True)
class Mechanism:
    """A part that has drawn noise, and what it reports of that, such as the clip norm."""

    name: str
    numbers: Metrics = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class ReleaseRecord:
    """One line of releases.jsonl: a result with noise in it, durable before it is used.

    The line stays, whether or not the round was committed: what was drawn counts as released.

    mechanisms: the parts that drew the noise.
    clients, excluded, weight, numbers: of the finished aggregate, or of one client's update.
    request: the hash of the request that a client has answered; empty at the server.
    digest: SHA-256 of the release's content, and part of its file's name.
    run: by which a silo knows the run; empty in the folder of a run.
    """

    round: RoundNumber
    mechanisms: tuple[Mechanism, ...]
    clients: tuple[str, ...]
    weight: Amount
    numbers: Metrics = field(default_factory=dict)
    request: str = ""
    digest: str = ""
    run: str = ""
    time: Timestamp = 0.0
    excluded: tuple[str, ...] = ()


@dataclass(frozen=True)
class GeneratedSample:
    """A prompt, the answer in the data, and what the model said."""

    prompt: str
    answer: str
    said: str


@dataclass(frozen=True)
class WrongRow:
    """A row that was put into a wrong class: its place in the split, and its text, shortened."""

    place: NonNegativeInt
    text: str


@dataclass(frozen=True)
class Evaluation:
    """A file below scores/: the global model on a whole split after a round, item by item.

    items: one value for each item, in the order of the split, so that two evaluations can be
        compared in pairs. samples: of the first items, if the task generates text.
    truth, answers: for a classification, each item's right class and the model's, as the place
        among the labels. wrong: the first wrong items.
    """

    round: RoundNumber
    metrics: Metrics
    items: tuple[float, ...]
    samples: tuple[GeneratedSample, ...] = ()
    truth: tuple[NonNegativeInt, ...] = ()
    answers: tuple[NonNegativeInt, ...] = ()
    wrong: tuple[WrongRow, ...] = ()

    @property
    def measured(self) -> str:
        """The name of the metric whose value is the mean of the items' values.

        An earlier perplexity kept each row's own mean loss; their mean, "row_mean_loss", is another
        number than the loss of all tokens.
        """
        mean = sum(self.items) / max(1, len(self.items))
        matching = [name for name, v in self.metrics.items() if math.isclose(v, mean, abs_tol=1e-9)]
        return next(iter([*matching, *(f"row_mean_{name}" for name in self.metrics)]), "score")


@dataclass(frozen=True)
class ClientRowCounts:
    """The number of rows that a client trains on, by label or as "rows", and that it holds out."""

    train: dict[str, NonNegativeInt]
    held: int = 0


@dataclass(frozen=True)
class DivisionRecord:
    """division.json: how many rows the server holds out, and how many each client has.

    labels: the words of the labels; without labels the values of the column that rows were divided
        by; empty if there is none either.
    remarks: which rows are left out or cut, one sentence each.
    """

    labels: tuple[str, ...]
    clients: dict[str, ClientRowCounts]
    validation: int = 0
    test: int = 0
    remarks: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class EnvironmentRecord:
    """machine.json: what a run was made on; None or empty where the file says nothing.

    threads: of torch. processor: the instruction set that torch uses. data: the hash of all rows.
    public: the hash of the public rows, which are not among `data`; empty without any.
    models: the hash of each model that was loaded from files of this machine, by its path.
    precision: by model, in which modes it computes. measured: by model, the measurement of them.
    peak_flops: per second, in large matrix products. *_flops_per_token: of the model.
    """

    threads: int | None = None
    processor: str | None = None
    python: str | None = None
    torch: str | None = None
    transformers: str | None = None
    peft: str | None = None
    data: str | None = None
    public: str | None = None
    train_flops_per_token: Amount | None = None
    forward_flops_per_token: Amount | None = None
    peak_flops: Amount | None = None
    models: dict[str, str] = field(default_factory=dict)
    precision: dict[str, dict[str, bool | str]] = field(default_factory=dict)
    measured: dict[str, Measurement] = field(default_factory=dict)


@dataclass(frozen=True)
class RefusalRecord:
    """One line of refusals.jsonl in a silo's state: what the silo refused or left out, and why.

    request_id: the name of the request that was being answered; empty if none was.
    """

    time: Timestamp
    run: str
    what: str
    reason: str
    request_id: str = ""
