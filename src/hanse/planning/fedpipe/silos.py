"""The silos of a plan: their rows, their training, and their machines beside the measured one."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from hanse.errors import UserError
from hanse.experiment.schema import Experiment
from hanse.learners.training.settings import TrainingSettings
from hanse.planning.devices.profile import DeviceProfile

SECTIONS = ("adapter", "model", "train")  # those that a plan writes for a silo


@dataclass(frozen=True)
class Machine:
    """A silo's machine. slower: seconds there ÷ seconds here. source: of the figures."""

    memory: float
    slower: float
    source: str


@dataclass(frozen=True)
class Silo:
    """A silo whose training is planned.

    rows: of its training. mean, longest: tokens of a row. rates: bytes a second up and down of its
        simulated link; None: no limit.
    """

    name: str
    rows: int
    mean: int
    longest: int
    train: TrainingSettings
    machine: Machine
    rates: tuple[float | None, float | None] = (None, None)

    def shorter(self, share: float) -> TrainingSettings:
        """The training of a round with this share of its rows."""
        if share == 1:
            return self.train
        if self.train.max_steps is not None:
            return replace(self.train, max_steps=max(1, round(share * self.train.max_steps)))
        epochs = self.train.num_train_epochs or 1.0
        return replace(self.train, num_train_epochs=float(f"{share * epochs:.4g}"))

    def batches(self, size: int, share: float) -> int:
        """The batches of a round, of this many rows each."""
        return self.shorter(share).steps(self.rows) * (self.train.batch // size)

    def travel(self, size: float) -> float:
        """The seconds that so many bytes take up and down its simulated link."""
        return sum(size / rate for rate in self.rates if rate)


def rates(experiment: Experiment, name: str) -> tuple[float | None, float | None]:
    """The rates of a client's simulated link, in bytes a second."""
    links = experiment.for_client(name).links
    if links is None:
        return None, None
    values = links.at(experiment.client_names.index(name))
    up, down = (values[way] for way in ("up_mbps", "down_mbps"))
    return up and up * 1e6 / 8, down and down * 1e6 / 8


def own_settings(experiment: Experiment) -> dict[str, list[str]]:
    """The silos whose settings of `SECTIONS` are the user's own, with the names of these."""
    found = {n: [s for s in SECTIONS if s in over] for n, over in experiment.clients.items()}
    return {name: sections for name, sections in found.items() if sections}


def machines(
    names: Sequence[str],
    here: Machine,
    measured: DeviceProfile | None,
    profiles: Mapping[str, DeviceProfile],
    memory: Mapping[str, float],
    bf16: bool,
) -> dict[str, Machine]:
    """The machine of each silo: this one, or that of a profile, with the user's bound on memory.

    here: this machine. measured: its profile, which profiles of others are compared with.
    memory: bytes, by the name of a silo, or by "" for all.
    """
    for name in [*profiles, *memory]:
        if name and name not in names:
            raise UserError(
                f"{name:.80} is no silo of the experiment; they are {names[0]} to {names[-1]}."
            )
    found = {}
    for name in names:
        machine = here
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
