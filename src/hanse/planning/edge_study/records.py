"""The figures that an edge study has measured and computed, as its file of results has them."""

from dataclasses import dataclass

THIS = "this machine"


@dataclass(frozen=True)
class Passes:
    """Seconds of a step's passes."""

    forward: float
    backward: float
    optimizer: float

    @property
    def total(self) -> float:
        """The seconds of the step."""
        return self.forward + self.backward + self.optimizer


@dataclass(frozen=True)
class BatchFigures:
    """A training step on this machine, with batches of one size.

    rows: of the batch. tokens: of all rows. measured, predicted: seconds, the latter by the model
    of cost. flops: of a step. mfu: flops ÷ (seconds · peak). memory: the most bytes that the
    process has held up to this batch, or the GPU. joules: of a step, by all
    programs; None: not measured.
    """

    rows: int
    tokens: float
    measured: Passes
    predicted: Passes
    flops: float
    mfu: float
    tokens_per_second: float
    memory: float
    joules: float | None


@dataclass(frozen=True)
class DeviceFigures:
    """A training step on a published device, by the model of cost.

    precision: float32 or bfloat16; the former for a device without a known peak in bfloat16.
    memory: bytes that it needs, by a model. has: bytes of its memory; None: not published. joules:
    of a step, at its published watts; None: not published.
    """

    device: str
    rows: int
    precision: str
    predicted: Passes
    memory: float
    has: float | None
    joules: float | None


@dataclass(frozen=True)
class RoundFigures:
    """A round of a device over a link.

    link: rates up and down in 10⁶ bits a second; a slower interface of the device bounds them.
    training, network: seconds, T_comp and T_comm. granularity: their ratio G. share: of the round
    that the network takes. objection: why the device is not worth asking; empty if it is.
    """

    device: str
    rows: int
    link: str
    training: float
    network: float
    granularity: float
    share: float
    objection: str


@dataclass(frozen=True)
class EdgeStudy:
    """An edge study.

    parameters, trained: numbers of weights. update: bytes of an update in float32, each way.
    length: tokens of a row. steps: optimizer steps of a round. precision: float32 or bfloat16.
    peak: FLOP/s of products of this precision, measured. bandwidth: bytes a second, measured.
    mfu, operator_us: fitted to the measured steps. error: the mean of |predicted ÷ measured - 1|
    over the batches. energy: the source of its readings; None: the machine has none. busy: cores
    that other programs kept busy meanwhile.
    """

    model: str
    parameters: int
    trained: int
    update: int
    length: int
    steps: int
    threads: int
    precision: str
    peak: float
    bandwidth: float
    mfu: float
    operator_us: float
    error: float
    energy: str | None
    busy: float | None
    batches: tuple[BatchFigures, ...]
    devices: tuple[DeviceFigures, ...]
    rounds: tuple[RoundFigures, ...]
