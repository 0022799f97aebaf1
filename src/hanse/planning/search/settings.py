"""The combinations of adapters, algorithms and learning rates that a search tries."""

import math
import random
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from hanse import registry
from hanse.errors import UserError
from hanse.experiment.overrides import merge, parse_change
from hanse.experiment.part_kinds import ADAPTER, ALGORITHM
from hanse.experiment.schema import Experiment
from hanse.planning import method_defaults
from hanse.planning.method_defaults import (
    ALGORITHMS,
    AdapterDefault,
    AlgorithmDefault,
    around,
    rate_of,
)
from hanse.planning.yaml_comments import scalar
from hanse.randomness import RoundContext

ADAPTERS = ("lora", "ia3", "pfeiffer", "prompt_tuning")  # beside the file's own
TABLES: Mapping[str, Mapping[str, AdapterDefault | AlgorithmDefault]] = {
    "--adapters": method_defaults.ADAPTERS,
    "--algorithms": ALGORITHMS,
}
KINDS = {"--adapters": ADAPTER, "--algorithms": ALGORITHM}
TRIALS = 24  # combinations, unless the user says how many


@dataclass(frozen=True)
class Wishes:
    """The wishes of a user for a search.

    adapters, algorithms: lists of names, or of names with settings, as YAML; None: the usual ones.
    rates: learning rates of all adapters; empty: three of each adapter.
    trials: the most combinations. rounds: those of the longest trials; None: the file's.
    """

    adapters: str | None = None
    algorithms: str | None = None
    rates: tuple[float, ...] = ()
    trials: int = TRIALS
    rounds: int | None = None


@dataclass(frozen=True)
class Choice:
    """An adapter or an algorithm with its settings, and its name in tables."""

    label: str
    value: Mapping[str, Any]


@dataclass(frozen=True)
class Setting:
    """One combination. own: it is what the file has."""

    adapter: Choice
    algorithm: Choice
    rate: float
    own: bool = False

    @staticmethod
    def read(values: Mapping[str, Any]) -> "Setting":
        """A combination from what `asdict` made of it."""
        adapter, algorithm = (Choice(**values[name]) for name in ("adapter", "algorithm"))
        return Setting(adapter, algorithm, values["rate"], values["own"])

    @property
    def words(self) -> list[str]:
        """The words that make the user's experiment one with this combination."""
        return [
            f"adapter={scalar(dict(self.adapter.value))}",
            f"algorithm={scalar(dict(self.algorithm.value))}",
            f"train.learning_rate={self.rate!r}",
        ]

    @property
    def pair(self) -> tuple[str, str]:
        """The names of its adapter and its algorithm."""
        return self.adapter.label, self.algorithm.label

    def __str__(self) -> str:
        return f"{self.adapter.label}, {self.algorithm.label}, {self.rate:g}"


def settings(experiment: Experiment, wishes: Wishes) -> list[Setting]:
    """All combinations; the file's own comes first if it is one of them.

    The rates of the file's adapter lie around its own rate, those of others around the table's.
    Raises UserError for names that cannot be read, and for an adapter without a rate.
    """
    values = experiment.resolved()
    adapter, algorithm = _own(values["adapter"]), _own(values["algorithm"])
    usual = () if experiment.adapter.source else tuple(n for n in ADAPTERS if n != adapter.label)
    adapters = _choices("--adapters", wishes.adapters, adapter, usual)
    usual = tuple(name for name in ALGORITHMS if name != algorithm.label)
    algorithms = _choices("--algorithms", wishes.algorithms, algorithm, usual)
    own_rate, found = experiment.train.learning_rate, []
    for one in adapters:
        rates = wishes.rates or around(own_rate if one == adapter else rate_of(_kind(one)))
        for other in algorithms:
            pair = one == adapter and other == algorithm
            found += [Setting(one, other, rate, pair and rate == own_rate) for rate in rates]
    return sorted(found, key=lambda setting: not setting.own)


def drawn(every: Sequence[Setting], trials: int, seed: int) -> list[Setting]:
    """At most so many combinations; every pair of adapter and algorithm has equally many, ± 1.

    The first one stays the first. Draws depend on the seed alone.
    """
    draw = random.Random(RoundContext(seed).derive("search"))  # noqa: S311 (no secret)
    pairs: dict[tuple[str, str], list[Setting]] = {}
    for setting in every:
        pairs.setdefault(setting.pair, []).append(setting)
    for own in pairs.values():
        draw.shuffle(own)
        own.sort(key=lambda setting: not setting.own)
    order = list(pairs.values())
    draw.shuffle(order)
    order.sort(key=lambda own: not own[0].own)
    turns = (own[turn] for turn in range(max(map(len, order))) for own in order if turn < len(own))
    return list(turns)[:trials]


def rates(text: str) -> tuple[float, ...]:
    """The learning rates in the words of --rates, each once, in rising order."""
    found = []
    for word in text.split(","):
        try:
            rate = float(word)
        except ValueError:
            rate = 0.0
        if not 0 < rate < math.inf:
            raise UserError(
                f"--rates came with {word.strip()!r:.80}; write positive numbers, such as "
                "3e-4,1e-3,3e-3."
            )
        found.append(rate)
    return tuple(sorted(set(found)))


def _own(value: Mapping[str, Any]) -> Choice:
    """The file's own adapter or algorithm."""
    return Choice("+".join(value), dict(value))


def _kind(adapter: Choice) -> str:
    return "+".join(adapter.value)


def _choices(option: str, text: str | None, own: Choice, usual: Sequence[str]) -> list[Choice]:
    """The choices of one option, each once; without a text the file's own, and the usual ones."""
    if text is None:
        return [own, *(_choice(option, name, own) for name in usual)]
    listed = parse_change(f"{option}=[{text}]").value
    if not listed:
        raise UserError(f"{option} came empty; write names, such as {own.label}, or leave it out.")
    found: list[Choice] = []
    for choice in (_choice(option, written, own) for written in listed):
        if all(choice.value != other.value for other in found):
            found.append(choice)
    return found


def _choice(option: str, written: Any, own: Choice) -> Choice:
    """One choice: a name alone has the file's or the table's settings, which others change."""
    alone = isinstance(written, dict) and len(written) == 1
    if not (isinstance(written, str) or alone):
        raise UserError(
            f"{option} came with {written!r:.80}; write names, or names with settings, such as "
            f"{own.label} or {{{own.label}: {{setting: value}}}}."
        )
    name, changes = registry.split(KINDS[option].folder, written)
    base = own.value if list(own.value) == [name] else {name: _usual(option, name)}
    if not changes:
        return own if base is own.value else Choice(name, base)
    value = merge(base, {name: changes}, (option.strip("-s"),))
    return own if value == own.value else Choice(" ".join([name, *_shown(changes)]), value)


def _usual(option: str, name: str) -> dict[str, Any]:
    """The table's settings of an adapter or algorithm; empty if it has none."""
    from_table = TABLES[option].get(name)
    return dict(from_table.settings) if from_table else {}


def _shown(changes: Mapping[str, Any]) -> Iterator[str]:
    """Settings as words of a label."""
    for key, value in changes.items():
        yield f"{key}={scalar(value)}"
