"""The simulated devices of clients, and their seconds of training."""

import logging
from dataclasses import dataclass, replace

import torch

from hanse.data.packed import lengths
from hanse.errors import UserError
from hanse.experiment.assembly.assemble import SimulatedClient, Simulation
from hanse.experiment.devices import known
from hanse.experiment.devices.settings import DeviceSettings
from hanse.learners import flops, step_cost
from hanse.learners.caching import frozen_layers
from hanse.learners.models.settings import Loaded
from hanse.learners.step_cost import StepCost
from hanse.observability.progress import report
from hanse.observability.steps import Activity, Work
from hanse.simulation.device_cost import Machine, Measured, StepSeconds, fitted

log = logging.getLogger(__name__)
Kind = tuple[Loaded, str, int]  # model, adapter, and rows of a batch
ROWS = (1, 8)  # of the batches that are measured: one waits for operators, one for products


@dataclass(frozen=True)
class ClientDevice:
    """A client's device, and the cost of its training on it.

    name, settings: of the device. bf16: whether it computes in bfloat16.
    cost, step: of one optimizer step. steps: of a round.
    """

    name: str
    settings: DeviceSettings
    bf16: bool
    cost: StepCost
    step: StepSeconds
    steps: int

    @property
    def seconds(self) -> float:
        """The simulated seconds of training in a round."""
        return self.steps * self.step.total

    @property
    def joules(self) -> float | None:
        """The energy of training in a round; None if the device's watts are not known."""
        watts = self.settings.watts
        return None if watts is None else watts * self.seconds

    @property
    def mfu(self) -> float | None:
        """The share of the device's peak that a step reaches; None if the step takes no time."""
        settings = self.settings
        tflops = settings.bf16_tflops if self.bf16 else settings.fp32_tflops
        if not tflops or not self.step.total:
            return None
        return self.cost.flops / (self.step.total * 1e12 * tflops)


def decided(simulation: Simulation) -> Simulation:
    """The simulation with all figures of its devices in its experiment.

    mfu and operator_us are measured here where they are not written. Its run folder therefore has
    them, and a resumed run has the same simulated seconds.
    """
    experiment = simulation.experiment
    if not experiment.has_devices:
        return simulation
    names = dict.fromkeys(
        name for c in simulation.clients.values() if (name := c.experiment.device)
    )
    devices = {name: known.find(name, experiment.devices) for name in names}
    if any(own.mfu is None or own.operator_us is None for own in devices.values()):
        report(Work(Activity.MEASURING_MACHINE))
        mfu, overhead = measured(next(iter(simulation.clients.values())))
        log.info(
            "products reach %.0f %% of this machine's peak, and an operator takes %.0f "
            "microseconds; the simulated devices are taken to do the same",
            *(100 * mfu, 1e6 * overhead),
        )
        devices = {name: _with_measured(own, mfu, overhead) for name, own in devices.items()}
    whole = experiment.model_copy(update={"devices": {**experiment.devices, **devices}})
    return replace(simulation, experiment=whole)


def _with_measured(device: DeviceSettings, mfu: float, overhead: float) -> DeviceSettings:
    return device.model_copy(
        update={
            "mfu": mfu if device.mfu is None else device.mfu,
            "operator_us": 1e6 * overhead if device.operator_us is None else device.operator_us,
        }
    )


def measured(client: SimulatedClient) -> tuple[float, float]:
    """(mfu, seconds of each operator) of this machine, from passes on the client's own rows."""
    backbone = client.learner.backbone
    device = backbone.device
    passes = []
    for rows in ROWS:
        cost = _counted(client, rows)
        loss, parameters, _ = _typical(client, rows)
        with frozen_layers.unused():
            forward, backward = step_cost.seconds(loss, parameters, device)
        passes += [Measured(cost.forward, forward), Measured(cost.backward, backward)]
    dtype = torch.bfloat16 if backbone.bf16 else torch.float32
    return fitted(passes, flops.peak(device, dtype))


def client_devices(simulation: Simulation) -> dict[str, ClientDevice]:
    """The device of each client that has one, in client order."""
    costs: dict[Kind, StepCost] = {}
    devices = {}
    for name, client in simulation.clients.items():
        if (device := client.experiment.device) is not None:
            devices[name] = _client_device(simulation, client, device, costs)
    return devices


def _client_device(
    simulation: Simulation,
    client: SimulatedClient,
    name: str,
    costs: dict[Kind, StepCost],
) -> ClientDevice:
    """costs: those counted so far; clients that differ in their rows alone share one."""
    learner, settings = client.learner, client.experiment.train
    rows = settings.per_device_train_batch_size
    kind = client.experiment.model.loaded, learner.adapter, rows
    if kind not in costs:
        costs[kind] = _counted(client, rows)
    sizes = lengths(client.examples["train"])
    batches = settings.gradient_accumulation_steps
    tokens = rows * sum(sizes) / learner.row_count("train")
    cost = costs[kind].of(tokens, batches)
    device, wanted = simulation.experiment.devices[name], learner.backbone.bf16
    step, bf16 = Machine.of(device, wanted).step(cost), device.uses_bf16(wanted)
    return ClientDevice(name, device, bf16, cost, step, settings.steps(learner.row_count("train")))


def _counted(client: SimulatedClient, rows: int) -> StepCost:
    """The cost of a step on one batch of typical rows, of which no layer is cached."""
    try:
        with frozen_layers.unused():
            return step_cost.count(*_typical(client, rows))
    except (RuntimeError, AssertionError) as error:  # an operator that cannot be counted
        raise UserError(
            f"the operations of a training step of {client.learner.backbone.name} cannot "
            f"be counted ({error!s:.200}), so a simulated device has no seconds; leave device "
            "out, and set links.seconds_per_step."
        ) from None


def _typical(
    client: SimulatedClient, rows: int
) -> tuple[step_cost.Loss, list[torch.Tensor], float]:
    """(loss, trained parameters, tokens) of a batch of so many of the client's typical rows."""
    learner = client.learner
    return step_cost.typical(learner, learner.objective, client.examples["train"], rows)
