"""One tool whose configs become experiments: a table of its keys, and what follows from them."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from hanse.errors import UserError
from hanse.experiment import part_names
from hanse.experiment.aliases import ALIASES
from hanse.experiment.part_kinds import ALGORITHM, TRACKER
from hanse.experiment.schema import Experiment
from hanse.experiment.unused_keys import unused
from hanse.experiment.validation import leaves
from hanse.planning.conversion.draft import EMPTY, SWITCHED_OFF, Draft, shown

Rule = Callable[[Draft, str, Any], None]  # carries one key over, or leaves it
NO_SETTING = "hanse has no such setting"
SCHEDULES = ("constant", "linear", "cosine", "constant_with_warmup")
PREFERENCES = "no objective here learns from preferences or rewards"


@dataclass(frozen=True)
class Tool:
    """One tool. marks: keys that tell its configs from others.

    settings: what its keys mean here: a setting, or a rule. A key that is not listed means what
        the experiment's own names and other tools' names of settings say.
    reasons: why other keys have no counterpart here.
    defaults: the tool's own defaults, by our setting.
    finish: settles what follows from several keys together.
    sections: those of a config with sections, by names with dots, in which our own names and other
        tools' names of settings are understood; the top is "". Empty: a config without sections.
    """

    name: str
    marks: frozenset[str]
    settings: Mapping[str, str | Rule]
    finish: Callable[[Draft], None]
    defaults: Mapping[str, Any] = field(default_factory=dict)
    reasons: Mapping[str, str] = field(default_factory=dict)
    sections: frozenset[str] = frozenset()

    def carry(self, draft: Draft) -> None:
        """Carry all keys of a config over, add the tool's defaults, and settle the whole.

        Raises UserError for a value that a rule cannot read.
        """
        for key, value in draft.source.items():
            try:
                self._carry(draft, key, value)
            except (TypeError, ValueError, AttributeError, LookupError):
                raise UserError(
                    f"{key}: {shown(value)} has another form than {self.name} reads; correct it, "
                    "and convert the config again."
                ) from None
        for part in ("algorithm", "data.partition"):
            _keep_one(draft, part)
        for setting, value in self.defaults.items():
            draft.default(setting, value, f"{self.name}'s default")
        self.finish(draft)

    def _carry(self, draft: Draft, key: str, value: Any) -> None:
        section, _, name = key.rpartition(".")
        understood = not self.sections or section in self.sections
        common = COMMON.get(name) if understood and key not in self.reasons else None
        meaning = self.settings.get(key, common)
        if value is None or value in ("", [], {}):
            draft.leave(key, EMPTY)
        elif callable(meaning):
            meaning(draft, key, value)
        elif meaning:
            draft.put(meaning, value, key)
        elif reason := self.reasons.get(key) or unused(key, value) or unused(key.split(".")[0]):
            draft.leave(key, reason)
        elif understood:
            _carry_by_name(draft, key, value)
        else:
            draft.leave(key, SWITCHED_OFF if value is False else NO_SETTING)


def _carry_by_name(draft: Draft, key: str, value: Any) -> None:
    """Carry a key over that is a setting's own name, or one of its names in other tools."""
    name = key.rpartition(".")[2]
    alias, place = ALIASES.get(key) or ALIASES.get(name), leaves(Experiment).get(name)
    if alias:
        ours = alias.values.get(value, value) if isinstance(value, str | int) else value
        if ours is None:
            draft.leave(key, SWITCHED_OFF)
        else:
            draft.put(alias.setting, ours, key, "" if ours == value else f"{key}: {shown(value)}")
    elif place:
        draft.put(".".join(map(str, place)), value, key)
    elif key in Experiment.model_fields:
        for setting, inner in _settings_of_section(key, value):
            draft.put(setting, inner, setting)
    else:
        draft.leave(key, SWITCHED_OFF if value is False else NO_SETTING)


def _settings_of_section(place: str, value: Any) -> Iterator[tuple[str, Any]]:
    """The settings of a section of hanse's own in a config, by their dotted names."""
    if not isinstance(value, Mapping):
        yield place, value
        return
    for name, inner in value.items():
        yield from _settings_of_section(f"{place}.{name}", inner)


def _keep_one(draft: Draft, place: str) -> None:
    """Keep the settings of the part that the config names, without the name beside them."""
    name = str(draft.value(place) or "")
    settings = [setting for setting in draft.settings if setting.startswith(f"{place}.")]
    for setting in settings:
        if name and not setting.startswith(f"{place}.{name}."):
            draft.drop(setting, f"{place} is {name}")
    if place in draft.settings and any(setting in draft.settings for setting in settings):
        draft.leave(draft.settings.pop(place).key, f"the section {place} says it")


def used(draft: Draft, key: str, value: Any) -> None:
    """Carry nothing: another rule reads this key."""


def refuse(reason: str) -> Rule:
    """A rule that refuses a config which has a key."""

    def rule(draft: Draft, key: str, value: Any) -> None:
        raise UserError(f"{key}: {value!s:.80} cannot be converted, since {reason}.")

    return rule


def one_of(known: Mapping[Any, str], reason: str) -> Rule:
    """A rule that refuses all values but the known ones, and puts the sections that they mean."""

    def rule(draft: Draft, key: str, value: Any) -> None:
        if value not in known:
            refuse(reason)(draft, key, value)
        if known[value]:
            draft.put(known[value], {}, key, f"{key}: {value}")

    return rule


def _schedule(draft: Draft, key: str, value: Any) -> None:
    if value in SCHEDULES:
        draft.put("train.lr_scheduler_type", value, key)
    else:
        draft.put("train.lr_scheduler_type", "cosine", key, f"in place of {key}: {value}")
        draft.leave(f"{key}: {value}", "hanse has constant, linear and cosine; cosine is taken")


def optimizer(draft: Draft, key: str, value: Any) -> None:
    """The rule of a key that names an optimizer; adamw is taken for one that hanse lacks."""
    draft.put("train.optim", value, key)
    if draft.value("train.optim") not in ("adamw", "sgd"):
        del draft.settings["train.optim"]
        draft.put("train.optim", "adamw", key, f"in place of {key}: {value}")
        draft.leave(f"{key}: {value}", "hanse has adamw and sgd; adamw is taken")


def algorithm(draft: Draft, key: str, value: Any) -> None:
    """The rule of a key that names a strategy, such as FedAvg or flwr.server.strategy.FedAdam."""
    spec = part_names.spelled(ALGORITHM, str(value).rpartition(".")[2])
    if isinstance(spec, Mapping):
        optimizer = spec["fedopt"]["optimizer"]
        draft.put("algorithm.fedopt.optimizer", optimizer, key, f"{key}: {shown(value)}")
    elif spec in ALGORITHM.names():
        draft.put("algorithm", spec, key, f"{key}: {shown(value)}")
    else:
        draft.leave(key, f"hanse has no {shown(spec)}; `hanse parts` lists its algorithms")


def _trackers(draft: Draft, key: str, value: Any) -> None:
    names = value if isinstance(value, list) else str(value).split(",")
    known = [name for name in names if name in TRACKER.names()]
    draft.put("report_to", known, key)
    for name in names:
        if name not in (*known, "none"):
            draft.leave(f"{key}: {name}", "hanse has no such tracker")


COMMON: Mapping[str, str | Rule] = {
    "output_dir": "output_dir",
    "seed": "seed",
    "report_to": _trackers,
    "fed_alg": algorithm,
    "federated_optimizer": algorithm,
    "optim": optimizer,
    "optimizer": optimizer,
    "lr_scheduler_type": _schedule,
    "lr_scheduler": _schedule,
}
