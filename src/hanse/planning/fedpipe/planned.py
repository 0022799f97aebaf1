"""The plan of an experiment, and the user's bounds of it."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from hanse.experiment.devices.settings import DeviceSettings
from hanse.experiment.schema import Experiment
from hanse.planning.devices.profile import DeviceProfile
from hanse.planning.fedpipe.choices import Form, Matrix
from hanse.planning.fedpipe.importance_round import Importance
from hanse.planning.fedpipe.silos import Silo
from hanse.planning.fedpipe.step_probes import StepModel


@dataclass(frozen=True)
class Bounds:
    """The user's bounds and profiles.

    seconds: of a round; None: as long as the slowest silo takes with the experiment's own settings.
    memory: bytes by silo, or by "" for all. profiles: of silos' machines.
    precision: whether the base's bits may be chosen. slower: how many times as long as predicted
        silos' steps take, as a run has measured it.
    """

    seconds: float | None = None
    memory: Mapping[str, float] = field(default_factory=dict)
    profiles: Mapping[str, DeviceProfile] = field(default_factory=dict)
    precision: bool = True
    slower: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class SiloPlan:
    """The plan of one silo. ranks: by the matrices' names. bytes: one way, of a round."""

    silo: Silo
    form: Form
    ranks: dict[str, int]
    seconds: float
    memory: float
    bytes: float

    @property
    def travel(self) -> float:
        """The seconds of a round's messages on their way."""
        return self.silo.latency + self.silo.travel(self.bytes)


@dataclass(frozen=True)
class Plan:
    """The plan of an experiment, with its evidence.

    matrices: all that may have an adapter. usual: seconds of a round with the experiment's own
    settings, by silo. bound: the most that a planned round may take. solver: how it was found.
    devices: simulated ones with figures that were measured here, which the file lacks.
    model: settings of the base that `auto` has chosen here, and that memory and seconds depend on.
    expected: seconds of training by silo, which a run compares with its own; empty: none.
    """

    experiment: Experiment
    silos: tuple[SiloPlan, ...]
    importance: Importance
    steps: StepModel
    matrices: tuple[Matrix, ...]
    rank: int
    usual: Mapping[str, float]
    bound: float
    solver: str
    remarks: tuple[str, ...]
    devices: Mapping[str, DeviceSettings] = field(default_factory=dict)
    model: Mapping[str, bool | str] = field(default_factory=dict)
    expected: Mapping[str, float] = field(default_factory=dict)
