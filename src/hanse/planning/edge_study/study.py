"""The edge study of a model: a training step here and on published devices, and rounds over links.

After "Federated fine-tuning of LLMs on the very edge" (2310.03150): the share of the peak (MFU) and
energy of a step, and the granularity G = T_comp ÷ T_comm of a round. Its devices were real ones;
here those other than this machine are a model of cost (`simulation/device_cost.py`), which makes
this a reconstruction.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean

import torch

from hanse.errors import UserError
from hanse.experiment.devices import known, published
from hanse.experiment.devices.settings import DeviceSettings
from hanse.journal.journey import Journey
from hanse.learners import flops
from hanse.learners.models.random_models import build
from hanse.learners.models.random_models.build import RandomModel
from hanse.learners.training.out_of_memory import is_shortage
from hanse.observability import power, processor
from hanse.observability.memory import available_memory
from hanse.observability.progress import report
from hanse.observability.steps import Activity, Work
from hanse.planning.devices.profile import bandwidth
from hanse.planning.edge_study.measure import MeasuredStep, measured_step
from hanse.planning.edge_study.records import (
    THIS,
    BatchFigures,
    DeviceFigures,
    EdgeStudy,
    Passes,
    RoundFigures,
)
from hanse.planning.preview.device_use import PEAK, PEAK_BF16, TRAINED
from hanse.simulation.device_cost import Machine, Measured, fitted
from hanse.simulation.link import Link

ROOM = 2  # times the weights that must be free before a model is built
PLENTY = 0.5  # share of a round in the network, above which a device is not worth asking


@dataclass(frozen=True)
class Wanted:
    """The questions of a study.

    batches: rows of a batch, one after another. length: tokens of a row. rank: of LoRA.
    links: (rate up, rate down) in 10⁶ bits a second. steps: of a round.
    deadline: seconds that a round may take; None: as long as it takes.
    bf16: whether the model is in bfloat16 and computes in it, or else in float32.
    """

    batches: tuple[int, ...]
    length: int
    rank: int
    links: tuple[tuple[float, float], ...]
    steps: int
    deadline: float | None
    bf16: bool = False

    @property
    def dtype(self) -> torch.dtype:
        """The type of the base model's weights."""
        return torch.bfloat16 if self.bf16 else torch.float32


def study(name: str, wanted: Wanted) -> EdgeStudy:
    """Measure a model's training steps here, and predict those of all published devices.

    Raises UserError for a model that is not known, or that this machine's memory does not hold.
    """
    config = build.config_of(name)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    _refuse_large(name, build.size(config), wanted.dtype, device)
    report(Work(Activity.MEASURING_MACHINE))
    before = processor.core_use()
    model = build.build(name, config, wanted.rank, device, wanted.bf16)
    steps = [_step(model, rows, wanted.length) for rows in sorted(wanted.batches)]
    peak, rate = flops.peak(device, wanted.dtype), bandwidth(device)
    mfu, overhead = fitted([own for step in steps for own in _passes(step)], peak)
    batches = _batches(steps, Machine(peak, rate, mfu, overhead))
    settings = _settings({"mfu": mfu, "operator_us": 1e6 * overhead})
    trained = model.trained_parameters
    resident = wanted.dtype.itemsize * model.parameters + (4 + TRAINED) * trained
    devices = _devices(settings, steps, resident, wanted.bf16)
    update = 4 * trained
    return EdgeStudy(
        model=name,
        parameters=model.parameters,
        trained=trained,
        update=update,
        length=wanted.length,
        steps=wanted.steps,
        threads=torch.get_num_threads(),
        precision=_precision(wanted.bf16),
        peak=peak,
        bandwidth=rate,
        mfu=mfu,
        operator_us=1e6 * overhead,
        error=fmean(abs(b.predicted.total / b.measured.total - 1) for b in batches),
        energy=power.SOURCE if power.counters() else None,
        busy=processor.other_work(before),
        batches=batches,
        devices=devices,
        rounds=tuple(_rounds(wanted, batches, devices, settings, update)),
    )


def _step(model: RandomModel, rows: int, length: int) -> MeasuredStep:
    """A measured step; raises UserError if this machine's memory does not hold it."""
    try:
        return measured_step(model, rows, length)
    except (RuntimeError, MemoryError) as error:
        if not is_shortage(error):
            raise
        raise UserError(
            f"a step of {rows:,} rows of {length:,} tokens needs more memory than this machine "
            "has; lower --batch or --max-length."
        ) from None


def _refuse_large(name: str, weights: int, dtype: torch.dtype, device: torch.device) -> None:
    """Raise UserError for a model whose weights, and as much again for a step, are not free.

    The weights are made in the memory of the processor, and on a machine with a GPU moved to it.
    """
    size = dtype.itemsize * weights
    free = {"here": available_memory()}
    if device.type == "cuda":
        free["on the GPU"] = torch.cuda.mem_get_info(device)[0]
    for where, left in free.items():
        trains = where == "on the GPU" or len(free) == 1
        if (ROOM * size if trains else size) > left:
            more = ", and a step takes about as much again" if trains else ""
            raise UserError(
                f"{name} has {weights:,} weights, which take {size / 1e9:.3g} GB{more}; "
                f"{left / 1e9:.3g} GB are free {where}, so name a smaller model, or free some "
                "memory."
            )


def _precision(bf16: bool) -> str:
    return "bfloat16" if bf16 else "float32"


def _passes(step: MeasuredStep) -> Iterator[Measured]:
    """The passes of a step to which the model of cost is fitted; the optimizer hardly computes."""
    yield Measured(step.cost.forward, step.seconds.forward)
    yield Measured(step.cost.backward, step.seconds.backward)


def _batches(steps: Sequence[MeasuredStep], machine: Machine) -> tuple[BatchFigures, ...]:
    return tuple(
        BatchFigures(
            rows=step.rows,
            tokens=step.cost.tokens,
            measured=step.seconds,
            predicted=Passes(*machine.step(step.cost)),
            flops=step.cost.flops,
            mfu=step.cost.flops / step.seconds.total / machine.peak,
            tokens_per_second=step.cost.tokens / step.seconds.total,
            memory=step.memory,
            joules=step.joules,
        )
        for step in steps
    )


def _settings(measured: Mapping[str, float]) -> dict[str, DeviceSettings]:
    """The published devices by name, with what was measured here."""
    return {name: known.find(name, {}).model_copy(update=measured) for name in published.PUBLISHED}


def _devices(
    settings: Mapping[str, DeviceSettings],
    steps: Sequence[MeasuredStep],
    resident: float,
    bf16: bool,
) -> tuple[DeviceFigures, ...]:
    """All steps on each device; resident: bytes of weights, gradients and optimizer's state."""
    return tuple(
        _on_device(name, own, step, resident, bf16)
        for name, own in settings.items()
        for step in steps
    )


def _on_device(
    name: str, device: DeviceSettings, step: MeasuredStep, resident: float, bf16: bool
) -> DeviceFigures:
    """A step on a device, in float32 if its bfloat16 peak is not known; resident: as above."""
    predicted = Passes(*Machine.of(device, bf16).step(step.cost))
    return DeviceFigures(
        device=name,
        rows=step.rows,
        precision=_precision(device.uses_bf16(bf16)),
        predicted=predicted,
        memory=resident + (PEAK_BF16 if bf16 else PEAK) * step.kept,
        has=None if device.memory_gb is None else 1e9 * device.memory_gb,
        joules=None if device.watts is None else device.watts * predicted.total,
    )


def _rounds(
    wanted: Wanted,
    batches: Sequence[BatchFigures],
    devices: Sequence[DeviceFigures],
    settings: Mapping[str, DeviceSettings],
    update: int,
) -> Iterator[RoundFigures]:
    """Rounds of this machine and of each device over each link; an update goes each way."""
    for up, down in wanted.links:
        name = f"{up:g}/{down:g}"
        for batch in batches:
            journey = Link(up, down).mean_journey(
                update, update, wanted.steps * batch.measured.total
            )
            yield _round((THIS, batch.rows, name), journey, wanted.deadline, True)
        for own in devices:
            limits = settings[own.device]
            link = Link(min(up, limits.up_mbps or up), min(down, limits.down_mbps or down))
            journey = link.mean_journey(update, update, wanted.steps * own.predicted.total)
            holds = own.has is None or own.memory <= own.has
            yield _round((own.device, own.rows, name), journey, wanted.deadline, holds)


def _round(
    where: tuple[str, int, str], journey: Journey, deadline: float | None, holds: bool
) -> RoundFigures:
    """where: (device, rows, link). holds: whether the device's memory holds the step."""
    network = journey.down + journey.up
    share = network / journey.seconds
    objections = [
        *(["memory too small"] * (not holds)),
        *(["mostly network"] * (share > PLENTY)),
        *(["past the deadline"] * (deadline is not None and journey.seconds > deadline)),
    ]
    granularity = journey.training / network
    return RoundFigures(
        *where, journey.training, network, granularity, share, ", ".join(objections)
    )
