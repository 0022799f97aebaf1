"""The silos of a plan: their rows, their training, and their machines beside the measured one."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from hanse.learners.training.settings import TrainingSettings
from hanse.planning.devices.profile import DeviceProfile
from hanse.simulation.link import Link

MANY = 1_000_000  # bytes of a message whose way is longer than that of an empty one


@dataclass(frozen=True)
class Machine:
    """A silo's machine.

    slower: seconds there ÷ those of `device`, or ÷ seconds here. source: of the figures.
    device: the simulated one whose seconds of steps it takes; empty: this machine's. measured: the
        silo from whose own steps its seconds are predicted, in place of this machine's.
    """

    memory: float
    slower: float
    source: str
    device: str = ""
    measured: str = ""

    @property
    def steps(self) -> str:
        """The name in `StepModel.devices` of the steps that it takes; empty: this machine's."""
        return self.device or self.measured


@dataclass(frozen=True)
class Silo:
    """A silo whose training is planned.

    rows: of its training; packed ones, with packing. mean, longest: tokens of a row. rates: bytes a
        second up and down of its link; None: no limit. latency: seconds of this link up and down
        together.
    """

    name: str
    rows: int
    mean: int
    longest: int
    train: TrainingSettings
    machine: Machine
    rates: tuple[float | None, float | None] = (None, None)
    latency: float = 0.0

    def shorter(self, share: float) -> TrainingSettings:
        """The training of a round with this share of its rows."""
        if share == 1:
            return self.train
        if self.train.max_steps is not None:
            return replace(self.train, max_steps=max(1, round(share * self.train.max_steps)))
        epochs = self.train.num_train_epochs or 1.0
        return replace(self.train, num_train_epochs=float(f"{share * epochs:.4g}"))

    def packed(self, rows: int, room: int) -> "Silo":
        """The silo with its tokens in so many rows, of which some are full. room: tokens of one."""
        tokens = self.rows * self.mean
        longest = max(self.longest, min(room, tokens))
        return replace(self, rows=rows, mean=max(1, round(tokens / rows)), longest=longest)

    def corrected(self, factor: float) -> "Silo":
        """The silo whose steps take so many times as long."""
        machine = replace(self.machine, slower=factor * self.machine.slower)
        return replace(self, machine=machine)

    def batches(self, size: int, share: float) -> int:
        """The batches of a round, of this many rows each."""
        return self.shorter(share).steps(self.rows) * (self.train.batch // size)

    def travel(self, size: float) -> float:
        """The seconds that so many bytes take up and down its link."""
        return sum(size / rate for rate in self.rates if rate)


def rates(link: Link | None) -> tuple[float | None, float | None]:
    """The rates of a simulated link up and down, in bytes a second, with what is sent again."""
    if link is None:
        return None, None
    empty, full = (link.mean_journey(size, size, 0.0) for size in (0, MANY))
    up, down = full.up - empty.up, full.down - empty.down
    return (MANY / up if up else None), (MANY / down if down else None)


def machines(
    names: Sequence[str],
    here: Machine,
    measured: DeviceProfile | None,
    profiles: Mapping[str, DeviceProfile],
    memory: Mapping[str, float],
    bf16: bool,
    devices: Mapping[str, Machine] = {},
) -> dict[str, Machine]:
    """The machine of each silo: this one, or of a profile or device, with the user's memory.

    here: this machine. measured: its profile, which profiles of others are compared with.
    memory: bytes, by the name of a silo, or by "" for all. devices: machines of simulated devices,
        by the names of silos.
    """
    found = {}
    for name in names:
        machine = devices.get(name, here)
        if name in profiles and measured is not None:
            machine = _beside(profiles[name], measured, bf16)
        bound = memory.get(name, memory.get(""))
        if bound is not None:
            machine = replace(machine, memory=bound)
        found[name] = machine
    return found


def _beside(profile: DeviceProfile, measured: DeviceProfile, bf16: bool) -> Machine:
    """The machine of a profile, whose steps take longer by the ratio of the measured peaks."""
    kind = "bfloat16" if bf16 else "float32"
    slower = getattr(measured, kind) / getattr(profile, kind)
    memory = profile.memory_free if profile.gpu_memory is None else profile.gpu_memory
    source = f"{profile.gpu or profile.processor}, by the ratio of {kind} peaks"
    return Machine(float(memory), slower, source)
