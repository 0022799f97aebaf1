"""The simulated devices of a run: their clients, seconds of training, and memory."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean

from hanse.data.packed import lengths
from hanse.experiment.assembly.assemble import SimulatedClient, Simulation
from hanse.learners import step_cost
from hanse.learners.caching import frozen_layers
from hanse.simulation.client_devices import ClientDevice

TRAINED = 12  # bytes for each trained number beside itself: its gradient and AdamW's two
# Memory at the peak for each byte that a forward pass keeps: the largest that was measured on a
# processor, 1.47 to 1.92 in float32 and 1.07 in bfloat16.
PEAK, PEAK_BF16 = 1.9, 1.1


@dataclass(frozen=True)
class DeviceUse:
    """The clients of one device.

    least, most: the simulated seconds of training in a round among them.
    forward, backward: shares of these seconds, on average; the optimizer has the rest.
    precision: in which it computes; of the run, unless its peak there is not known.
    mfu: of its peak. joules: of all of them in a round; None: its watts are not known.
    memory: bytes at the peak of the client that needs most, by a model. has: bytes of memory; None:
        not known.
    unknown: names of figures that are not known.
    """

    device: str
    clients: tuple[str, ...]
    least: float
    most: float
    forward: float
    backward: float
    precision: str
    mfu: float
    joules: float | None
    memory: float
    has: float | None
    unknown: tuple[str, ...]


def device_use(simulation: Simulation, devices: Mapping[str, ClientDevice]) -> list[DeviceUse]:
    """The use of each device, in the order of its first client.

    devices: by client, of those that have one.
    """
    by_device: dict[str, list[str]] = {}
    for name, own in devices.items():
        by_device.setdefault(own.name, []).append(name)
    return [_use(simulation, devices, names) for names in by_device.values()]


def _use(
    simulation: Simulation, devices: Mapping[str, ClientDevice], names: Sequence[str]
) -> DeviceUse:
    own = [devices[name] for name in names]
    settings, seconds = own[0].settings, [device.seconds for device in own]
    joules = [device.joules for device in own]
    return DeviceUse(
        device=own[0].name,
        clients=tuple(names),
        least=min(seconds),
        most=max(seconds),
        forward=fmean(device.step.forward / device.step.total for device in own),
        backward=fmean(device.step.backward / device.step.total for device in own),
        precision=_precision(own[0].bf16, simulation.clients[names[0]].learner.backbone.bf16),
        mfu=settings.mfu or 0.0,
        joules=None if settings.watts is None else sum(one or 0.0 for one in joules),
        memory=training_memory(_longest_client(simulation, names)),
        has=None if settings.memory_gb is None else 1e9 * settings.memory_gb,
        unknown=settings.unknown,
    )


def _precision(bf16: bool, wanted: bool) -> str:
    """The precision in words, with the reason if it is not that of the run."""
    name = "bfloat16" if bf16 else "float32"
    reason = f" (no {'bf16' if wanted else 'fp32'}_tflops are known)"
    return name + (reason if bf16 != wanted else "")


def _longest_client(simulation: Simulation, names: Sequence[str]) -> SimulatedClient:
    """The client with the longest training example among these."""
    clients = [simulation.clients[name] for name in names]
    return max(clients, key=lambda client: max(lengths(client.examples["train"])))


def training_memory(client: SimulatedClient) -> float:
    """The bytes at the peak of a client's training, without Python and its libraries.

    The base model's weights, the trained numbers with gradients and the optimizer's state, and what
    a forward pass of the longest examples keeps, times a measured factor.
    """
    learner, backbone = client.learner, client.learner.backbone
    rows = client.experiment.train.per_device_train_batch_size
    weights = list(backbone.model.parameters())
    loss, trained, _ = step_cost.longest(learner, learner.objective, client.examples["train"], rows)
    with frozen_layers.unused():
        kept = step_cost.saved_bytes(loss, weights)
    added = {id(p) for attached in backbone.adapters.values() for p in attached.every}
    base = sum(p.numel() * p.element_size() for p in weights if id(p) not in added)
    adapter = sum(p.numel() * (p.element_size() + TRAINED) for p in trained)
    return float(base + adapter + kept * (PEAK_BF16 if backbone.bf16 else PEAK))
