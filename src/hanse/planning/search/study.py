"""The trials of a search in Optuna's storage, so that the same command goes on with them.

The file is Optuna's journal of operations; optuna-dashboard and `optuna.load_study` read it.
"""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import optuna
from optuna.pruners import BasePruner
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend
from optuna.trial import FrozenTrial, TrialState

from hanse.errors import UserError
from hanse.planning.search import halving
from hanse.planning.search.settings import Setting
from hanse.planning.search.trial import SiloScore, mean, weighted

FILE, NAME = "trials.log", "search"
HEADER, REASON = "search", "reason"


class Halving(BasePruner):
    """Stops a trial that is not among the best third of all trials with a score at its rung."""

    def prune(self, study: optuna.Study, trial: FrozenTrial) -> bool:
        """Stop the trial; asked when all trials of the rung have reported."""
        step = trial.last_step
        if step is None:
            return False
        every = map(_trial, study.get_trials(deepcopy=False))
        scores = {own.number: own.score(step) for own in every if step in own.scores}
        lower = study.direction == optuna.study.StudyDirection.MINIMIZE
        return not halving.goes_on(trial.number, scores, lower)


@dataclass(frozen=True)
class Trial:
    """A trial as the storage has it.

    scores: the silos' scores by rung. state: "running" until it is stopped by the halving
    ("pruned"), has all rounds ("complete") or could not be trained ("fail").
    """

    number: int
    setting: Setting
    scores: Mapping[int, Mapping[str, SiloScore]]
    state: str
    reason: str = ""

    @property
    def rounds(self) -> int:
        """The rounds of its last score; 0 without one."""
        return max(self.scores, default=0)

    def score(self, rung: int) -> halving.Score:
        """The mean of the silos' scores at a rung that it has, and of their losses."""
        return weighted(self.scores[rung])

    def mean(self, rung: int) -> float | None:
        """The mean of the silos' scores at a rung."""
        return self.score(rung)[0] if rung in self.scores else None


class Trials:
    """The trials of one search, in the file of its folder."""

    def __init__(self, folder: Path, lower: bool) -> None:
        """lower: a smaller score is better."""
        optuna.logging.set_verbosity(optuna.logging.WARNING)
        self._storage = JournalStorage(JournalFileBackend(str(folder / FILE)))
        self.study = optuna.create_study(
            storage=self._storage,
            study_name=NAME,
            direction="minimize" if lower else "maximize",
            sampler=optuna.samplers.RandomSampler(seed=0),  # draws nothing: all values are given
            pruner=Halving(),
            load_if_exists=True,
        )

    @property
    def header(self) -> dict[str, Any] | None:
        """The settings that the search was begun with; None before it is noted."""
        found: dict[str, Any] | None = self.study.user_attrs.get(HEADER)
        return found

    def begin(self, header: Mapping[str, Any]) -> None:
        """Note what the search is begun with; this makes it one that can go on."""
        self.study.set_user_attr(HEADER, dict(header))

    def add(self, settings: Sequence[Setting]) -> None:
        """Add the trials that are not there yet, in this order."""
        adapters = sorted({setting.adapter.label for setting in settings})
        algorithms = sorted({setting.algorithm.label for setting in settings})
        rates = [setting.rate for setting in settings]
        for setting in settings[len(self.study.get_trials(deepcopy=False)) :]:
            values = dict(zip(("adapter", "algorithm"), setting.pair, strict=True))
            self.study.enqueue_trial(
                {**values, "learning_rate": setting.rate}, {"setting": asdict(setting)}
            )
        for _ in self.study.get_trials(deepcopy=False, states=(TrialState.WAITING,)):
            trial = self.study.ask()
            trial.suggest_categorical("adapter", adapters)
            trial.suggest_categorical("algorithm", algorithms)
            trial.suggest_float("learning_rate", min(rates), max(rates), log=True)

    @property
    def every(self) -> list[Trial]:
        """All trials, in their order."""
        return [_trial(own) for own in self.study.get_trials(deepcopy=False)]

    def report(self, number: int, rung: int, scores: Mapping[str, SiloScore]) -> None:
        """Keep the silos' scores of a trial at a rung."""
        trial = self._open(number)
        trial.set_user_attr(f"scores-{rung}", {name: asdict(own) for name, own in scores.items()})
        trial.report(mean(scores), rung)

    def stops(self, number: int) -> bool:
        """True if the halving stops a trial at its rung."""
        return self._open(number).should_prune()

    def end(self, number: int, state: str, reason: str = "") -> None:
        """Close a trial; state: as in `Trial`."""
        if reason:
            self._open(number).set_user_attr(REASON, reason)
        trial = next(own for own in self.every if own.number == number)
        value = trial.mean(trial.rounds) if state == "complete" else None
        self.study.tell(number, value, TrialState[state.upper()])

    def _open(self, number: int) -> optuna.Trial:
        """Optuna's trial of a number, of this process or an earlier one."""
        study = self._storage.get_study_id_from_name(NAME)
        found = self._storage.get_trial_id_from_study_id_trial_number(study, number)
        return optuna.Trial(self.study, found)


def open_trials(folder: Path, lower: bool) -> Trials:
    """The trials in a folder; raises UserError if their file cannot be read."""
    try:
        return Trials(folder, lower)
    except (ValueError, KeyError, TypeError, AssertionError):
        raise UserError(
            f"{folder / FILE} cannot be read; bring it back from a copy, or remove {folder} to "
            "search anew."
        ) from None


def _trial(own: FrozenTrial) -> Trial:
    """A trial as the storage has it."""
    setting = Setting.read(own.user_attrs["setting"])
    scores = {
        rung: {name: SiloScore(**s) for name, s in own.user_attrs[f"scores-{rung}"].items()}
        for rung in sorted(own.intermediate_values)
    }
    state, reason = own.state.name.lower(), own.user_attrs.get(REASON, "")
    return Trial(own.number, setting, scores, state, reason)
