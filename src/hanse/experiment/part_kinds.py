"""The kinds of parts that an experiment names: one row for each kind.

Whatever treats all parts alike reads this table: loading, renaming, `hanse parts`, and a silo that
checks what a server asks for. Another kind is one more row, its folder, and its setting in the
schema. Importing the table imports no part.
"""

import pkgutil
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from typing import Any

from hanse import registry
from hanse.errors import UserError
from hanse.experiment.sections import Spec
from hanse.journal.yaml_text import Place, Values


@dataclass(frozen=True)
class PartKind:
    """One kind of parts: the files of a folder, chosen by name at one place of an experiment.

    place: the setting that names such a part; several: or a list of them.
    folder: where the package keeps the files, below src/hanse.
    role: the class that every such part derives from, as "module:Class"; imported on first use.
    at_silos: whether a silo builds the part that a server names; else only the server does.
    policy: the setting of a silo's policy that lists which of these parts may be used there.
    in_schema: whether the settings of these parts are sections of the schema. Such a part cannot
        come from outside the package.
    """

    place: Place
    folder: str
    role: str
    several: bool = False
    at_silos: bool = True
    policy: str | None = None
    in_schema: bool = False

    @property
    def setting(self) -> str:
        """The place as messages write it, such as "data.partition"."""
        return ".".join(map(str, self.place))

    @property
    def noun(self) -> str:
        """One such part in a word, such as "algorithm"."""
        return self.role.rpartition(":")[2].lower()

    def names(self) -> list[str]:
        """The names of the package's parts of this kind, sorted."""
        return registry.names(self.folder)

    def find(self, name: str) -> Any:
        """The class that a name stands for; raises UserError with the nearest names."""
        return registry.find(self.folder, name)

    def check_name(self, spec: Spec) -> None:
        """Raise UserError for a spec that names no part; no part is imported."""
        registry.check_name(self.folder, registry.split(self.folder, spec)[0])

    def build(self, spec: Spec) -> Any:
        """The part that a spec describes; raises UserError if it is none or not of this kind."""
        part = registry.build(self.folder, spec)
        if not isinstance(part, pkgutil.resolve_name(self.role)):
            raise UserError(f"{spec_name(spec)} is no {self.noun}; derive it from that role.")
        return part

    def resolved(self, spec: Any) -> Any:
        """A spec, or a list of specs, with all settings of its part; None without a part."""
        if spec is None:
            return None
        if isinstance(spec, list):
            return [self.resolved(item) for item in spec]
        return {spec_name(spec): asdict(self.build(spec))}

    def specs(self, experiment: Any) -> list[Spec]:
        """The specs that an experiment (its settings, or the values of its file) has of this kind.

        Empty if there are none, or if something else stands there.
        """
        value = experiment
        for key in self.place:
            value = value.get(key) if isinstance(value, Mapping) else getattr(value, str(key), None)
        listed = value if isinstance(value, list) else [value]
        return [spec for spec in listed if isinstance(spec, str | dict)]


ROLES = "hanse.federation.interfaces"
PARTITIONER = PartKind(
    ("data", "partition"), "data/partitioners", "hanse.data.partitioning:Partitioner"
)
OBJECTIVE = PartKind(
    ("objective",), "learners/objectives", f"{ROLES}.objective:Objective", policy="objectives"
)
ADAPTER = PartKind(
    *(("adapter",), "learners/adapters", "hanse.learners.injection.adapter:Adapter"),
    policy="adapters",
    in_schema=True,
)
ALGORITHM = PartKind(
    ("algorithm",), "federation/algorithms", f"{ROLES}.algorithm:Algorithm", policy="algorithms"
)
AGGREGATOR = PartKind(
    ("aggregator",),
    "federation/aggregators",
    f"{ROLES}.aggregator:Aggregator",
    policy="aggregators",
)
UPLOAD, DOWNLOAD = (
    PartKind(
        *(("compression", direction), "federation/compression", f"{ROLES}.transform:Transform"),
        several=True,
        policy="compression",
    )
    for direction in ("upload", "download")
)
MECHANISM = PartKind(
    *(("privacy",), "federation/privacy", f"{ROLES}.mechanism:Mechanism"), policy="mechanisms"
)
ATTACK = PartKind(("attack",), "audit/attacks", "hanse.audit.attack:Attack", at_silos=False)
TASK = PartKind(
    ("evaluation", "tasks"), "evaluation", f"{ROLES}.task:Task", several=True, policy="tasks"
)
TRACKER = PartKind(
    ("report_to",),
    "journal/trackers",
    "hanse.journal.tracking:Tracker",
    several=True,
    at_silos=False,
)

PART_KINDS = (
    *(PARTITIONER, OBJECTIVE, ADAPTER, ALGORITHM, AGGREGATOR, UPLOAD, DOWNLOAD, MECHANISM),
    *(ATTACK, TASK, TRACKER),
)
NAMED = tuple(kind for kind in PART_KINDS if not kind.in_schema)  # by a spec, also from outside
AT_SILOS = tuple(kind for kind in PART_KINDS if kind.at_silos)


def spec_name(spec: Spec) -> str:
    """The name in a spec: the part's, or path/to/file.py:Class of one from outside the package."""
    return spec if isinstance(spec, str) else str(next(iter(spec), ""))


def changed_at(values: Values, place: Place, change: Callable[[Any], Any]) -> Values:
    """The values with the one at a place changed; as they are if nothing stands there."""
    key, *inner = place
    if key not in values:
        return values
    if not inner:
        return {**values, key: change(values[key])}
    section = values[key]
    if not isinstance(section, dict):
        return values
    return {**values, key: changed_at(section, tuple(inner), change)}
